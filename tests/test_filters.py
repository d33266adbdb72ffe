"""Filters do to an image what their names say, for gray and colour, at any size, and pass gradients on."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from uge.errors import ConfigError
from uge.filters import FILTERS, parse_filter


def smooth_pictures(channels: int = 3, side: int = 32) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, channels, 6, 6, generator=rng)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (1, 3, 19, 33)])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_keeps_the_shape_and_passes_a_finite_gradient(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    seen = parse_filter(name)(x)
    assert seen.shape == shape and seen.dtype == torch.float32
    assert seen.detach().min() >= -0.01 and seen.detach().max() <= 1.01
    seen.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_filters_follow_each_other_in_their_order() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    depth, blur = parse_filter("depth:2"), parse_filter("blur:1")
    assert torch.equal(parse_filter("depth:2+blur:1")(x), blur(depth(x)))
    assert not torch.equal(parse_filter("depth:2+blur:1")(x), depth(blur(x)))
    with pytest.raises(ConfigError, match="unknown filter 'grey'"):
        parse_filter("blur:1+grey")


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "none"])
def test_no_filter_does_nothing(name: str) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (parse_filter(name)(x) - x).abs().mean() > 0.01
    assert torch.equal(parse_filter("none")(x), x)


def test_grayscale_is_what_pillow_calls_gray() -> None:
    x = smooth_pictures()
    picture = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    gray = parse_filter("grayscale")(x)[0]
    assert torch.equal(gray[0], gray[2])
    assert np.abs(gray[0].numpy() * 255 - np.array(picture.convert("L"), dtype=float)).max() < 2


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_jpeg_is_what_a_jpeg_encoder_does(quality: int) -> None:
    """Against Pillow's encoder: nearer to it than the original is, by far where the loss is great."""
    x = smooth_pictures() * 0.8 + 0.1 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours, gap, lost = parse_filter(f"jpeg:{quality}")(x), [], []
    for image, seen in zip(x, ours, strict=True):
        buffer = io.BytesIO()
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        coded = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
        gap.append(float((seen - coded).pow(2).mean()))
        lost.append(float((image - coded).pow(2).mean()))
    assert sum(gap) < 0.5 * sum(lost)


def test_blur_and_pool_keep_the_mean_and_lose_the_detail() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("blur:1.5", "pool:4"):
        seen = parse_filter(name)(x)
        assert float(seen.mean()) == pytest.approx(float(x.mean()), abs=0.01)
        assert seen.std() < 0.5 * x.std()


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 3, 13, 18)])
def test_low_pass_keeps_low_cosines_and_drops_high_ones(shape: tuple[int, ...]) -> None:
    for axis, side in ((2, shape[2]), (3, shape[3])):
        place = (torch.arange(side) + 0.5) / side
        for frequency in range(1, side):
            wave = 0.5 + 0.3 * torch.cos(torch.pi * frequency * place)
            x = wave.view(-1, 1).expand(shape) if axis == 2 else wave.expand(shape)
            kept = frequency < round(0.5 * side)
            torch.testing.assert_close(parse_filter("low-pass:0.5")(x), x if kept else torch.full(shape, 0.5))


def test_median_is_that_of_every_square() -> None:
    x = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    seen = parse_filter("median:3")(x)
    for row in range(1, 5):
        for column in range(1, 6):
            square = x[0, 1, row - 1 : row + 2, column - 1 : column + 2]
            assert seen[0, 1, row, column] == square.flatten().sort().values[4]


def test_wavelet_shrinks_noise_and_leaves_an_edge_and_what_is_flat() -> None:
    clean = torch.full((1, 1, 32, 32), 0.2)
    clean[..., 16:] = 0.8
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    seen = parse_filter("wavelet:24")(noisy)
    assert (seen - clean).square().mean() < 0.3 * (noisy - clean).square().mean()
    assert seen[0, 0, :, 16].mean() - seen[0, 0, :, 15].mean() > 0.4
    flat = torch.full((1, 1, 9, 11), 0.3)
    torch.testing.assert_close(parse_filter("wavelet")(flat), flat)


def test_depth_leaves_that_many_levels() -> None:
    x = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    assert len(parse_filter("depth:3")(x).unique()) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grayscal", "did you mean 'grayscale'"),
        ("jpeg:0", "expected a number from 1 to 100"),
        ("jpeg:high", "expected a number"),
        ("grayscale:2", "it takes no number"),
    ],
)
def test_a_wrong_text_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_filter(text)
