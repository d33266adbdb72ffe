"""UGE at a small size, on real images: its bound, its terms and what they teach, and its keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import ImageSet, normalisation_of, to_float, to_uint8
from uge.encoders import build_encoder, features_of
from uge.errors import KeyFileError
from uge.filters import parse_filter
from uge.keys import WeightsKey, new_weights_key
from uge.losses.feature_distance import feature_distance
from uge.networks import NetworkSpec
from uge.protect.generator import Generator
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection
from uge.training import Recipe

TERMS = ("gradient_matching", "feature_distance", "undistillation")
# Nine steps; live runs and students come to their end and start again within them. What tests rely on is named here,
# so that better defaults break none of them.
SMALL: dict[str, Any] = {"epsilon_255": 16, "epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "encoder": "own"}
SMALL |= {"gradient_matching": 1.0, "gradient_magnitude": 0.1, "feature_distance": 0.3, "undistillation": 0.1}
SMALL |= {"feature_objective": "distance", "feature_images": 16, "generator_width": 8, "label_conditional": False}
SMALL |= {"students": ("vgg:depth=8,width=4", "convnet:width=8")}
SMALL |= {"clean_checkpoints": 2, "live_runs": 2, "run_epochs": 1}
ALONE = {"epochs": 20, "learning_rate": 0.01, "epsilon_255": 32} | dict.fromkeys(TERMS, 0.0)
Protect = Callable[..., UngeneralizableProtection]


@pytest.fixture(scope="module")
def colour(eurosat: ImageSet) -> ImageSet:
    """96 images of three classes at 12x12."""
    three = eurosat.subset((eurosat.labels < 3).nonzero().flatten()).take(96, torch.Generator().manual_seed(0))
    small = F.interpolate(to_float(three.images), size=(12, 12), mode="area").mul(255).round().to(torch.uint8)
    return ImageSet(small, three.labels, three.class_names[:3], three.names)


@pytest.fixture(scope="module")
def gray(colour: ImageSet) -> ImageSet:
    """The same images without colour."""
    return colour.with_images(colour.images.float().mean(1, keepdim=True).round().to(torch.uint8))


def make_key(images: ImageSet, network: str = "convnet:width=8", **recipe: Any) -> WeightsKey:
    spec, recipe = NetworkSpec.of(network, images), {"epochs": 2, "batch_size": 32} | recipe
    return new_weights_key(spec, images.class_names, *normalisation_of(images.images), Recipe(**recipe))


@pytest.fixture(scope="module")
def key(gray: ImageSet) -> WeightsKey:
    return make_key(gray)


@pytest.fixture(scope="module")
def protect(gray: ImageSet, key: WeightsKey) -> Protect:
    def trained(images: ImageSet = gray, keys: list[WeightsKey] | None = None, **changes: Any) -> Any:
        config = UngeneralizableConfig(**SMALL | changes)
        protection = UngeneralizableProtection(images, keys or [key], config, seed=0)
        protection.train()
        return protection

    return trained


def copies_of(protection: UngeneralizableProtection) -> Tensor:
    return torch.cat(list(protection.copies(batch_size=40)))


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(4, 17),
    width=st.integers(4, 17),
    epsilon=st.sampled_from([1, 2, 8, 31, 32, 128]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_copies_stay_within_the_bound_after_rounding_and_use_it(
    channels: int, height: int, width: int, epsilon: int, seed: int
) -> None:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8, generator=source)
    images[0], images[1] = 0, 255  # black and white, where the perturbation must be cut
    generator = Generator(channels, 2, epsilon, width=4)
    with torch.no_grad():
        generator.propose.weight.mul_(1e4)  # so large that tanh is at its ends nearly everywhere
        x_u = generator(to_float(images), torch.zeros(3, dtype=torch.int64))
    assert x_u.shape == images.shape and x_u.min() >= 0 and x_u.max() <= 1
    gap = (to_uint8(x_u).int() - images.int()).abs()
    assert 0.05 * epsilon < gap.float().mean() and gap.max() <= epsilon


def test_every_8_bit_value_reaches_plus_and_minus_epsilon() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for epsilon in range(1, 129):
        for sign in (-1, 1):
            x_u = (to_float(values) + sign * epsilon / 255).clamp(0, 1)
            assert torch.equal(to_uint8(x_u).int(), (values.int() + sign * epsilon).clamp(0, 255))


def test_every_step_is_logged_with_its_terms_and_the_loss_is_their_weighted_sum(protect: Protect) -> None:
    weights = {"gradient_matching": 0.7, "gradient_magnitude": 0.2, "feature_distance": 0.5, "undistillation": 0.3}
    log = protect(**weights, warm_up=0.5).log
    assert [(row["step"], row["epoch"]) for row in log] == [(n, (n - 1) // 3 + 1) for n in range(1, 10)]
    for row in log:
        assert 0 <= row["gradient_matching"] <= 2 and -1 <= row["feature_distance"] <= 1 and row["undistillation"] <= 0
        ramp = min(1.0, row["step"] / (0.5 * len(log)))  # L_gm rises over the warm-up
        expected = ramp * 0.7 * (row["gradient_matching"] + 0.2 * row["gradient_magnitude"])
        expected += 0.5 * row["feature_distance"] + 0.3 * row["undistillation"]
        assert row["loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "off", [(term,) for term in TERMS] + [TERMS[:2], TERMS[1:], (TERMS[0], TERMS[2])], ids="+".join
)
def test_a_term_that_is_off_is_neither_computed_nor_logged(
    protect: Protect, off: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "feature_distance" in off:  # not even built
        monkeypatch.setattr("uge.protect.ungeneralizable.build_encoder", lambda *_, **__: pytest.fail("encoder built"))
    if {"gradient_matching", "undistillation"} <= set(off):
        monkeypatch.setattr("uge.protect.ungeneralizable.recorded", lambda *_, **__: pytest.fail("clean run"))
    log = protect(epochs=2, **dict.fromkeys(off, 0.0)).log
    assert len(log) == 6 and all((row[term] is None) == (term in off) for row in log for term in TERMS)


def test_labels_may_decide_the_perturbation(protect: Protect) -> None:
    for conditional in (False, True):
        protection = protect(label_conditional=conditional, epochs=1)
        mine = copies_of(protection)
        protection.clean = replace(protection.clean, labels=(protection.clean.labels + 1) % 3)
        assert torch.equal(copies_of(protection), mine) is not conditional


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"gradient_matching": 1.0, "warm_up": 0.0, "epsilon_255": 64, "clean_share": 1.0}, 0.05),
        ({"feature_distance": 1.0}, 0.5),
        ({"feature_distance": 1.0, "feature_objective": "misalignment", "epochs": 40, "label_conditional": True}, 0.8),
    ],
    ids=["gradient matching", "feature distance", "misalignment"],
)
def test_each_term_alone_is_learnt(protect: Protect, changes: dict[str, Any], least: float) -> None:
    (term,) = changes.keys() & set(TERMS)
    log = protect(**ALONE | changes).log
    tenth = len(log) // 10
    first, last = (fmean(row[term] for row in rows) for rows in (log[:tenth], log[-tenth:]))
    assert first > least and last < 0.55 * first


def test_who_expects_a_filter_moves_the_features_behind_it(protect: Protect, gray: ImageSet) -> None:
    encoder, blur = build_encoder("own", gray, seed=0), parse_filter("blur:1")
    mean = features_of(encoder, gray.images).mean(0)

    def behind_the_blur(*filters: str) -> float:
        changes = {"feature_distance": 1.0, "epochs": 60, "label_conditional": True, "filters": filters}
        copies = copies_of(protect(**ALONE | changes))
        x, x_u = (encoder(blur(to_float(images))) for images in (gray.images, copies))
        return float(feature_distance(x, x_u, mean))

    assert behind_the_blur("blur:1") < behind_the_blur("none") - 0.05


def test_two_keys_of_different_architecture_share_one_copy_and_stay_as_they_were(
    protect: Protect, gray: ImageSet, key: WeightsKey
) -> None:
    other = make_key(gray, "mlp:width=16", optimiser="adamw", learning_rate=1e-3)
    before = {name: tensor.clone() for name, tensor in key.weights.items()}
    both = protect(keys=[key, other])
    assert all(0 <= row["gradient_matching"] <= 2 for row in both.log)  # a mean over the keys
    one, two, third = (copies_of(protection) for protection in (both, protect(), protect(keys=[other])))
    assert not torch.equal(one, two) and not torch.equal(two, third) and not torch.equal(one, third)
    assert all(torch.equal(tensor, before[name]) for name, tensor in key.weights.items())


def test_an_interrupted_training_begins_anew_without_a_work_folder(protect: Protect) -> None:
    def interrupt(row: dict[str, Any], total: int) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt

    protection = protect()
    whole = copies_of(protection)
    with pytest.raises(KeyboardInterrupt):
        protection.train(interrupt)
    protection.train()
    assert torch.equal(copies_of(protection), whole)


def test_fewer_images_than_a_batch_still_make_steps(protect: Protect, gray: ImageSet) -> None:
    protection = protect(gray.subset(torch.arange(20)))
    assert len(copies_of(protection)) == 20 and len(protection.log) == 3


def test_each_key_must_be_for_the_data(protect: Protect, colour: ImageSet, key: WeightsKey) -> None:
    with pytest.raises(KeyFileError, match="the key is for images of 3 channels, the data has 1"):
        protect(keys=[key, make_key(colour)])
