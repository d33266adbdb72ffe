"""What each term of the loss achieved, measured on the published copy: a term that does nothing shows here."""

from __future__ import annotations

from statistics import fmean

import torch
from torch import nn
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float
from uge.encoders import build_encoder, features_of
from uge.keys.key import Key
from uge.losses.feature_distance import feature_distance
from uge.losses.gradient_matching import gradient_matching
from uge.networks import trainable
from uge.runtime import generator_for
from uge.training import fit


def on_policy_matching(
    key: Key, clean: ImageSet, copy: ImageSet, *, seed: int, batches: int = 8, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """L_gm at fresh on-policy weights: those of a new authorised training on the copy, at every quarter of it.

    Args:
        key: the authorised network.
        clean: the originals.
        copy: the published images, in the same order.
        seed: of the training and of the batches.
        batches: batches of the recipe's size a point.
        device: where to train.

    Returns:
        Means over points and batches: `direction` and `magnitude` as in `gradient_matching`.
    """
    network = key.network_module()
    generator = generator_for(seed, "on-policy matching")
    size = min(key.recipe.batch_size, len(clean))
    picks = [torch.randperm(len(clean), generator=generator)[:size] for _ in range(batches)]
    found: list[tuple[float, float]] = []
    points = {max(1, round(key.recipe.epochs * share)) for share in (0.25, 0.5, 0.75, 1.0)}

    def measure(epoch: int, loss: float, accuracy: float) -> None:
        if epoch in points:
            for pick in picks:
                wanted, got = (_gradients(network, images, pick, device) for images in (clean, copy))
                matched = gradient_matching(wanted, got)
                found.append((float(matched.direction), float(matched.magnitude)))

    fit(network, copy, key.recipe, seed=seed, device=device, on_epoch=measure)
    return {"direction": fmean(d for d, _ in found), "magnitude": fmean(m for _, m in found)}


def _gradients(
    network: nn.Module, images: ImageSet, pick: torch.Tensor, device: torch.device | str
) -> tuple[torch.Tensor, ...]:
    x, y = to_float(images.images[pick]).to(device), images.labels[pick].to(device)
    return torch.autograd.grad(F.cross_entropy(network(x), y), list(trainable(network).values()))


def encoder_similarity(
    clean: ImageSet,
    copy: ImageSet,
    encoder: str,
    *,
    seed: int = 0,
    most: int = 1000,
    device: torch.device | str = "cpu",
) -> float:
    """Mean centred cosine of originals and copies in an encoder, best one that the protection did not use.

    Args:
        clean: the originals.
        copy: the published images, in the same order.
        encoder: an entry of `ENCODERS`.
        seed: picks the images.
        most: how many images to compare.
        device: where to compute.

    Returns:
        In [-1, 1]; 1 where the copies look like their originals.
    """
    pick = torch.randperm(len(clean), generator=generator_for(seed, "encoder similarity"))[:most]
    module = build_encoder(encoder, clean, seed=seed, device=device)
    a, b = (features_of(module, images.images[pick], device=device) for images in (clean, copy))
    return float(feature_distance(a, b, a.mean(0)))
