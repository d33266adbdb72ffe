from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.data.images import ImageSet, class_difference, identity, normalisation_of, pixel_sha256, to_float, to_uint8
from uge.errors import DataError

from .images import in_turn, noise


@st.composite
def image_sets(draw: st.DrawFn) -> ImageSet:
    count, classes = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    shape = (count, draw(st.sampled_from([1, 3])), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    seed = draw(st.integers(0, 2**32))
    return ImageSet(
        noise(*shape, seed=seed),
        torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed + 1)),
        tuple(f"class {i}" for i in range(classes)),
        tuple(f"{i:05d}" for i in range(count)),
    )


@settings(max_examples=60, deadline=None)
@given(images=image_sets(), data=st.data())
def test_a_subset_keeps_image_label_and_name_together(images: ImageSet, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(images) - 1), unique=True))
    part = images.subset(torch.tensor(indices, dtype=torch.int64))
    assert len(part) == len(indices)
    assert part.class_names == images.class_names
    assert (part.channels, part.image_size) == (images.channels, images.image_size)
    for row, index in enumerate(indices):
        assert torch.equal(part.images[row], images.images[index])
        assert part.labels[row] == images.labels[index]
        assert part.names[row] == images.names[index]


@settings(max_examples=60, deadline=None)
@given(images=image_sets(), count=st.integers(0, 25), seed=st.integers(0, 2**32))
def test_take_is_balanced_as_far_as_the_classes_reach(images: ImageSet, count: int, seed: int) -> None:
    part = images.take(count, torch.Generator().manual_seed(seed))
    assert len(part) == min(count, len(images))
    assert len(set(part.names)) == len(part)
    has = images.labels.bincount(minlength=images.classes)
    took = part.labels.bincount(minlength=images.classes)
    unexhausted = took[took < has]
    if len(unexhausted):  # a class that could give more has given as much as any other, up to one
        assert unexhausted.min() >= took.max() - 1
    again = images.take(count, torch.Generator().manual_seed(seed))
    assert again.names == part.names


@settings(max_examples=60, deadline=None)
@given(images=image_sets(), data=st.data())
def test_the_digest_changes_with_a_pixel_or_a_label(images: ImageSet, data: st.DataObject) -> None:
    digest = images.digest()
    assert digest == images.with_images(images.images.clone()).digest()

    flat = images.images.clone().flatten()
    flat[data.draw(st.integers(0, flat.numel() - 1))] ^= 1
    assert images.with_images(flat.view_as(images.images)).digest() != digest

    labels = images.labels.clone()
    labels[data.draw(st.integers(0, len(labels) - 1))] += 1
    more = replace(images, class_names=(*images.class_names, "one more"))
    assert replace(more, labels=labels).digest() != more.digest()


@settings(max_examples=30, deadline=None)
@given(images=image_sets())
def test_the_digest_reads_values_not_memory_layout(images: ImageSet) -> None:
    scattered = images.images.contiguous(memory_format=torch.channels_last)
    assert images.with_images(scattered).digest() == images.digest()
    assert pixel_sha256(scattered[0]) == pixel_sha256(images.images[0])


def test_hashes_are_those_of_the_first_release() -> None:
    images = ImageSet(torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2), torch.tensor([0, 1]), ("a", "b"), ("0", "1"))
    assert images.digest() == "b87072445da6eb933c64aecfec9d9d4f5dbb4e51c535bbb85954c8d51fb6ca56"
    assert pixel_sha256(images.images[1]) == "7deda5f4ed3656ebd72a34a0eb029743f935d7f87bdd951d10b605f55cdffe3f"


def test_one_image_of_another_shape_has_another_hash() -> None:
    pixels = torch.arange(4, dtype=torch.uint8)
    assert pixel_sha256(pixels.view(1, 2, 2)) != pixel_sha256(pixels.view(1, 1, 4))


def test_every_8_bit_value_survives_the_way_through_floats() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)
    assert torch.equal(to_uint8(torch.tensor([-0.3, 0.4999 / 255, 0.5001 / 255, 1.7])), torch.tensor([0, 0, 1, 255]))


def test_normalisation_makes_mean_0_and_deviation_1() -> None:
    images = noise(50, 3, 8, 8)
    images[:, 1] //= 2
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation_of(images))
    normal = (to_float(images) - mean) / std
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_normalisation_of_constant_images_divides_by_no_zero() -> None:
    _, std = normalisation_of(torch.full((2, 1, 4, 4), 9, dtype=torch.uint8))
    assert std == (0.001,)


PIXELS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (PIXELS.float(), LABELS, ("0", "1"), "expected uint8 images"),
        (PIXELS[:, :2], LABELS, ("0", "1"), "expected uint8 images"),
        (PIXELS[0], LABELS, ("0", "1"), "expected uint8 images"),
        (PIXELS, LABELS.int(), ("0", "1"), "expected one int64 label an image"),
        (PIXELS, LABELS[:1], ("0", "1"), "expected one int64 label an image"),
        (PIXELS, LABELS, ("0",), "expected one name an image, got 1 for 2"),
        (PIXELS, LABELS + 1, ("0", "1"), "labels run from 1 to 2, but there are 2 class names"),
        (PIXELS, LABELS - 1, ("0", "1"), "labels run from -1 to 0, but there are 2 class names"),
    ],
)
def test_what_is_no_image_set_says_why_in_one_line(
    images: torch.Tensor, labels: torch.Tensor, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ImageSet(images, labels, ("a", "b"), names)
    assert "\n" not in str(caught.value)


def test_images_that_another_program_has_ordered_follow_names() -> None:
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
    mine = ImageSet(pixels, torch.tensor([0, 1, 0, 1]), ("dog", "cat"), ("a", "b", "c", "d"))
    theirs = ImageSet(pixels, torch.tensor([0, 0, 1, 1]), ("cat", "dog"), ("cat/d", "cat/b", "dog/a", "dog/c"))
    found = mine.like(theirs)
    assert found.class_names == ("cat", "dog") and found.labels.tolist() == [0, 0, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [3, 1, 0, 2] and found.names == ("d", "b", "a", "c")
    assert mine.like(mine) is mine
    other = replace(theirs, names=("w", "x", "y", "z"), class_names=("cat", "cow"))
    assert mine.like(other) is mine


def test_copies_are_told_from_those_of_other_images() -> None:
    clean = in_turn(noise(40, 3, 8, 8), *"abcd")
    copy = clean.with_images((clean.images.int() + 16).clamp(0, 255).to(torch.uint8))
    assert clean.aligned(clean) and clean.aligned(copy)
    within = torch.arange(40).roll(4)  # the labels agree all the same
    assert not clean.aligned(copy.subset(within)) and not clean.aligned(copy.subset(torch.arange(39)))
    one = clean.subset(torch.arange(4))
    assert one.aligned(copy.subset(torch.arange(4))), "one of each class has no other to compare with"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("crane", "crane"), ("Cat", "cat"), ("caf\u00e9", "CAFE\u0301"), ("stra\u00dfe", "STRASSE")),
        *(("3", "003"), ("0", "00"), (" cat", "cat ")),
    ],
)
def test_names_of_one_class_are_one_by_their_identity(one: str, other: str) -> None:
    assert identity(one) == identity(other)
    told = "two classes are called 'crane'" if one == other else "differ in case, spaces or leading zeros alone"
    with pytest.raises(DataError, match=f"{told}.*; rename one"):
        ImageSet(PIXELS, LABELS, (one, other), ("0", "1"))
    mine = ImageSet(PIXELS, LABELS, (one, "dog"), ("0", "1"))
    theirs = ImageSet(PIXELS, LABELS, ("dog", other), ("0", "1"))
    found = mine.like(theirs)
    assert found.class_names == theirs.class_names and found.labels.tolist() == [1, 0]
    told = class_difference(mine.class_names, found.class_names, "a", "b")
    assert told == f"class 0 is {mine.class_names[0]!r} in a, 'dog' in b"


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "cats"), ("10", "1"), ("a1", "a01"), ("\u0915\u093f", "\u0915\u093e")]
)
def test_other_names_are_other_classes(one: str, other: str) -> None:
    assert ImageSet(PIXELS, LABELS, (one, other), ("0", "1")).class_names == (one, other)


def test_names_are_kept_with_composed_letters() -> None:
    found = ImageSet(PIXELS, LABELS, ("cafe\u0301", "tea"), ("cafe\u0301/0", "tea/1"))
    assert found.class_names == ("caf\u00e9", "tea") and found.names == ("caf\u00e9/0", "tea/1")


def test_a_difference_of_classes_is_told_in_one_phrase() -> None:
    assert class_difference(("Cat", "dog"), ("cat", "Dog"), "the key", "the data") == ""
    told = class_difference(("cat", "dog", *"abcde"), ("cat", "kit"), "the key", "the data")
    assert told == "the key alone has 'dog', 'a', 'b' and 3 more; the data alone has 'kit'"


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="is not Unicode text"):
        ImageSet(PIXELS, LABELS, ("caf\udce9", "tea"), ("0", "1"))
