"""Filters as counter-measures: they change what they should, and undo what is known to fall to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uge.attack import build_countermeasure
from uge.data.images import ImageSet, normalisation_of
from uge.errors import ConfigError
from uge.networks import NetworkSpec, build_network
from uge.training import Recipe, fit

FILTERED = ("grayscale", "jpeg:10", "blur:1", "pool:4", "depth:2", "median", "low-pass", "wavelet", "high-pass",
    "sobel", "chroma", "local-contrast", "equalise", "grayscale+high-pass:0.8")  # fmt: skip


def pictures(count: int, seed: int) -> ImageSet:
    """Two classes that differ in a broad luma slope, 16x16, over smooth random colours."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    colours = torch.rand(count, 3, 2, 2, generator=rng)
    x = torch.nn.functional.interpolate(colours, size=(16, 16), mode="bilinear") * 0.5 + 0.25
    slope = torch.linspace(-0.08, 0.08, 16).view(1, 1, 1, 16) * (2 * labels - 1).view(-1, 1, 1, 1)
    images = ((x + slope) * 255).round().clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, ("left", "right"), tuple(map(str, range(count))))


def protected(clean: ImageSet, pattern: Tensor) -> ImageSet:
    """Add a class-wise pattern [2, 3, 16, 16] of at most 12 steps: easier to read than the slope."""
    return clean.with_images((clean.images.int() + pattern[clean.labels]).clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("text", FILTERED)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_changes_training_and_test_images_alike_and_keeps_the_labels(text: str, channels: int) -> None:
    images = pictures(6, 0)
    images = images.with_images(torch.roll(images.images, 3, dims=3)[:, :channels].contiguous())
    measure = build_countermeasure(text)
    x, y = measure.prepare(images)
    assert x.shape == images.images.shape and x.dtype == torch.uint8 and torch.equal(y, images.labels)
    assert torch.equal(measure.at_test(images).images, x)
    assert torch.equal(x, images.images) == (text == "grayscale" and channels == 1)


def left_of(pattern: Tensor, text: str) -> float:
    """Share of a pattern's energy that a hacker still meets after the counter-measure."""
    clean = pictures(100, 0)
    copy = protected(clean, torch.stack([pattern, -pattern]).round().int())
    measure = build_countermeasure(text)
    seen = measure.prepare(copy)[0].float() - measure.prepare(clean)[0].float()
    return float(seen.square().sum() / (copy.images.float() - clean.images.float()).square().sum())


@pytest.mark.parametrize(
    "text",
    ["grayscale", "blur:1", "pool:4", "jpeg:10", "low-pass:0.5", "wavelet:24", "high-pass", "sobel", "chroma",
        "local-contrast", "equalise"],
)  # fmt: skip
def test_it_takes_away_what_is_known_to_fall_to_it_and_not_the_rest(text: str) -> None:
    tint = torch.tensor([12.0, -0.299 / 0.587 * 12, 0]).view(3, 1, 1).expand(3, 16, 16)  # no luma
    grid = 12.0 * (1 - 2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2)).expand(3, 16, 16)
    light = torch.full((3, 16, 16), 12.0)
    stripes = 12.0 * (1 - 2 * (torch.arange(16) // 2 % 2)).expand(3, 16, 16)
    falls, stays = {
        "grayscale": (tint, grid),
        "chroma": (grid, tint),
        "high-pass": (light, grid),
        "sobel": (light, stripes),
        "local-contrast": (light, grid),
        "equalise": (light, grid),
    }.get(text, (grid, tint))
    assert left_of(falls, text) < 0.1
    assert left_of(stays, text) > 0.5
    assert left_of(falls, "none") == 1


def test_single_pixels_fall_to_the_median() -> None:
    """A pixel a class is a shortcut of its own (Wu et al. 2023, one-pixel shortcuts)."""
    dots = torch.zeros(3, 16, 16)
    dots[:, 2::5, 3::5] = 60
    assert left_of(dots, "median") < 0.1
    assert left_of(dots, "depth:4") > 0.5


def test_wavelet_shrinkage_recovers_accuracy_under_a_fine_pattern() -> None:
    """A part of it: what the network meets at test is smoother than what it can tell apart at best (91.5)."""
    signs = torch.randint(0, 2, (3, 16, 16), generator=torch.Generator().manual_seed(3)) * 2 - 1
    copy = protected(pictures(400, 0), 32 * torch.stack([signs, -signs]))

    def accuracy(text: str) -> float:
        network = build_network(
            NetworkSpec("convnet", 3, (16, 16), 2, {"width": 8}), *normalisation_of(copy.images), seed=0
        )
        recipe = Recipe(6, batch_size=50, learning_rate=0.05, augmentation="none")
        return fit(
            network, copy, recipe, seed=0, test=pictures(200, 1), countermeasure=build_countermeasure(text)
        ).accuracy

    assert accuracy("wavelet:48") >= accuracy("none") + 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpeg:0", "expected a number from 1 to 100"),
        ("grayscale:3", "has no options"),
        ("low-pass:1", "expected a number from 0.01 to 0.95"),
        ("wavelet:0", "expected a number from 1"),
        ("depth:8", "expected a number from 1 to 7"),
        ("median:even", "expected a number"),
        ("depth:x", "expected a number from 1 to 7"),
        ("sobel:2", "has no options"),
        ("high-pass:sharp", "expected a number from 0.3"),
        ("blr", "did you mean 'blur'"),
        ("blur:strength=2", "unknown option"),
    ],
)
def test_wrong_texts_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_countermeasure(text)
