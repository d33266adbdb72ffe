"""Small sets and copies that tests share."""

from dataclasses import replace
from pathlib import Path

import torch

from uge.copy import Manifest, publish
from uge.data.images import ImageSet
from uge.keys import Key, SealedKey, WeightsKey, new_weights_key
from uge.keys.letter import seal
from uge.keys.shift import layout_of
from uge.networks import NetworkSpec
from uge.protect import PROTECTIONS, resolve_config
from uge.training import Recipe

from ..images import in_turn, noise

EPSILON = 8


def make_set(count: int = 12, channels: int = 3, size: tuple[int, int] = (12, 12), seed: int = 0) -> ImageSet:
    """Random images of three classes, not in the order of their folders."""
    classes = ("zebra", "cat", "T-shirt/top")
    names = tuple(f"{classes[i % 3]}/{i:05d}" for i in range(count))
    return replace(in_turn(noise(count, channels, *size, seed=seed), *classes), names=names)


def perturbed(images: torch.Tensor, epsilon: int = EPSILON, seed: int = 1) -> torch.Tensor:
    """Every pixel moved by `epsilon`, inwards where it would leave 0..255."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    moved = images.short() + signs * epsilon
    moved = torch.where((moved < 0) | (moved > 255), images.short() - signs * epsilon, moved)
    return moved.to(torch.uint8)


def published(out: Path, clean: ImageSet | None = None, **options: object) -> Manifest:
    clean = clean or make_set()
    arguments = {"method": "noise", "settings": {"strength": "much"}, "epsilon_255": EPSILON} | options
    return publish(clean, perturbed(clean.images), out, **arguments)


def sealed_by(
    key: SealedKey, images: torch.Tensor, epsilon: int = EPSILON, labels: torch.Tensor | None = None
) -> torch.Tensor:
    """Copies with random shifts under letters: a shift an image, or a class where labels are given."""
    layout, draw = layout_of(tuple(images.shape[1:]), epsilon), torch.Generator().manual_seed(3)
    each = torch.arange(len(images)) if labels is None else labels
    field, nodes = (
        torch.randint(-2, 3, (int(each.max()) + 1, *shape), dtype=torch.int8, generator=draw)[each]
        for shape in (layout.field_shape, layout.node_shape)
    )
    return seal(images, field, nodes, key.secret, epsilon)


def copied_by(method: str, clean: ImageSet, *keys: Key, seed: int = 0, **settings: object) -> ImageSet:
    """What a protection makes of these originals."""
    protection = PROTECTIONS[method](clean, list(keys), resolve_config(method, settings), seed=seed)
    protection.train()
    return clean.with_images(torch.cat(list(protection.copies())))


def published_sealed(out: Path, clean: ImageSet, key: SealedKey) -> Manifest:
    """A signed copy with letters."""
    options = {"method": "sealed", "settings": {"recipients": 1}, "epsilon_255": EPSILON, "signers": [key]}
    return publish(clean, sealed_by(key, clean.images), out, **options)


def weights_key(images: ImageSet) -> WeightsKey:
    spec = NetworkSpec("mlp", images.channels, images.image_size, images.classes, {"width": 8})
    half = (0.5,) * images.channels
    return new_weights_key(spec, images.class_names, half, half, Recipe())


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: its relative path and its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
