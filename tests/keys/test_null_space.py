"""Null-space keys: the view of a copy is the view of its original, as integers, whatever the perturbation."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.keys.keyed_view import needs_headroom, views_digest, with_headroom
from uge.keys.null_space import SIGNS, UNITS, NullSpace
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect.null_space import perturb
from uge.training import PlainTraining, Recipe, fit

VECTORS = Path(__file__).with_name("vectors.json")

layouts = st.fixed_dictionaries(
    {
        "group_size": st.integers(2, 13),
        "cell": st.integers(2, 17),
        "signs": st.sampled_from(SIGNS),
        "channels": st.sampled_from(UNITS),
    }
)
shapes = st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))
KINDS = ("random", "black", "white", "saturated", "gray")


def pictures(kind: str, shape: tuple[int, int, int], count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)
    if kind == "gray":
        return images[:, :1].expand_as(images).contiguous()
    return {
        "random": images,
        "black": torch.zeros_like(images),
        "white": torch.full_like(images, 255),
        "saturated": (images > 127).to(torch.uint8) * 255,
    }[kind]


def pushed(space: NullSpace, images: Tensor, nonces: list[bytes], epsilon: int, seed: int) -> Tensor:
    """A copy that uses as much of its null space as a wild proposal asks for."""
    rng = torch.Generator().manual_seed(seed)
    copies = torch.empty_like(images)
    for tied, members in space.kinds(nonces):
        groups = space.groups([nonces[i] for i in members.tolist()], images.shape[1:], tied=tied)
        slots = groups.group.shape
        proposal = torch.rand(images[members].shape, generator=rng) * 2 - 1
        bound = torch.randint(0, epsilon + 1, slots, generator=rng).float()
        result, _ = perturb(images[members], proposal, groups, bound, torch.rand(slots, generator=rng), gain=9.0)
        assert result.min() >= 0 and result.max() <= 255 and torch.equal(result, result.round())
        copies[members] = result.to(torch.uint8)
    return copies


@settings(deadline=None, max_examples=150)
@given(layouts, shapes, st.sampled_from(KINDS), st.integers(1, 40), st.integers(0, 2**31))
def test_the_view_of_a_copy_is_the_view_of_its_original(
    layout: dict[str, object], shape: tuple[int, int, int], kind: str, epsilon: int, seed: int
) -> None:
    space = NullSpace.draw(**layout)
    images = pictures(kind, shape, 3, seed)
    nonces = space.nonces(images)
    copies = pushed(space, images, nonces, epsilon, seed)
    assert torch.equal(space.integer_view(copies, nonces), space.integer_view(images, nonces))
    assert torch.equal(space.view(copies, nonces), space.view(images, nonces))
    assert (copies.int() - images.int()).abs().max() <= epsilon
    if kind == "gray":  # R = G = B stays so
        assert torch.equal(copies, copies[:, :1].expand_as(copies))


@settings(deadline=None, max_examples=60)
@given(layouts, shapes, st.integers(0, 2**31))
def test_groups_lie_in_one_cell_and_have_s_units_or_few_more(
    layout: dict[str, object], shape: tuple[int, int, int], seed: int
) -> None:
    space = NullSpace.draw(**layout)
    _, height, width = shape
    images = pictures("random", shape, 2, seed)
    nonces = space.nonces(images)
    for tied, members in space.kinds(nonces):
        groups = space.groups([nonces[i] for i in members.tolist()], shape, tied=tied)
        for group, sign, units in zip(groups.group.numpy(), groups.sign.numpy(), groups.units.numpy(), strict=True):
            for name in np.unique(group):
                (mine,) = np.nonzero(group == name)
                assert (units[mine] == len(mine)).all()
                assert len(mine) < 2 * space.group_size
                row, column = np.divmod(mine % (height * width), width)
                assert np.ptp(row) < space.cell and np.ptp(column) < space.cell
                if len(mine) == 1 and (shape[0] == 1 or not tied):
                    assert sign[mine] == 0  # a value on its own would be lost
                else:
                    assert set(np.abs(sign[mine])) == {1}
                    assert space.signs == "random" or abs(sign[mine].sum()) == len(mine) % 2


def slow_view(space: NullSpace, image: np.ndarray, nonce: bytes) -> np.ndarray:
    """W of one image, value by value, from the equations and the key stream alone."""
    channels, height, width = image.shape
    tied = space.channels == "tied" or bool(nonce[0] & 1)
    per_pixel = 1 if tied else channels
    count = per_pixel * height * width
    words = [int(w) for w in space.key_stream("groups", [nonce], image.shape, 2 + count)[0]]
    down, right = ((words[k] >> 32) * space.cell >> 32 for k in (0, 1))
    bits = max(1, (count - 1).bit_length())
    cells = defaultdict(list)
    for channel in range(per_pixel):
        for y in range(height):
            for x in range(width):
                unit = (channel * height + y) * width + x
                random = words[2 + unit] >> (1 + 15 + bits)
                cells[(y + down) // space.cell, (x + right) // space.cell].append((random, unit))
    result = image.astype(np.int64)
    for members in cells.values():
        members.sort()
        parts = max(1, len(members) // space.group_size)
        small, larger = divmod(len(members), parts)
        begin = 0
        for part in range(parts):
            size = small + (part < larger)
            units = [unit for _, unit in members[begin : begin + size]]
            begin += size
            values = [
                (channel, unit // width % height, unit % width)
                for unit in units
                for channel in (range(channels) if tied else [unit // (height * width)])
            ]
            if len(values) == 1:
                continue
            sigma = {
                value: 1 - 2 * (j // (channels if tied else 1) & 1)
                if space.signs == "balanced"
                else 1 - 2 * (words[2 + units[j // (channels if tied else 1)]] & 1)
                for j, value in enumerate(values)
            }
            along = sum(sigma[v] * int(image[v]) for v in values)
            for v in values:
                result[v] = len(values) * int(image[v]) - sigma[v] * along
    return result


@settings(deadline=None, max_examples=40)
@given(
    layouts,
    st.tuples(st.sampled_from([1, 3]), st.integers(1, 14), st.integers(1, 14)),
    st.sampled_from(["random", "gray"]),
    st.integers(0, 2**31),
)
def test_the_view_equals_a_slow_oracle(
    layout: dict[str, object], shape: tuple[int, int, int], kind: str, seed: int
) -> None:
    space = NullSpace.draw(**layout)
    image = pictures(kind, shape, 1, seed)
    nonce = space.nonces(image)[0]
    assert np.array_equal(space.integer_view(image, [nonce])[0].numpy(), slow_view(space, image[0].numpy(), nonce))


def test_vectors_fix_the_format() -> None:
    """Published copies stay readable: key, nonce and image give the groups and views of the day they were made."""
    for vector in json.loads(VECTORS.read_text()):
        space = NullSpace(bytes.fromhex(vector["secret"]), **vector["layout"])
        image = torch.frombuffer(bytearray(bytes.fromhex(vector["pixels"])), dtype=torch.uint8)
        image = image.view(1, *vector["shape"])
        nonces = space.nonces(image)
        assert nonces[0].hex() == vector["nonce"]
        (tied, _), *_ = space.kinds(nonces)
        groups = space.groups(nonces, vector["shape"], tied=tied)
        assert [int(g) for g in groups.group[0]] == vector["group"]
        assert [int(s) for s in groups.sign[0]] == vector["sign"]
        assert views_digest(space.integer_view(image, nonces)) == vector["view_sha256"]


def test_a_batch_is_its_images_one_by_one() -> None:
    space = NullSpace.draw()
    images = torch.cat([pictures("random", (3, 19, 23), 3, 0), pictures("gray", (3, 19, 23), 2, 1)])
    nonces = space.nonces(images)
    whole = space.integer_view(images, nonces)
    for i, nonce in enumerate(nonces):
        assert torch.equal(whole[i : i + 1], space.integer_view(images[i : i + 1], [nonce]))


def test_nonces_are_equal_for_equal_images_alone() -> None:
    space = NullSpace.draw()
    images = pictures("random", (3, 8, 8), 4, 0)
    nonces = space.nonces(images)
    assert nonces == space.nonces(images.clone()) and len(set(nonces)) == 4
    assert set(nonces).isdisjoint(space.nonces(images, "view"))
    assert set(nonces).isdisjoint(NullSpace.draw().nonces(images))
    changed = images.clone()
    changed[0, 0, 0, 0] ^= 1
    assert space.nonces(changed)[0] != nonces[0] and space.nonces(changed)[1:] == nonces[1:]


def test_another_key_or_nonce_does_not_see_the_original() -> None:
    space = NullSpace.draw()
    images = pictures("random", (3, 32, 32), 8, 0)
    nonces = space.nonces(images)
    copies = pushed(space, images, nonces, 8, 1)
    moved = (copies != images).float().mean()
    assert moved > 0.8
    for other, wrong in ((NullSpace.draw(), nonces), (space, nonces[1:] + nonces[:1])):
        same = other.integer_view(copies, wrong) == other.integer_view(images, wrong)
        assert same.float().mean() < 0.2


def mean_projection(signs: str, size: int = 4, side: int = 8, count: int = 4000) -> Tensor:
    """E[P_N] over nonces, [side², side²], for gray images and cells of half their side."""
    space = NullSpace.draw(group_size=size, cell=side // 2, signs=signs)
    return space.mean_projection(drawn(count, 0), (1, side, side))


def drawn(count: int, seed: int) -> list[bytes]:
    """Nonces of images with channels that differ."""
    rng = torch.Generator().manual_seed(seed)
    return [bytes(row) for row in torch.randint(256, (count, 12), generator=rng, dtype=torch.uint8).tolist()]


def test_random_signs_leave_no_direction_clean_and_balanced_ones_only_the_coarse() -> None:
    """A direction with a small eigenvalue of E[P_N] is a public linear map that reads the original undisturbed."""
    values = torch.linalg.eigvalsh(mean_projection("random"))
    assert values.min() > 1 / (4 * 4)
    balanced = mean_projection("balanced")
    flat = torch.ones(64, dtype=torch.float64) / 8
    assert flat @ balanced @ flat < 1 / (4 * 4)  # the mean of the image
    values, directions = torch.linalg.eigh(balanced)
    coarse = directions[:, values < 1 / (4 * 4)].view(8, 8, -1)
    smooth = torch.nn.functional.avg_pool2d(coarse.permute(2, 0, 1)[None], 2)[0]
    assert 1 <= coarse.shape[2] <= 16 and smooth.pow(2).sum() * 4 > 0.9 * coarse.shape[2]


@pytest.mark.parametrize("network", ["convnet:width=8", "resnet:depth=8,width=8", "vit:width=16,depth=1"])
def test_training_on_the_copy_is_training_on_the_original_bit_for_bit(network: str) -> None:
    """Same seed, several steps, standard augmentation: not one bit of one weight differs; on plain images it does."""
    space = NullSpace.draw()
    images = pictures("random", (3, 16, 16), 96, 0)
    labels = torch.arange(96) % 3
    nonces = space.nonces(images)
    copies = pushed(space, images, nonces, 8, 1)

    class Seen(PlainTraining):
        def __init__(self, view: Tensor) -> None:
            self.view = view

        def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
            return self.view, images.labels

    def trained(view: Tensor) -> str:
        name, options = parse_network(network)
        module = build_network(NetworkSpec(name, 3, (16, 16), 3, options), (0.5,) * 3, (0.25,) * 3, seed=0)
        data = ImageSet(images, labels, ("a", "b", "c"), tuple(map(str, range(96))))
        fit(module, data, Recipe(epochs=2, batch_size=32), seed=0, countermeasure=Seen(view))
        weights = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
        return hashlib.sha256(weights).hexdigest()

    on_originals = trained(space.view(images, nonces))
    assert trained(space.view(copies, nonces)) == on_originals
    assert trained(copies) != trained(images)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60))
def test_headroom_keeps_order_and_leaves_room(epsilon: int) -> None:
    mapped = with_headroom(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), epsilon).flatten().int()
    assert mapped[0] == epsilon and mapped[-1] == 255 - epsilon
    assert (mapped.diff() >= 0).all() and mapped.unique().numel() == 256 - 2 * epsilon


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"group_size": 1}, "group size 1 is not in 2..64"),
        ({"cell": 1}, "cell 1 is not in 2..64"),
        ({"signs": "even"}, "signs 'even'"),
        ({"secret": b"short"}, "32 bytes, got 5"),
    ],
)
def test_wrong_layouts_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NullSpace(**({"secret": bytes(32)} | wrong))


def test_the_secret_is_not_in_its_text() -> None:
    space = NullSpace.draw()
    assert space.secret.hex() not in repr(space) and "secret" not in repr(space) and "secret" not in space.layout


def test_headroom_is_needed_where_a_tenth_of_the_values_cannot_move() -> None:
    images = torch.full((1, 1, 10, 10), 128, dtype=torch.uint8)
    images.view(-1)[:10] = torch.tensor([0, 255] * 5, dtype=torch.uint8)
    assert not needs_headroom(images)
    images.view(-1)[10] = 255
    assert needs_headroom(images)


@pytest.mark.parametrize("signs", ["balanced", "random"])
def test_the_mean_projection_is_the_mean_of_what_views_take_away(signs: str) -> None:
    space, shape = NullSpace(bytes(32), 3, 4, signs), (3, 5, 6)
    size = 90
    oracle = torch.zeros(size, size, dtype=torch.float64)
    for nonce in drawn(7, 0):
        groups = space.groups([nonce] * size, shape, tied=False)
        unit = torch.eye(size, dtype=torch.float64)
        oracle += groups.spread(groups.sums(unit[:, None])) / groups.units / 7
    torch.testing.assert_close(space.mean_projection(drawn(7, 0), shape), oracle)
