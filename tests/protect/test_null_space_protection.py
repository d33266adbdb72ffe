"""Protection in the null space: exact for the key, bounded, learnt, determined by its seed, resumable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from uge.data.images import ImageSet
from uge.errors import ConfigError, PublishError
from uge.keys.keyed_view import with_headroom
from uge.keys.null_space import NullSpace
from uge.protect.null_space import NullSpaceConfig, NullSpaceProtection, perturb

SECRET = bytes(range(32))


def config(**changes: Any) -> NullSpaceConfig:
    small = {
        "epochs": 2,
        "batch_size": 16,
        "generator_width": 4,
        "surrogates": ("convnet:width=8", "mlp:width=16"),
        "run_epochs": 1,
    }
    return NullSpaceConfig(**(small | changes))


@pytest.fixture(scope="module")
def colour() -> ImageSet:
    """Colour images with blacks, whites and one gray picture among them."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 18, 13), generator=rng, dtype=torch.uint8)
    images[0], images[1], images[2] = 0, 255, images[2, :1]
    labels = torch.arange(48) % 3
    return ImageSet(images, labels, ("a", "b", "c"), tuple(f"{i:02d}" for i in range(48)))


def protected(images: ImageSet, settings: NullSpaceConfig, workdir: Path | None = None, seed: int = 0) -> torch.Tensor:
    protection = NullSpaceProtection(images, NullSpace(SECRET), settings, seed=seed, workdir=workdir)
    protection.train()
    return torch.cat(list(protection.copies(batch_size=20)))


@pytest.mark.parametrize("epsilon", [1, 8, 33])
@pytest.mark.parametrize("headroom", [False, True])
def test_the_copy_keeps_the_bound_and_the_view(colour: ImageSet, epsilon: int, headroom: bool) -> None:
    settings = config(epsilon_255=epsilon, headroom=headroom, epochs=1)
    copy = protected(colour, settings)
    original = with_headroom(colour.images, epsilon) if headroom else colour.images
    space = NullSpace(SECRET)
    nonces = space.nonces(original)
    assert torch.equal(space.integer_view(copy, nonces), space.integer_view(original, nonces))
    change = (copy.int() - original.int()).abs()
    assert 1 <= change.max() <= epsilon
    if headroom:  # with room on both sides black and white can move as well
        assert change[0].max() > 0 and change[1].max() > 0


def test_magnitudes_are_spread_below_the_bound(colour: ImageSet) -> None:
    copy = protected(colour, config(gain=100.0))
    size = (copy.int() - colour.images.int()).abs()[3:].flatten()
    shares = torch.bincount(size, minlength=9)[4:9] / len(size)
    assert (shares > 0.05).all()  # 4, 5, 6, 7 and 8 of 255 all occur, though every group is pushed as far as it may


@pytest.mark.parametrize("group_size", [4, 6, 12])
def test_how_much_of_a_proposal_everybody_sees(group_size: int) -> None:
    """The mean over keys of the change moves along d by nearly epsilon sqrt(2 / (pi s)) a value; docs/null-space.md."""
    rng = torch.Generator().manual_seed(0)
    shape, epsilon = (3, 16, 16), 8.0
    images = torch.full((600, *shape), 128, dtype=torch.uint8)
    space = NullSpace(SECRET, group_size=group_size)
    nonces = [index.to_bytes(12, "big") for index in range(0, 2 * len(images), 2)]
    groups = space.groups(nonces, shape, tied=False)
    bound, dither = torch.full(groups.group.shape, epsilon), torch.rand(groups.group.shape, generator=rng)

    def signal(proposal: torch.Tensor, bound: torch.Tensor = bound, gain: float = 50.0) -> float:
        copies, _ = perturb(images, proposal.expand_as(images), groups, bound, dither, gain)
        return float(((copies - images).mean(0) * proposal).mean()) / epsilon

    expected = (2 / (math.pi * group_size)) ** 0.5
    proposal = torch.randn(shape, generator=rng).sign()
    assert 0.9 * expected < signal(proposal) < expected
    rows = (torch.arange(16) // 8 * 2.0 - 1)[None, :, None].expand(shape)  # flat over half the image
    assert signal(rows) < 0.5 * expected
    drawn = bound * (1 + torch.rand(bound.shape, generator=rng)) / 2  # as a key draws them
    assert 0.6 * expected < signal(proposal, drawn, NullSpaceConfig().gain) < 0.75 * expected


def test_the_generator_learns(colour: ImageSet) -> None:
    """After training, a surrogate's loss on fresh keys is lower than what a generator that never learnt gives."""

    def last(rate: float) -> float:
        settings = config(
            epochs=80,
            learning_rate=rate,
            filters=("none",),
            surrogates=("mlp:width=32",),
            run_epochs=1000,
            epsilon_255=32,
        )
        protection = NullSpaceProtection(colour, NullSpace(SECRET), settings, seed=0)
        protection.train()
        return sum(row["shortcut"] for row in protection.log[-60:]) / 60

    assert last(5e-3) < last(1e-9) - 0.1


def test_seed_and_key_decide_the_copy(colour: ImageSet) -> None:
    first = protected(colour, config())
    assert torch.equal(first, protected(colour, config()))
    assert not torch.equal(first, protected(colour, config(), seed=1))


def test_equal_originals_have_one_copy_whatever_their_labels(colour: ImageSet) -> None:
    images = colour.images.clone()
    images[40] = images[3]  # of another class, and in another batch
    copy = protected(colour.with_images(images), config())
    assert colour.labels[40] != colour.labels[3]
    assert torch.equal(copy[40], copy[3]) and not torch.equal(copy[4], copy[3])


def test_feature_distance_can_stand_alone(colour: ImageSet) -> None:
    protection = NullSpaceProtection(
        colour, NullSpace(SECRET), config(shortcut=0, feature_distance=1.0, encoder="own", epochs=1), seed=0
    )
    protection.train()
    row = protection.log[-1]
    assert row["shortcut"] is None and -1 <= row["feature_distance"] <= 1


WHOLE = {
    "filters": ("none", "projection", "jitter+blur"),
    "misdirection": 0.5,
    "references": ("mlp:width=16", "mlp:width=8"),
    "undistillation": 0.5,
    "teacher": "mlp:width=16",
}


ALONE = WHOLE | {"shortcut": 0.0, "undistillation": 0.0, "filters": ("projection",)}


@pytest.mark.parametrize("changes", [{}, WHOLE, ALONE], ids=["default", "with everything", "misdirection alone"])
def test_a_stopped_run_goes_on_to_the_same_copy(colour: ImageSet, tmp_path: Path, changes: dict[str, Any]) -> None:
    def make() -> NullSpaceProtection:
        return NullSpaceProtection(
            colour, NullSpace(SECRET), config(**changes), seed=0, workdir=tmp_path / "w", checkpoint_seconds=0
        )

    def stop(row: dict[str, Any], total: int) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().train(stop)
    steps: list[int] = []
    protection = make()
    protection.train(lambda row, total: steps.append(row["step"]))
    assert steps == [4, 5, 6]
    assert torch.equal(torch.cat(list(protection.copies())), protected(colour, config(**changes)))
    with pytest.raises(PublishError, match="other data, keys or settings"):
        NullSpaceProtection(colour, NullSpace(SECRET), config(), seed=1, workdir=tmp_path / "w").train()


def test_networks_trained_before_the_first_step_are_told_of_and_not_logged(colour: ImageSet, tmp_path: Path) -> None:
    told: list[str] = []
    protection = NullSpaceProtection(colour, NullSpace(SECRET), config(**WHOLE, epochs=1), seed=0, workdir=tmp_path)
    protection.train(lambda row, total: told.append(row.get("preparing", f"step {row['step']}")))
    first = ["reference network 1 of 2", "reference network 2 of 2", "teacher"]
    assert told[:90] == [f"{network}, epoch {epoch}" for network in first for epoch in range(1, 31)]
    assert told[90:] == [f"step {row['step']}" for row in protection.log] and protection.log
    assert not any("preparing" in row for row in protection.log)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon_255": 0}, "epsilon 0"),
        ({"shortcut": 0}, "all losses"),
        ({"undistillation": -1}, "undistillation"),
        ({"misdirection": -1}, "misdirection"),
        ({"misdirection": 1, "references": ()}, "at least one reference"),
        ({"references": ("vgh",)}, "did you mean 'vgg'"),
        ({"teacher": "vgh"}, "did you mean 'vgg'"),
        ({"surrogates": ()}, "at least one surrogate"),
        ({"filters": ("jpg",)}, "did you mean 'jpeg'"),
        ({"surrogates": ("vgh",)}, "did you mean 'vgg'"),
        ({"least_magnitude": 2}, "least_magnitude"),
        ({"generator_width": 6}, "multiple of 4"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**wrong)
