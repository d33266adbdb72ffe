"""Small sets and published folders for the tests of this room."""

from functools import partial
from pathlib import Path

import torch

from uge.data.images import ImageSet
from uge.keys import Key, NullSpace, Reversible, new_key
from uge.keys.keyed_view import with_headroom
from uge.networks import NetworkSpec
from uge.publish import Manifest, publish
from uge.training import Recipe

EPSILON = 8


def make_set(count: int = 12, channels: int = 3, size: tuple[int, int] = (8, 8), seed: int = 0) -> ImageSet:
    """Random images of three classes, not in the order of their folders."""
    pixels = torch.randint(
        0, 256, (count, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    labels = torch.arange(count) % 3
    classes = ("zebra", "cat", "T-shirt/top")
    return ImageSet(pixels, labels, classes, tuple(f"{classes[i % 3]}/{i:05d}" for i in range(count)))


def perturbed(images: torch.Tensor, epsilon: int = EPSILON, seed: int = 1) -> torch.Tensor:
    """Every pixel moved by `epsilon`, inwards where it would leave 0..255."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    moved = images.short() + signs * epsilon
    moved = torch.where((moved < 0) | (moved > 255), images.short() - signs * epsilon, moved)
    return moved.to(torch.uint8)


def published(out: Path, clean: ImageSet | None = None, **options: object) -> Manifest:
    clean = clean or make_set()
    arguments = {"method": "uge", "settings": {"preset": "quick"}, "epsilon_255": EPSILON} | options
    return publish(clean, perturbed(clean.images), out, **arguments)


def key_for(images: ImageSet, kind: str | None = None) -> Key:
    spec = NetworkSpec("mlp", images.channels, images.image_size, images.classes, {"width": 8})
    half = (0.5,) * images.channels
    views = {"null-space": partial(NullSpace.draw, group_size=4, cell=4), "reversible": Reversible.draw}
    return new_key(spec, images.class_names, half, half, Recipe(), view=views[kind]() if kind else None)


def in_null_space(images: torch.Tensor, space: NullSpace, nonces: list[bytes], epsilon: int = EPSILON) -> torch.Tensor:
    """A copy whose view is that of `images`: one step along the signs of every group that has room for it."""
    groups = space.groups(nonces, images.shape[1:])
    assert not groups.tied and groups.sign.shape[1] == images[0].numel()
    moves = epsilon * groups.sign.view(images.shape)
    moved = images.int() + moves
    outside = ((moved < 0) | (moved > 255)).flatten(1).int()
    blocked = torch.zeros_like(outside).scatter_add(1, groups.group, outside).gather(1, groups.group)
    return torch.where(blocked.view(images.shape) > 0, images.int(), moved).to(torch.uint8)


def published_behind(out: Path, clean: ImageSet, key: Key, *, headroom: bool = False) -> Manifest:
    """A signed copy that differs from its originals, but not in the key's view."""
    reference = with_headroom(clean.images, EPSILON) if headroom else clean.images
    nonces = key.view.nonces(reference)
    if isinstance(key.view, NullSpace):
        copy = in_null_space(reference, key.view, nonces)
    else:
        wanted = EPSILON * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
        copy = key.view.publish(reference, wanted, nonces)
    return publish(
        clean,
        copy,
        out,
        method=key.view.kind,
        settings={"headroom": headroom},
        epsilon_255=EPSILON,
        nonces=nonces,
        signers=[key],
    )
