"""Hackers with images of their own: what they learn from copies of these, they take out of a copy under another key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from uge.attack import build_countermeasure, why_unfit
from uge.attack.candidates import smooth_levels
from uge.attack.own_pairs import OwnPairs, own_keys
from uge.attack.purification import left_over
from uge.data.images import ImageSet, to_uint8
from uge.errors import ConfigError
from uge.keys.letter import even, seal
from uge.keys.shift import MOST_LEVEL, layout_of
from uge.protect import PROTECTIONS, resolve_config

from ..copy.copies import copied_by
from ..images import in_turn, noise

TINY: dict[str, dict[str, Any]] = {  # settings with which each kind of protection takes seconds
    "sealed": {"epsilon_255": 16, "steps": 4, "width": 4, "reference_epochs": 1}
    | {"surrogates": ("mlp:width=8",), "references": ("mlp:width=8",)},
    "uge": {"epsilon_255": 16, "epochs": 1, "clean_checkpoints": 1, "live_runs": 1, "run_epochs": 1}
    | {"feature_distance": 0.0, "undistillation": 0.0},
    "random-noise": {"epsilon_255": 16, "scope": "class"},
}


def pictures(count: int, seed: int, size: int) -> ImageSet:
    """Smooth colours, three classes."""
    x = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    return in_turn(to_uint8(0.2 + 0.6 * F.interpolate(x, size=(size, size), mode="bilinear")), *"abc")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """DATA of the hacker's own images."""
    file, images = tmp_path_factory.mktemp("own") / "own.npz", pictures(200, 1, size=24)
    np.savez(file, images=images.images.permute(0, 2, 3, 1).numpy(), labels=images.labels.numpy())
    return str(file)


CLEAN = pictures(90, 0, size=20)
SEALED: dict[str, Any] = {"method": "sealed", "epsilon_255": 16}


def copy_by(method: str) -> tuple[ImageSet, dict[str, Any]]:
    """A copy, under a key that no hacker draws, and what its manifest tells."""
    keys = own_keys(PROTECTIONS[method].takes, CLEAN, 99)
    return copied_by(method, CLEAN, *keys, seed=5, **TINY[method]), {"method": method, **TINY[method]}


@pytest.mark.parametrize("method", TINY)
def test_pairs_are_made_by_the_method_that_the_manifest_names(method: str, own: str) -> None:
    copy, settings = copy_by(method)
    measure = build_countermeasure(f"own-pairs:{own},images=60,keys=2,steps=20,width=4", settings=settings)
    assert isinstance(measure, OwnPairs) and why_unfit(f"own-pairs:{own}", copy, settings) == ""
    assert measure.config == resolve_config(method, TINY[method])
    seen, labels = measure.prepare(copy)
    assert seen.shape == copy.images.shape and labels is copy.labels
    assert measure.findings["own_images"] == 60 and measure.findings["denoiser_steps"] <= 20
    assert method != "sealed" or measure.findings["own_steps"] == TINY[method]["steps"]
    assert measure.at_test(CLEAN) is CLEAN  # whose labels nobody knows


def test_pairs_are_made_at_the_size_that_the_copy_was_made_at(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, settings = copy_by("sealed")
    measure = build_countermeasure(f"own-pairs:{own},images=6,keys=2", settings=settings | {"seen_at": 16})
    assert isinstance(measure, OwnPairs)
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(PROTECTIONS["sealed"], "train", lambda made: sizes.append(made.clean.image_size))
    assert measure.copies_of(measure.own(copy)).shape == (6, 3, 20, 20) and sizes == 2 * [(16, 16)]


def test_what_own_pairs_under_many_keys_teach_takes_a_pattern_out_of_a_copy_under_another(own: str) -> None:
    """The noise of a class that one key draws is learnt by heart, and makes a copy under another key worse."""
    copy, settings = copy_by("random-noise")
    left = {}
    for keys in (1, 20):
        measure = build_countermeasure(f"own-pairs:{own},keys={keys},steps=200,width=8", settings=settings)
        left[keys] = left_over(measure.prepare(copy)[0], copy.images, CLEAN.images) or 0.0
    assert 0 < left[20] < 0.95 < 1 < left[1]


def test_a_hacker_may_change_the_settings_of_his_own_copies() -> None:
    measure = build_countermeasure("own-pairs:set=epsilon_255=24 scope=sample", settings=copy_by("random-noise")[1])
    assert isinstance(measure, OwnPairs) and (measure.config.epsilon_255, measure.config.scope) == (24, "sample")
    with pytest.raises(ConfigError, match="unknown setting 'scop'; did you mean 'scope'"):
        build_countermeasure("own-pairs:set=scop=sample", settings={"method": "random-noise"})


def test_a_hacker_draws_keys_of_his_own_by_his_seed() -> None:
    for kind in ("sealed", "initial-weights"):
        (first,), (again,), (other,) = (own_keys(kind, CLEAN, seed) for seed in (0, 0, 1))
        assert first.kind == kind and first.digest() == again.digest() != other.digest()
    assert own_keys("none", CLEAN, 0) == []


def test_without_a_method_of_ours_there_are_no_pairs() -> None:
    why = "no manifest names a method of ours that made the copy"
    assert why_unfit("own-pairs", CLEAN) == why_unfit("blur+own-pairs:x", CLEAN, {"method": "unheard-of"}) == why
    assert why_unfit("own-pairs", CLEAN, {"method": "cuda"}) == "needs images of the hacker's own: data=DATA"
    with pytest.raises(ConfigError, match="unknown method 'unheard-of'"):
        build_countermeasure("own-pairs", settings={"method": "unheard-of"})


# --- candidates


def sealed_copy() -> ImageSet:
    """A smooth shift a class, and a smaller one an image."""
    layout, rng = layout_of((3, 20, 20), SEALED["epsilon_255"]), torch.Generator().manual_seed(3)
    levels = []
    for shape in ((1, *layout.field_shape), layout.node_shape):
        common, single = smooth_levels((3, *shape), rng)[CLEAN.labels], smooth_levels((90, *shape), rng)
        levels.append((common + single // 2).clamp(-MOST_LEVEL, MOST_LEVEL).to(torch.int8))
    return CLEAN.with_images(seal(CLEAN.images, levels[0][:, 0], levels[1], bytes(32), SEALED["epsilon_255"]))


def test_candidates_find_the_shift_of_a_class_without_running_the_protection(own: str) -> None:
    copy = sealed_copy()
    measure = build_countermeasure(f"candidates:{own},steps=300", settings=SEALED)
    seen, labels = measure.prepare(copy)
    assert left_over(seen, copy.images, CLEAN.images) < 0.85 and labels is copy.labels
    assert measure.findings["own_images"] == 200 and "denoiser_plateau" in measure.findings


def test_candidates_need_a_sealed_copy_and_images_of_their_own() -> None:
    assert why_unfit("candidates", CLEAN) == "no manifest says that the copy is sealed"
    assert why_unfit("candidates:here", CLEAN, {"method": "cuda"}) == "no manifest says that the copy is sealed"
    assert why_unfit("candidates", CLEAN, SEALED) == "needs images of the hacker's own: data=DATA"
    assert why_unfit("candidates:here", CLEAN, SEALED) == ""
    with pytest.raises(ConfigError, match="candidates: needs images of the hacker's own: data=DATA"):
        build_countermeasure("candidates", settings=SEALED).prepare(CLEAN)


def test_a_sealed_copy_is_read_without_its_cipher_text() -> None:
    images = noise(4, 3, 20, 20)
    assert torch.equal(build_countermeasure("own-pairs", settings={"method": "sealed"}).legible(images), even(images))
    assert torch.equal(build_countermeasure("own-pairs", settings={"method": "cuda"}).legible(images), images)
