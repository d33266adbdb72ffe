"""Tells what was made of published images from images that were never published.

Published pictures as they are, or nearly, `uge.service.thumbnails` knows. For the rest there is a classifier of two
classes, trained by the one loop. It is shown what somebody may make of copies, and of half restored ones, against
originals as they are:

    t(x + a (x_u - x)),  a in [0, 1], t of `uge.service.disguises`     "published"
    x, half of them mirrored                                           "other"

So it lets pass what looks like an image of its kind that nobody has touched, and refuses the rest. Originals that are
held out say from which score on: a stated share of them is refused, and so about as many images that are as clean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of, to_float, to_uint8
from uge.keys.letter import even
from uge.networks import NetworkSpec, build_network, parse_network
from uge.operations import sometimes
from uge.runtime import generator_for, seed_for
from uge.service.disguises import disguised
from uge.service.thumbnails import Thumbnails
from uge.training import PlainTraining, Recipe, fit, logits_of

NETWORK = "vgg:depth=8,width=16"
STEPS, BATCH_SIZE = 3000, 64
HELD_OUT = 6  # one in so many originals sets the threshold
FALSE_ALARMS = 0.002  # share of clean images that are refused
RESTORED = 0.2  # share of the copies that are half restored
OTHER, PUBLISHED = 0, 1
OnPart = Callable[[int, int], None]


class ToldApart(PlainTraining):
    """Each batch is made of pairs: what may become of a copy, and an original as the recipient sees it.

    Both are uint8 [N, C, H, W].
    """

    def __init__(self, copies: Tensor, originals: Tensor) -> None:
        self.pairs = torch.cat([even(copies), originals], dim=1)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        return self.pairs, torch.zeros(len(self.pairs), dtype=torch.int64)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        copies, originals = x.chunk(2, dim=1)
        left = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
        restored = sometimes(RESTORED, copies, originals + left * (copies - originals), generator)
        others = sometimes(0.2, restored.roll(1, dims=0), originals.roll(2, dims=0), generator)
        sent = disguised(restored, others, generator)
        clean = sometimes(0.5, originals, originals.flip(3), generator)
        shown = to_float(even(to_uint8(torch.cat([sent, clean]))))
        return shown, torch.cat([torch.full_like(y, PUBLISHED), torch.full_like(y, OTHER)])


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained one.

    Attributes:
        network: maps float32 [B, C, H, W] in [0, 1] to two logits.
        threshold: of the score.
        thumbnails: of the published images.
    """

    network: nn.Module
    threshold: float
    thumbnails: Thumbnails

    def score(self, images: Tensor) -> Tensor:
        """How much more likely published than not, as a difference of logits, float32 [N], of uint8 images."""
        logits = logits_of(self.network, even(images))
        return logits[:, PUBLISHED] - logits[:, OTHER]

    def recognises(self, images: Tensor) -> Tensor:
        """Which of these uint8 images [N, C, H, W] come from published ones, bool [N]."""
        return self.thumbnails.recognise(images) | (self.score(images) > self.threshold)


def train_detector(
    copies: ImageSet,
    originals: ImageSet,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    steps: int = 0,
    on_part: OnPart = lambda done, of: None,
) -> Detector:
    """Learn to tell copies, as they were published, from originals as the recipient sees them, in the same order.

    It takes about so many steps, 0 standing for `STEPS`. `on_part` is called after each part of the training with how
    many are done, and of how many.
    """
    order = torch.randperm(len(copies), generator=generator_for(seed, "detector", "held out"))
    held_out, learnt = order[: -(-len(order) // HELD_OUT)], order[-(-len(order) // HELD_OUT) :]
    learnt = learnt if len(learnt) else held_out
    spec = spec_of_detector(originals.channels, originals.image_size)
    network = build_network(spec, *normalisation_of(originals.images), seed=seed_for(seed, "detector"))
    batch = min(BATCH_SIZE, len(learnt))
    recipe = Recipe(math.ceil((steps or STEPS) / (len(learnt) // batch)), batch, augmentation="none")
    telling = ToldApart(copies.images[learnt], originals.images[learnt])
    fit(
        network,
        copies,
        recipe,
        seed=seed,
        countermeasure=telling,
        device=device,
        on_epoch=lambda epoch, loss, accuracy: on_part(epoch, recipe.epochs),
    )
    thumbnails = Thumbnails.of(copies.images, originals.images, generator_for(seed, "detector", "thumbnails"))
    detector = Detector(network, math.inf, thumbnails)
    threshold = detector.score(originals.images[held_out]).quantile(1 - FALSE_ALARMS)
    return replace(detector, threshold=float(threshold))


def spec_of_detector(channels: int, image_size: tuple[int, int]) -> NetworkSpec:
    """Its network for images of this kind."""
    name, options = parse_network(NETWORK)
    return NetworkSpec(name, channels, image_size, 2, options)
