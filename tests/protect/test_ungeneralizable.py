"""UGE from end to end at a small size: bound, determinism, ablation, refusals, and that each term can be learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch

from uge.data.images import ImageSet, to_float
from uge.encoders import build_encoder, features_of
from uge.errors import ConfigError, KeyFileError
from uge.filters import parse_filter
from uge.keys import WeightsKey
from uge.losses.feature_distance import feature_distance
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection

TERMS = ("gradient_matching", "feature_distance", "undistillation")
Small = Callable[..., UngeneralizableConfig]


def protect(
    clean: ImageSet, keys: list[WeightsKey], config: UngeneralizableConfig, seed: int = 0
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    protection = UngeneralizableProtection(clean, keys, config, seed=seed)
    protection.train()
    return torch.cat(list(protection.copies(batch_size=40))), protection.log


@pytest.fixture(scope="module")
def one_run(gray: ImageSet, key: WeightsKey, small: Small) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    return protect(gray, [key], small())


def test_copies_are_images_of_the_same_kind_within_the_bound(
    one_run: tuple[torch.Tensor, Any], gray: ImageSet, small: Small
) -> None:
    copies, _ = one_run
    assert (copies.dtype, copies.shape) == (torch.uint8, gray.images.shape) and copies.is_contiguous()
    gap = (copies.int() - gray.images.int()).abs()
    assert 0 < gap.max() <= small().epsilon_255


def test_colour_images_keep_the_bound(colour: ImageSet, make_key: Callable[..., WeightsKey], small: Small) -> None:
    copies, log = protect(colour, [make_key(colour)], small(epsilon_255=4, learning_rate=0.02))
    assert copies.shape == colour.images.shape and len(log) == 9
    assert 0 < (copies.int() - colour.images.int()).abs().max() <= 4


def test_the_log_holds_every_step_with_all_three_terms(one_run: tuple[Any, list[dict[str, Any]]]) -> None:
    _, log = one_run
    assert [(row["step"], row["epoch"]) for row in log] == [(n, (n - 1) // 3 + 1) for n in range(1, 10)]
    for row in log:
        assert {"step", "epoch", "loss", *TERMS, "seconds"} <= set(row)
        assert 0 <= row["gradient_matching"] <= 2 and -1 <= row["feature_distance"] <= 1 and row["undistillation"] <= 0
    seconds = [row["seconds"] for row in log]
    assert seconds == sorted(seconds)


def test_the_loss_is_the_weighted_sum_of_its_terms(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    config = small(gradient_matching=0.7, gradient_magnitude=0.2, feature_distance=0.5, undistillation=0.3, warm_up=0.5)
    _, log = protect(gray, [key], config)
    for row in log:
        ramp = min(1.0, row["step"] / (0.5 * len(log)))
        expected = ramp * 0.7 * (row["gradient_matching"] + 0.2 * row["gradient_magnitude"])
        expected += 0.5 * row["feature_distance"] + 0.3 * row["undistillation"]
        assert row["loss"] == pytest.approx(expected, abs=1e-5)


def test_the_same_key_and_seed_give_the_same_bytes_and_another_of_either_does_not(
    one_run: tuple[torch.Tensor, list[dict[str, Any]]],
    gray: ImageSet,
    key: WeightsKey,
    make_key: Callable[..., WeightsKey],
    small: Small,
) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(123)  # the global generator plays no part
    again, log = protect(gray, [key], small())
    torch.set_rng_state(state)
    assert torch.equal(again, one_run[0])
    assert [row | {"seconds": 0} for row in log] == [row | {"seconds": 0} for row in one_run[1]]
    assert not torch.equal(protect(gray, [key], small(), seed=1)[0], again)
    assert not torch.equal(protect(gray, [make_key(gray)], small())[0], again)


def test_the_training_leaves_key_and_global_generator_as_they_were(
    gray: ImageSet, key: WeightsKey, small: Small
) -> None:
    before = {name: tensor.clone() for name, tensor in key.weights.items()}
    state = torch.get_rng_state()
    protect(gray, [key], small(epochs=1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in key.weights.items())


@pytest.mark.parametrize(
    "off", [(term,) for term in TERMS] + [TERMS[:2], TERMS[1:], (TERMS[0], TERMS[2])], ids="+".join
)
def test_a_term_that_is_off_is_neither_computed_nor_logged(
    gray: ImageSet, key: WeightsKey, small: Small, off: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "feature_distance" in off:  # not even built
        monkeypatch.setattr("uge.protect.ungeneralizable.build_encoder", lambda *_, **__: pytest.fail("encoder built"))
    if {"gradient_matching", "undistillation"} <= set(off):
        monkeypatch.setattr("uge.protect.ungeneralizable.record_clean_run", lambda *_, **__: pytest.fail("clean run"))
    copies, log = protect(gray, [key], small(epochs=2, **dict.fromkeys(off, 0.0)))
    assert copies.shape == gray.images.shape and len(log) == 6
    for row in log:
        for term in TERMS:
            assert (row[term] is None) == (term in off), term


def test_all_terms_off_is_refused(small: Small) -> None:
    with pytest.raises(ConfigError, match="all three losses are switched off"):
        small(**dict.fromkeys(TERMS, 0.0))


def test_labels_may_decide_the_perturbation(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    relabelled = replace(gray, labels=(gray.labels + 1) % 3)
    for conditional in (False, True):
        protection = UngeneralizableProtection(gray, [key], small(label_conditional=conditional, epochs=1), seed=0)
        protection.train()
        mine = torch.cat(list(protection.copies()))
        protection.clean = relabelled
        assert torch.equal(torch.cat(list(protection.copies())), mine) is not conditional


def trend(log: list[dict[str, Any]], term: str) -> tuple[float, float]:
    """The term's mean over the first and over the last tenth of the steps."""
    tenth = len(log) // 10
    return fmean(row[term] for row in log[:tenth]), fmean(row[term] for row in log[-tenth:])


ALONE = {"epochs": 20, "learning_rate": 0.01, "gradient_matching": 0.0, "feature_distance": 0.0, "undistillation": 0.0}


def test_gradient_matching_alone_is_learnt(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    settings = ALONE | {"gradient_matching": 1.0, "warm_up": 0.0, "epsilon_255": 64, "clean_share": 1.0}
    _, log = protect(gray, [key], small(**settings))
    first, last = trend(log, "gradient_matching")
    assert last < 0.5 * first


def test_gradient_matching_rises_over_the_warm_up(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    _, log = protect(gray, [key], small(**ALONE | {"gradient_matching": 1.0, "warm_up": 0.5, "epochs": 2}))
    whole = [row["gradient_matching"] + 0.1 * row["gradient_magnitude"] for row in log]
    assert [row["loss"] / value for row, value in zip(log, whole, strict=True)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1, 1], rel=1e-3
    )


def test_feature_distance_alone_is_learnt(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    _, log = protect(gray, [key], small(**ALONE | {"feature_distance": 1.0, "epsilon_255": 32}))
    first, last = trend(log, "feature_distance")
    assert first > 0.5 and last < first - 0.3


def test_who_expects_a_filter_moves_the_features_behind_it(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    encoder = build_encoder("own", gray, seed=0, device="cpu")
    blur = parse_filter("blur:1")
    mean = features_of(encoder, gray.images, device="cpu").mean(0)

    def behind_the_blur(*filters: str) -> float:
        settings = ALONE | {"feature_distance": 1.0, "epsilon_255": 32, "epochs": 60, "label_conditional": True}
        copies, _ = protect(gray, [key], small(**settings, filters=filters))
        x, x_u = (encoder(blur(to_float(images))) for images in (gray.images, copies))
        return float(feature_distance(x, x_u, mean))

    assert behind_the_blur("blur:1") < behind_the_blur("none") - 0.05


def test_misalignment_alone_is_learnt(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    settings = ALONE | {"feature_distance": 1.0, "feature_objective": "misalignment", "epsilon_255": 32}
    settings |= {"epochs": 40, "label_conditional": True}
    _, log = protect(gray, [key], small(**settings))
    assert log[0]["feature_distance"] > 0.9 and trend(log, "feature_distance")[1] < 0.5


def test_two_keys_of_different_architecture_share_one_copy(
    gray: ImageSet, key: WeightsKey, make_key: Callable[..., WeightsKey], small: Small
) -> None:
    other = make_key(gray, "mlp:width=16", optimiser="adamw", learning_rate=1e-3)
    both, log = protect(gray, [key, other], small())
    assert all(0 <= row["gradient_matching"] <= 2 for row in log)  # a mean over the keys
    for alone in ([key], [other]):
        assert not torch.equal(protect(gray, alone, small())[0], both)


def test_fewer_images_than_a_batch_still_make_steps(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    copies, log = protect(gray.subset(torch.arange(20)), [key], small())
    assert len(copies) == 20 and len(log) == 3


def test_no_key_or_a_key_for_other_data_is_refused(
    gray: ImageSet, colour: ImageSet, key: WeightsKey, make_key: Callable[..., WeightsKey], small: Small
) -> None:
    with pytest.raises(ConfigError, match="takes a key of the kind initial-weights, got none"):
        UngeneralizableProtection(gray, [], small(), seed=0)
    two = gray.subset((gray.labels < 2).nonzero().flatten())
    two = replace(two, class_names=two.class_names[:2])
    with pytest.raises(KeyFileError, match="the key is for 2 classes, the data has 3"):
        UngeneralizableProtection(gray, [key, make_key(two)], small(), seed=0)
    with pytest.raises(KeyFileError, match="the key is for images of 1 channels, the data has 3"):
        UngeneralizableProtection(colour, [key], small(), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon_255": 0}, "epsilon 0 is outside 1..128"),
        ({"epsilon_255": 129}, "epsilon 129 is outside 1..128"),
        ({"feature_objective": "distanse"}, "unknown feature objective 'distanse'; .*distance"),
        ({"gradient_matching": -1.0}, "gradient_matching must not be negative, got -1.0"),
        ({"feature_distance": float("nan")}, "feature_distance must not be negative, got nan"),
        ({"students": ()}, "undistillation needs at least one student"),
        ({"students": ("vggg",)}, "unknown network 'vggg'; did you mean 'vgg'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"live_runs": 0}, "live_runs must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"clean_share": 1.5}, "clean_share is a share from 0 to 1, got 1.5"),
        ({"filters": ()}, "filters is empty"),
        ({"filters": ("jpg",)}, "did you mean 'jpeg'"),
        ({"filters": ("none", "blur+projection")}, "unknown filter 'projection'"),
        ({"generator_width": 10}, "generator_width must be a multiple of 4, got 10"),
    ],
)
def test_settings_out_of_range_are_one_line(small: Small, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_encoder_is_suggested_before_any_training(gray: ImageSet, key: WeightsKey, small: Small) -> None:
    with pytest.raises(ConfigError, match="unknown encoder 'owl'; did you mean 'own'"):
        protect(gray, [key], small(encoder="owl"))
