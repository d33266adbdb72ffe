"""Filters do to an image what their names say, for gray and colour, at any size, and pass gradients on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uge.attack.filtered import Jpeg
from uge.data.decoding import picture_of, tensor_of
from uge.data.images import to_float, to_uint8
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
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).square()
    assert (parse_filter(name)(x) - x).abs().mean() > 0.01
    assert torch.equal(parse_filter("none")(x), x)


def test_grayscale_is_what_pillow_calls_gray() -> None:
    x = smooth_pictures()
    picture = tensor_of(picture_of(to_uint8(x[0])).convert("L"))
    gray = parse_filter("grayscale")(x)[0]
    assert torch.equal(gray[0], gray[2])
    assert (gray[:1] * 255 - picture).abs().max() < 2


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_jpeg_is_what_a_jpeg_encoder_does(quality: int) -> None:
    """Against Pillow's encoder: nearer to it than the original is, by far where the loss is great."""
    x = smooth_pictures() * 0.8 + 0.1 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    coded = to_float(Jpeg(quality).pixels(to_uint8(x)))
    assert (parse_filter(f"jpeg:{quality}")(x) - coded).square().mean() < 0.5 * (x - coded).square().mean()


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


GAUSS = (0.0545, 0.2442, 0.4026, 0.2442, 0.0545)  # sigma 1, five pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_high_pass_is_what_a_blur_takes_away_about_middle_gray(channels: int) -> None:
    x = torch.full((1, channels, 9, 12), 0.4)
    torch.testing.assert_close(parse_filter("high-pass")(x), torch.full_like(x, 0.5))
    x[..., 6:] = 0.6
    seen = parse_filter("high-pass")(x)[0, 0, 4]
    beside, next_to_it = 0.2 * (GAUSS[3] + GAUSS[4]), 0.2 * GAUSS[4]  # of the step, what reaches over it
    expected = [0.5] * 4 + [0.5 - 2 * next_to_it, 0.5 - 2 * beside, 0.5 + 2 * beside, 0.5 + 2 * next_to_it] + [0.5] * 4
    torch.testing.assert_close(seen, torch.tensor(expected), atol=1e-3, rtol=0)
    assert (parse_filter("high-pass:3")(x) - 0.5).abs().mean() > (parse_filter("high-pass")(x) - 0.5).abs().mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_sobel_is_the_slope_of_the_luma(channels: int) -> None:
    step = torch.zeros(1, channels, 6, 8)
    step[..., 4:] = 1
    expected = torch.tensor([0.0, 0, 0, 1, 1, 0, 0, 0])
    for x, along in ((step, (0, channels - 1, 3)), (step.transpose(2, 3), (0, channels - 1, slice(None), 3))):
        seen = parse_filter("sobel")(x)
        torch.testing.assert_close(seen[along].flatten(), expected, atol=1e-3, rtol=0)
    ramp = 0.05 * torch.arange(8.0).expand(1, channels, 6, 8)
    inside = parse_filter("sobel")(ramp)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 8 * 0.05 / 4))
    if channels == 3:  # a colour edge without a step of the luma is none
        tint = torch.tensor([0.2, -0.2 * 0.299 / 0.587, 0]).view(1, 3, 1, 1) * step
        assert parse_filter("sobel")(0.4 + tint).max() < 1e-3


def test_chroma_has_the_same_luma_everywhere_and_the_colours_as_they_were() -> None:
    x = 0.4 + 0.2 * smooth_pictures()
    seen = parse_filter("chroma")(x)
    light, before = parse_filter("grayscale")(seen)[:, 0], parse_filter("grayscale")(x)[:, 0]
    torch.testing.assert_close(light, before.mean((1, 2), keepdim=True).expand_as(light))
    torch.testing.assert_close(seen[:, 0] - seen[:, 2], x[:, 0] - x[:, 2])
    gray = smooth_pictures(channels=1)
    torch.testing.assert_close(parse_filter("chroma")(gray), gray.mean((2, 3), keepdim=True).expand_as(gray))


@pytest.mark.parametrize("channels", [1, 3])
def test_local_contrast_forgets_light_and_contrast(channels: int) -> None:
    flat = torch.full((1, channels, 9, 9), 0.7)
    torch.testing.assert_close(parse_filter("local-contrast")(flat), torch.full_like(flat, 0.5))
    stripes = 0.5 + 0.2 * (1 - 2.0 * (torch.arange(16) % 2)).expand(1, channels, 16, 16)  # far finer than the window
    seen = parse_filter("local-contrast")(stripes)[..., 8, 8:10]
    expected = torch.tensor([0.5 + 0.2 / (4 * 0.2 + 0.08), 0.5 - 0.2 / (4 * 0.2 + 0.08)])
    torch.testing.assert_close(seen, expected.expand_as(seen), atol=5e-3, rtol=0)
    x = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (parse_filter("local-contrast")(each) for each in (x, 0.3 + 0.5 * x))
    assert (one - other).abs().mean() < 0.1 * (one - 0.5).abs().mean()


def test_equalise_gives_every_value_its_rank() -> None:
    x = torch.tensor([0.1, 0.2, 0.2, 0.9]).view(1, 1, 2, 2)
    torch.testing.assert_close(parse_filter("equalise")(x).flatten(), torch.tensor([0, 2 / 3, 2 / 3, 1]))
    rough = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    darker = parse_filter("equalise")(0.5 * rough)
    torch.testing.assert_close(darker, parse_filter("equalise")(rough), atol=0.05, rtol=0)


def test_depth_leaves_that_many_levels() -> None:
    x = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    assert len(parse_filter("depth:3")(x).unique()) == 8


def test_normalised_channels_are_all_of_one_mean_and_contrast() -> None:
    tint = torch.tensor([0.5, 0.8, 0.3]).view(3, 1, 1)
    x = smooth_pictures() * tint / 2 + tint / 4
    seen = parse_filter("normalise")(x)
    assert torch.allclose(seen.mean((2, 3)), torch.full((4, 3), 0.5), atol=0.02)
    assert torch.allclose(seen.std((2, 3)), torch.full((4, 3), 0.25), atol=0.02)


def test_lab_is_light_and_two_colours_that_gray_has_not() -> None:
    gray = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    light, *colours = parse_filter("lab")(gray)[0]
    assert light[0, 0] < 0.01 and light[0, -1] > 0.99 and (light.diff(dim=1) > 0).all()
    for colour in colours:
        assert torch.allclose(colour, torch.full_like(colour, 128 / 255), atol=0.01)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.allclose(
        parse_filter("lab")(red)[0, :, 0, 0], torch.tensor([0.532, (80.1 + 128) / 255, (67.2 + 128) / 255]), atol=0.01
    )
