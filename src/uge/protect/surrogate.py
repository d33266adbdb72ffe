"""What baselines that train a network of their own share: building it, and signed gradient steps on perturbations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, normalisation_of
from uge.networks import NetworkSpec, build_network, parse_network
from uge.runtime import seed_for

SMALL_SURROGATE = "resnet:depth=8,width=16"  # of the presets "quick": a processor trains it in minutes


def build_surrogate(text: str, images: ImageSet, seed: int, device: torch.device) -> nn.Module:
    """A network for these images, such as "resnet:depth=18"; the seed alone decides its weights."""
    name, options = parse_network(text)
    spec = NetworkSpec(name, images.channels, images.image_size, images.classes, options)
    network = build_network(spec, *normalisation_of(images.images), seed=seed_for(seed, "surrogate", text))
    return network.to(device)


def signed_step(
    network: nn.Module,
    x: Tensor,
    delta: Tensor,
    targets: Tensor,
    step: float,
    epsilon: float,
    *,
    owners: Tensor | None = None,
    seen: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008  # it holds nothing
) -> Tensor:
    """One step of projected gradient descent on the cross-entropy at x + delta.

        delta <- clip( delta - step sign(d/d delta sum_i CE(f(T(x_i + delta_i)), t_i)), -epsilon, epsilon )

    and x + delta is kept in [0, 1]. Source: Madry et al., ICLR 2018, arXiv 1706.06083.

    Args:
        network: f; its weights stay as they are.
        x: float32 [B, C, H, W] in [0, 1].
        delta: float32 [B, C, H, W], or [K, C, H, W] with `owners`.
        targets: int64 [B].
        step: its length, on the scale [0, 1]; a negative one climbs.
        epsilon: L_inf bound, on the scale [0, 1].
        owners: the rows of delta that the images share, int64 [B]; None where each has its own.
        seen: T, what happens to the perturbed images on their way to the network.

    Returns:
        The new delta.
    """
    delta = delta.detach().requires_grad_()
    added = delta if owners is None else delta[owners]
    loss = F.cross_entropy(network(seen((x + added).clamp(0, 1))), targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, delta)
    moved = (delta.detach() - step * gradient.sign()).clamp(-epsilon, epsilon)
    return moved if owners is not None else (x + moved).clamp(0, 1) - x
