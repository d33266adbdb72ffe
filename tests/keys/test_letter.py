"""Letters: a copy gives its original back but for the lowest bit, or says that it does not open."""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from PIL import Image
from torch import Tensor

from uge.errors import ConfigError
from uge.keys import letter
from uge.keys.letter import channels_equal, even, open_letters, seal
from uge.keys.shift import Layout, bounded, layout_of, shift_of

from ..refusals import refused
from . import letter_oracle as oracle

VECTORS = Path(__file__).with_name("letter_vectors.json")
SECRET = bytes(range(32))
Shape = tuple[int, int, int]
SHAPES = [(3, 32, 32), (3, 64, 64), (3, 75, 50), (3, 11, 11), (3, 13, 31)]
SHAPES += [(1, 28, 28), (1, 18, 19), (1, 37, 90), (4, 21, 9)]
KINDS = ("black", "white", "saturated", "even", "noise", "ramp", "photograph")
SHIFTS = ("up", "down", "noise", "mostly zero", "checked")
PHOTOGRAPH = torch.from_numpy(
    np.array(Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"))
).movedim(2, 0)


def pictures(kind: str, shape: Shape, count: int, generator: torch.Generator) -> Tensor:
    size = (count, *shape)
    if kind == "photograph":
        channels = PHOTOGRAPH[[c % 3 for c in range(shape[0])]]
        corners = torch.randint(0, 400, (count, 2), generator=generator).tolist()
        return torch.stack([channels[:, i : i + shape[1], j : j + shape[2]] for i, j in corners])
    if kind == "ramp":
        ramp = torch.linspace(0, 255, shape[1])[:, None] * torch.linspace(0, 1, shape[2])
        return ramp.to(torch.uint8).expand(size).clone()
    if kind in ("black", "white", "even"):
        return torch.full(size, {"black": 0, "white": 255, "even": 128}[kind], dtype=torch.uint8)
    noise = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return noise if kind == "noise" else (noise > 127).to(torch.uint8) * 255


def levels(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if kind in ("up", "down"):
        return torch.full(shape, 2 if kind == "up" else -2, dtype=torch.int8)
    if kind == "checked":
        return (torch.arange(int(np.prod(shape))).view(shape) % 2 * 4 - 2).to(torch.int8)
    noise = torch.randint(-2, 3, shape, dtype=torch.int8, generator=generator)
    return noise if kind == "noise" else noise * (torch.rand(shape, generator=generator) < 0.1).to(torch.int8)


def shifts(kind: str, layout: Layout, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return levels(kind, (count, *layout.field_shape), generator), levels(kind, (count, *layout.node_shape), generator)


def layout_for(images: Tensor, epsilon: int) -> Layout:
    channels = 1 if bool(channels_equal(images).any()) else images.shape[1]
    return layout_of((channels, *images.shape[2:]), epsilon)


def sealed(images: Tensor, epsilon: int = 16, secret: bytes = SECRET, shift: str = "noise", seed: int = 0) -> Tensor:
    field, nodes = shifts(shift, layout_for(images, epsilon), len(images), torch.Generator().manual_seed(seed))
    return seal(images, field, nodes, secret, epsilon)


def colourful(images: Tensor) -> Tensor:
    """The same, but for one value that keeps the channels from being equal."""
    images = images.clone()
    if images.shape[1] > 1:
        images[:, 0, 0, 0] ^= (images[:, 0, 0, 0] == images[:, 1, 0, 0]).to(torch.uint8)
    return images


def drawn(kind: str, shape: Shape, count: int, gray: bool, generator: torch.Generator) -> Tensor:
    """Pictures in colour, or in gray where that is asked for and one channel has room for a letter."""
    images = pictures(kind, shape, count, generator)
    if gray and shape[1] * shape[2] >= 18 * 18:
        return images[:, :1].expand(-1, shape[0], -1, -1).contiguous()
    return colourful(images)


def cases(shapes: list[Shape], gray_side: int, colour_side: int) -> Any:
    """These shapes and all others up to sides of so many pixels, with any pictures, shifts and bounds."""
    gray, colour = (st.integers(least, most) for least, most in ((18, gray_side), (11, colour_side)))
    return given(
        st.one_of(st.sampled_from(shapes), st.tuples(st.just(1), gray, gray), st.tuples(st.just(3), colour, colour)),
        st.sampled_from(KINDS),
        st.sampled_from(SHIFTS),
        st.one_of(st.sampled_from([3, 4, 5, 8, 16, 24, 255]), st.integers(3, 64)),
        st.booleans(),
        st.integers(0, 2**31),
    )


@settings(deadline=None, max_examples=300)
@cases(SHAPES, 40, 40)
def test_a_copy_opens_to_its_original_but_for_the_lowest_bit(
    shape: Shape, kind: str, shift: str, epsilon: int, gray: bool, seed: int
) -> None:
    images = drawn(kind, shape, 3, gray, torch.Generator().manual_seed(seed))
    copies = sealed(images, epsilon, shift=shift, seed=seed)
    views, opened = open_letters(copies, SECRET)
    assert copies.dtype == views.dtype == torch.uint8 and bool(opened.all())
    assert torch.equal(views.int(), torch.div(images.int(), 2, rounding_mode="floor") * 2)
    assert torch.equal(views, even(images))
    assert int((copies.int() - images.int()).abs().max()) <= epsilon
    if channels_equal(images).all():
        assert torch.equal(copies, copies[:, :1].expand_as(copies))


@settings(deadline=None, max_examples=200)
@cases(SHAPES, 40, 40)
def test_bounded_levels_fit_and_are_drawn_no_further_than_they_must(
    shape: Shape, kind: str, shift: str, epsilon: int, gray: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = drawn(kind, shape, 2, gray, generator)
    layout = layout_for(images, epsilon)
    wanted = shifts(shift, layout, 2, generator)
    got = bounded(images, *wanted, layout)
    moved = (images >> 1) + shift_of(*got, layout)
    assert int(moved.min()) >= 0 and int(moved.max()) <= 127
    for before, after in zip(wanted, got, strict=True):
        assert bool((after.abs() <= before.abs()).all()) and bool((after * before >= 0).all())
    assert all(map(torch.equal, bounded(images, *got, layout), got))
    room = pictures("even", shape, 2, generator)  # 64 half steps either way
    if layout.reach < 64:
        assert all(map(torch.equal, bounded(room, *wanted, layout), wanted))


def test_black_can_only_be_lit_and_white_only_darkened() -> None:
    generator = torch.Generator().manual_seed(0)
    layout = layout_of((3, 32, 32), 16)
    field, nodes = shifts("noise", layout, 4, generator)
    for kind, sign in (("black", 1), ("white", -1)):
        got = bounded(pictures(kind, (3, 32, 32), 4, generator), field, nodes, layout)
        assert torch.equal(got[1], (sign * nodes).clamp(min=0) * sign)
        assert int((sign * shift_of(*got, layout)).min()) == 0  # where nodes have made room the field may take it back


def test_each_pixel_is_bounded_by_its_own_room() -> None:
    """Beside a bright half the dark half keeps all of its upward shift, and the other way round."""
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[..., 16:] = 255
    layout = layout_of((3, 32, 32), 16)
    field = torch.full((1, 32, 32), 2, dtype=torch.int8)
    kept = bounded(images, field, torch.zeros(1, 3, 8, 8, dtype=torch.int8), layout)[0]
    assert bool((kept[..., :16] == 2).all()) and not kept[..., 16:].any()


@pytest.mark.parametrize(
    ("shape", "epsilon", "expected"),
    [
        *(((3, 32, 32), epsilon, (1, 4)) for epsilon in (8, 16, 24)),
        *(((3, 32, 32), 4, (1, 0)), ((3, 11, 11), 16, (3, 4)), ((3, 480, 640), 16, (1, 4))),
        *(((1, 28, 28), 16, (2, 0)), ((1, 18, 18), 16, (3, 0)), ((1, 480, 640), 16, (2, 0))),
    ],
)
def test_layouts(shape: Shape, epsilon: int, expected: tuple[int, int]) -> None:
    layout = layout_of(shape, epsilon)
    assert (layout.field_step, layout.node_step, layout.reach) == (*expected, (epsilon - 1) // 2)


@pytest.mark.parametrize(
    ("shape", "epsilon", "words"),
    [
        ((3, 32, 32), 2, "outside 3..255"),
        ((3, 32, 32), 256, "outside 3..255"),
        ((1, 17, 17), 16, "17x17 pixels and one channel .* have too few bits .*--image-size 18"),
        ((3, 8, 8), 16, "8x8 pixels and 3 channels have too few bits .*--image-size 11"),
        ((1, 1, 1), 3, "--image-size 18"),
    ],
)
def test_what_no_letter_fits_is_refused_at_once(shape: Shape, epsilon: int, words: str) -> None:
    with refused(ConfigError, words):
        layout_of(shape, epsilon)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([1, 3]), st.integers(1, 24), st.integers(1, 24), st.integers(3, 255))
def test_layouts_agree_with_the_slow_ones(channels: int, height: int, width: int, epsilon: int) -> None:
    shape = (channels, height, width)
    try:
        expected = oracle.layout(shape, epsilon)
    except ValueError:
        with pytest.raises(ConfigError):
            layout_of(shape, epsilon)
    else:
        layout = layout_of(shape, epsilon)
        assert expected == {"step": layout.field_step, "node_step": layout.node_step, "reach": layout.reach}


@settings(deadline=None, max_examples=40)
@cases([(3, 32, 32)], 30, 20)
def test_copies_and_views_agree_with_the_slow_ones(
    shape: Shape, kind: str, shift: str, epsilon: int, gray: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = drawn(kind, shape, 1, gray, generator)
    field, nodes = shifts(shift, layout_for(images, epsilon), 1, generator)
    noise = torch.randint(0, 256, (1, 13), dtype=torch.uint8, generator=generator).numpy()
    copies = letter._seal(images, field, nodes, SECRET, epsilon, noise)
    slow = oracle.seal(images[0].tolist(), field[0].tolist(), nodes[0].tolist(), SECRET, epsilon, noise.tobytes())
    assert copies[0].tolist() == slow
    assert oracle.view(seal(images, field, nodes, SECRET, epsilon)[0].tolist(), SECRET) == even(images)[0].tolist()


def vector_images(vector: dict) -> tuple[Tensor, Tensor, Tensor]:
    """The image, field and nodes of a vector, as its file says."""
    channels, height, width = vector["shape"]
    own = 1 if vector["gray"] else channels
    place = torch.arange(own * height * width)
    image = ((place * vector["factor"] + place // 97) % 256).to(torch.uint8).view(1, own, height, width)
    layout = layout_of((own, height, width), vector["epsilon_255"])
    count = layout.digits
    told = (torch.arange(count) * 7 % 5 - 2).to(torch.int8)
    fields = layout.field_shape[0] * layout.field_shape[1]
    field, nodes = told[:fields].view(1, *layout.field_shape), told[fields:].view(1, *layout.node_shape)
    return image.expand(1, channels, height, width).contiguous(), field, nodes


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["vectors"], ids=lambda vector: vector["name"])
def test_bytes_are_fixed_for_the_years_to_come(vector: dict) -> None:
    images, field, nodes = vector_images(vector)
    secret, noise = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["nonce"] + vector["left_over"])
    copies = letter._seal(images, field, nodes, secret, vector["epsilon_255"], np.frombuffer(noise, np.uint8)[None])
    assert hashlib.sha256(copies.numpy().tobytes()).hexdigest() == vector["copy_sha256"]
    views, opened = open_letters(copies, secret)
    assert bool(opened.all()) and torch.equal(views, even(images))
    if images.numel() < 500:
        slow = oracle.seal(
            images[0].tolist(), field[0].tolist(), nodes[0].tolist(), secret, vector["epsilon_255"], noise
        )
        assert slow == copies[0].tolist()


def test_the_random_numbers_of_a_letter_cannot_be_chosen_from_outside() -> None:
    images = pictures("noise", (3, 32, 32), 1, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first = sealed(images)
    torch.manual_seed(0)
    assert not torch.equal(first & 1, sealed(images) & 1)


def planes(copies: Tensor) -> np.ndarray:
    """The lowest bits of each copy as 8-bit words, uint8 [N, words]."""
    return np.packbits((copies & 1).flatten(1).numpy(), axis=1)


def test_two_seals_of_one_image_share_their_nonce_never() -> None:
    images = pictures("photograph", (3, 32, 32), 1, torch.Generator().manual_seed(0)).expand(1000, -1, -1, -1)
    copies = sealed(images.contiguous(), shift="up")
    assert len({word[:12].tobytes() for word in planes(copies)}) == 1000
    assert len({word[12:].tobytes() for word in planes(copies)}) == 1000
    assert torch.equal(copies >> 1, (copies >> 1)[:1].expand_as(copies))  # the rest of the copy is the same


@pytest.mark.parametrize("kind", ["black", "photograph"])
def test_the_lowest_bit_plane_passes_a_chi_square_test_of_bytes(kind: str) -> None:
    images = colourful(pictures(kind, (3, 32, 32), 1000, torch.Generator().manual_seed(0)))
    words = planes(sealed(images, shift="up"))
    counts = np.bincount(words.ravel(), minlength=256)
    expected = words.size / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())  # 255 degrees of freedom: 255 +- 22.6
    assert 255 - 5 * 22.6 < chi_square < 255 + 5.5 * 22.6
    ones = np.unpackbits(words, axis=1).mean(0)  # at each value, over the copies: no place where the letter shows
    assert abs(ones - 0.5).max() < 6 * 0.5 / 1000**0.5


@pytest.mark.parametrize("shape", [(3, 11, 11), (1, 18, 19), (3, 18, 19)], ids=["colour", "one channel", "gray"])
def test_a_copy_of_which_any_bit_is_changed_does_not_open(shape: Shape) -> None:
    """Every bit of every value, the letter's, the left-over ones and the others, each alone."""
    images = pictures("photograph", shape, 1, torch.Generator().manual_seed(1))
    if shape == (3, 18, 19):
        images = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    copy = sealed(images)
    values = copy.numel()
    edits = (torch.eye(values, dtype=torch.uint8)[:, None] << torch.arange(8, dtype=torch.uint8)[:, None]).view(
        8 * values, *shape
    )
    views, opened = open_letters(copy ^ edits, SECRET)
    assert not opened.any() and not views.any()
    if shape == (3, 18, 19):  # and all channels of a pixel alike, so that the copy stays gray
        views, opened = open_letters(copy ^ edits[: 8 * values // 3, :1].expand(-1, 3, -1, -1), SECRET)
        assert not opened.any() and not views.any()
    assert bool(open_letters(copy, SECRET)[1].all())


def test_what_happens_to_pictures_on_their_way_closes_them() -> None:
    images = pictures("photograph", (3, 32, 32), 4, torch.Generator().manual_seed(0))
    copies = sealed(images)

    def jpeg(quality: int) -> Tensor:
        result = []
        for copy in copies:
            file = io.BytesIO()
            Image.fromarray(copy.movedim(0, 2).numpy()).save(file, "JPEG", quality=quality, subsampling=0)
            result.append(torch.from_numpy(np.array(Image.open(file))).movedim(2, 0))
        return torch.stack(result)

    edited = {
        "JPEG": jpeg(95),
        "the best JPEG": jpeg(100),
        "cropped": copies[..., 1:, :],
        "cropped and filled": torch.nn.functional.pad(copies[..., 1:, :], (0, 0, 0, 1)),
        "turned": copies.transpose(2, 3).contiguous(),
        "mirrored": copies.flip(3),
        "of another shape": copies.view(4, 3, 16, 64),
        "channels swapped": copies.flip(1),
        "one channel of them": copies[:, :1],
        "no lowest bits": copies & 0xFE,
        "letters of each other": (copies & 0xFE) | (copies.roll(1, 0) & 1),
        "brighter": copies.clamp(max=253) + 2,
        "never sealed": images,
    }
    for name, each in edited.items():
        views, opened = open_letters(each, SECRET)
        assert not opened.any() and not views.any(), name
    views, opened = open_letters(torch.cat([edited["JPEG"], copies[:2], images]), SECRET)
    assert opened.tolist() == [False] * 4 + [True] * 2 + [False] * 4  # each image for itself
    assert torch.equal(views[4:6], even(images[:2])) and not views[:4].any() and not views[6:].any()


def test_height_and_width_are_not_to_be_swapped() -> None:
    images = pictures("photograph", (3, 24, 48), 2, torch.Generator().manual_seed(0))
    copies = sealed(images)
    assert bool(open_letters(copies, SECRET)[1].all())
    for shape in ((3, 48, 24), (3, 12, 96), (1, 72, 48), (1, 24, 144)):  # the same bytes in the same order
        assert not open_letters(copies.view(2, *shape), SECRET)[1].any()


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20), st.integers(0, 4), st.integers(0, 2**31))
def test_any_other_images_do_not_open(channels: int, height: int, width: int, count: int, seed: int) -> None:
    images = pictures("noise", (channels, height, width), count, torch.Generator().manual_seed(seed))
    views, opened = open_letters(images, SECRET)
    assert views.shape == images.shape and opened.shape == (count,) and not opened.any() and not views.any()


def test_gray_images_open_in_one_channel_and_in_three() -> None:
    """Programs save gray pictures either way; both hold the same letter."""
    images = pictures("photograph", (1, 28, 28), 3, torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1).contiguous()
    copies = sealed(images)
    for channels in (1, 3, 4):
        views, opened = open_letters(copies[:, :1].expand(-1, channels, -1, -1).contiguous(), SECRET)
        assert bool(opened.all()) and torch.equal(views, even(images[:, :1]).expand(-1, channels, -1, -1))
    for channel in range(3):  # of a gray copy edited in one channel, the others are no excuse
        edited = copies.clone()
        edited[:, channel, 5, 5] ^= 2
        assert not open_letters(edited, SECRET)[1].any()


def test_gray_and_colour_copies_of_several_bounds_open_side_by_side() -> None:
    generator = torch.Generator().manual_seed(0)
    gray = pictures("photograph", (1, 32, 32), 2, generator).expand(-1, 3, -1, -1).contiguous()
    colour = colourful(pictures("photograph", (3, 32, 32), 2, generator))
    copies = torch.cat([sealed(images, epsilon) for epsilon in (8, 24) for images in (gray, colour)])
    order = torch.randperm(8, generator=generator)
    views, opened = open_letters(copies[order], SECRET)
    assert bool(opened.all()) and torch.equal(views, even(torch.cat([gray, colour] * 2))[order])


def test_gray_and_colour_images_are_not_sealed_in_one_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([pictures("even", (3, 32, 32), 1, generator), pictures("noise", (3, 32, 32), 1, generator)])
    field, nodes = shifts("noise", layout_of((3, 32, 32), 16), 2, generator)
    with pytest.raises(AssertionError, match="a batch of their own"):
        seal(images, field, nodes, SECRET, 16)


@pytest.mark.parametrize("size", [0, 1, 2, 700])
def test_batches_of_any_size_seal_and_open_alike(size: int) -> None:
    images = pictures("noise", (3, 32, 32), size, torch.Generator().manual_seed(0))
    copies = sealed(images)
    views, opened = open_letters(copies, SECRET)
    assert bool(opened.all()) and torch.equal(views, even(images))
    for copy, view in zip(copies[:50], views, strict=False):
        assert torch.equal(open_letters(copy[None], SECRET)[0][0], view)


def forged(layout: Layout, epsilon: int, change: object) -> Tensor:
    """A letter by somebody who has the key and does not keep to the form: its tag holds, its words make no sense."""
    carrier = np.full((1, *layout.shape), 64, dtype=np.uint8)
    plain = letter._packed(epsilon, np.full((1, layout.digits), 2, dtype=np.int8), layout)
    carrier, plain = change(carrier, plain)
    cipher = letter.AESGCM(letter.derive(SECRET, letter.PURPOSE))
    bits = letter._letters(carrier, plain, cipher, np.zeros((1, 13), dtype=np.uint8))
    return torch.from_numpy(carrier << 1 | bits)


def bits_set(plain: np.ndarray, begin: int, end: int) -> np.ndarray:
    bits = np.unpackbits(plain, axis=1)
    bits[:, begin:end] = 1
    return np.packbits(bits, axis=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda carrier, plain: (carrier, bits_set(plain, 8, 8 + 63)),  # a word above 5^27 - 1
        lambda carrier, plain: (carrier, bits_set(plain, 8 + 45 * 63, 8 + 45 * 63 + 3)),  # a last digit of 7
        lambda carrier, plain: (carrier, bits_set(plain, 2847, 2848)),  # fill that is not zero
        lambda carrier, plain: (carrier, np.concatenate([plain[:, :1] * 0, plain[:, 1:]], axis=1)),  # epsilon 0
        lambda carrier, plain: (carrier * 0, plain),  # 0 - 7 is below black
        lambda carrier, plain: (carrier * 0 + 127, bits_set(plain * 0, 3, 4)),  # 127 + 7 is above white
    ],
    ids=["word", "last digit", "fill", "epsilon", "below", "above"],
)
def test_a_letter_that_makes_no_sense_does_not_open_though_its_tag_holds(change: object) -> None:
    layout = layout_of((3, 32, 32), 16)
    sound = forged(layout, 16, lambda carrier, plain: (carrier, plain))
    assert open_letters(sound, SECRET)[1].tolist() == [True]
    views, opened = open_letters(forged(layout, 16, change), SECRET)
    assert not opened.any() and not views.any()


@pytest.mark.usefixtures("one_thread")
def test_letters_take_a_core_a_third_of_a_millisecond() -> None:
    """At least 3,000 images of 32x32 a second, sealed and opened, of this process's time on one thread."""
    images = pictures("photograph", (3, 32, 32), 1000, torch.Generator().manual_seed(0))
    field, nodes = shifts("noise", layout_of((3, 32, 32), 16), 1000, torch.Generator().manual_seed(0))
    sealing, opening = [], []
    for _ in range(3):
        start = time.process_time()
        copies = seal(images, field, nodes, SECRET, 16)
        middle = time.process_time()
        assert bool(open_letters(copies, SECRET)[1].all())
        sealing.append(middle - start)
        opening.append(time.process_time() - middle)
    assert 1000 / min(sealing) >= 3000 and 1000 / min(opening) >= 3000
