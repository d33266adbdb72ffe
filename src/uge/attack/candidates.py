"""Candidates: a hacker learns to tell random smooth shifts from pictures, and finds those of a sealed copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uge.attack.informed import NO_DATA, Informed, labels_told
from uge.attack.residuals import class_means
from uge.data.images import ImageSet, to_float, to_uint8
from uge.keys.letter import channels_equal, even
from uge.keys.sealed import SealedKey
from uge.keys.shift import MOST_LEVEL, Layout, bounded, layout_of, shift_of
from uge.operations import blur
from uge.protect import PROTECTIONS

ROUNDS = 2  # of class means; more add what D takes from pictures of one kind


class Candidates(Informed):
    """A U-Net learnt from random shifts of the copy's own layout, then what a class has in common, in turns.

        m_y <- m_y + mean over class y of r_i,   r_i = x_i - m_y(i) - D(x_i - m_y(i), y),   x_hat_i = D(x_i - m_y(i), y)

    The layout of the letter, which the shape and epsilon decide, says which shifts there can be: levels are drawn at
    random, smoothed by a random width, and laid on the hacker's own images, anew at each step. What D
    takes from a class in common is added to the mean of its shifts, and D looks at the rest again: expectation and
    maximisation, where D stands for the expectation. Nothing of the protection is run. Ours.

    Options: as `Informed`.
    """

    name = "candidates"
    before = 9.0
    by_epochs = False

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        made_by = PROTECTIONS.get(given["settings"].get("method", ""))
        if made_by is None or made_by.takes != SealedKey.kind:
            return "no manifest says that the copy is sealed"
        return "" if options.get("data") else NO_DATA

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        own = self.own(images)
        gray = bool(channels_equal(images.images).all())
        layout = layout_of((1 if gray else images.channels, *images.image_size), self.settings.get("epsilon_255", 16))

        def pairs(pick: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            originals = own.images[pick]
            return to_float(shifted(originals, layout, rng)), to_float(even(originals))

        self.learn(pairs, labels_told(own, own), own.channels)
        x, told = to_float(even(images.images)), labels_told(images, own)
        means = torch.zeros(images.classes, *x.shape[1:])
        for _ in range(ROUNDS):
            seen = x - means[images.labels]
            means += class_means(seen - self.applied(seen, told), images.labels, images.classes)
        return to_uint8(self.applied(x - means[images.labels], told)), images.labels


def shifted(originals: Tensor, layout: Layout, rng: torch.Generator) -> Tensor:
    """Copies under random smooth shifts, their lowest bits zero; uint8 [B, C, H, W]."""
    field = smooth_levels((len(originals), 1, *layout.field_shape), rng)[:, 0]
    nodes = smooth_levels((len(originals), *layout.node_shape), rng)
    field, nodes = bounded(originals, field, nodes, layout)
    return (even(originals).int() + 2 * shift_of(field, nodes, layout)).to(torch.uint8)


def smooth_levels(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Levels int8 of this shape [B, C, rows, columns]: noise smoothed by up to 2 nodes, of random strength."""
    noise = torch.randn(shape, generator=rng)
    if not noise.numel():
        return noise.to(torch.int8)
    noise = blur(noise, 2 * torch.rand(len(noise), generator=rng))
    strength = 0.5 + 1.5 * torch.rand(len(noise), 1, 1, 1, generator=rng)
    levels = strength * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return levels.round().clamp(-MOST_LEVEL, MOST_LEVEL).to(torch.int8)
