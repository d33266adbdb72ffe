"""Learnt purification takes real perturbations out, and the JPEG lattice is found where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import build_countermeasure, why_unfit
from uge.attack.denoiser import Denoiser, fit_denoiser
from uge.attack.filtered import Jpeg
from uge.attack.jpeg_lattice import read_lattice
from uge.attack.purification import OwnPairs, blind_spots, hidden, left_over, shortcut_left, sign_accuracy
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError, DataError
from uge.keys.null_space import NullSpace
from uge.protect.null_space import NullSpaceConfig, NullSpaceProtection
from uge.protect.reversible import PRESETS

SMALL = "steps=150,depth=4,width=16"


def pictures(count: int, seed: int, size: int = 16, channels: int = 3) -> ImageSet:
    """Smooth colours with one hard edge each, three classes."""
    rng = torch.Generator().manual_seed(seed)
    x = F.interpolate(torch.rand(count, channels, 4, 4, generator=rng), size=(size, size), mode="bicubic")
    place = torch.randint(2, size - 2, (count, 1, 1, 1), generator=rng)
    x = 0.2 + 0.5 * x + 0.15 * (torch.arange(size) < place)
    images = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return ImageSet(images, torch.arange(count) % 3, ("a", "b", "c"), tuple(map(str, range(count))))


@pytest.fixture(scope="module")
def clean() -> ImageSet:
    return pictures(200, 0)


@pytest.fixture(scope="module")
def copy(clean: ImageSet) -> ImageSet:
    """Protected in a null space by a generator of the real kind, under a key that no test uses again."""
    config = NullSpaceConfig(epochs=2, batch_size=50, surrogates=("convnet:width=8",), generator_width=8)
    protection = NullSpaceProtection(clean, NullSpace(bytes(range(32))), config, seed=0)
    protection.train()
    return clean.with_images(torch.cat(list(protection.copies())))


def left(seen: Tensor, copy: ImageSet, clean: ImageSet) -> float:
    """Root mean square of what is left of a perturbation, over what there was."""
    value = left_over(lambda part: to_float(seen), copy.images, clean.images)
    assert value is not None
    return value


def test_blind_spots_cover_every_pixel_once_and_are_hidden_from_the_network() -> None:
    x = torch.rand(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    spots = torch.stack([blind_spots(x, place) for place in range(9)])
    assert torch.equal(spots.sum(0), torch.ones(7, 8, dtype=torch.int64))
    for each in spots:
        inside = torch.zeros(7, 8, dtype=torch.bool)
        inside[1:-1, 1:-1] = each[1:-1, 1:-1]  # borders are padded with themselves
        changed = torch.where(inside, torch.rand(x.shape, generator=torch.Generator().manual_seed(1)), x)
        torch.testing.assert_close(hidden(changed, inside), hidden(x, inside))  # they do not touch: none sees another
        assert torch.equal(hidden(x, each)[:, :, ~each], x[:, :, ~each])


def test_a_denoiser_begins_as_the_identity_and_ends_on_a_plateau_with_its_best_weights() -> None:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = Denoiser(1, depth=3, width=4)
    torch.testing.assert_close(network.eval()(x), x)

    def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
        return (network(x[pick]) - 0.5).square().mean()  # a constant is soon learnt

    fitted = fit_denoiser(network, error, len(x), 60, "test")
    assert not fitted.plateau and fitted.steps == 60 and len(fitted.held_out) == 4
    with torch.no_grad():
        assert fitted.error == pytest.approx(float(error(network, fitted.held_out, torch.Generator())), rel=1e-3)
    assert fitted.error < 0.85 * float((x - 0.5).square().mean())
    done = fit_denoiser(
        Denoiser(1, depth=3, width=4), lambda network, pick, rng: network(x[pick]).mean() * 0, len(x), 5000, "test"
    )
    assert done.plateau and done.steps < 1000  # nothing to gain


def test_pairs_teach_a_denoiser_that_serves_the_other_images(clean: ImageSet, copy: ImageSet) -> None:
    few, many = (build_countermeasure(f"pairs:{count},{SMALL}", clean=clean) for count in (5, 100))
    seen, labels = many.prepare(copy)
    assert labels is copy.labels and left(seen, copy, clean) < 0.85
    assert left(few.prepare(copy)[0], copy, clean) > left(seen, copy, clean)
    assert many.findings["rms_left"] < 0.85 and few.findings["denoiser_steps"] <= 150
    test = pictures(20, 7)
    assert not torch.equal(many.at_test(test).images, test.images)  # the network is tested on what it learnt from


def test_pairs_need_the_copies_of_these_originals(clean: ImageSet) -> None:
    """Fewer, or the same ones in another order within their classes, make no pairs; an audit leaves them out."""
    members = [(clean.labels == label).nonzero()[:, 0] for label in clean.labels.unique()]
    originals, others = (clean.subset(torch.cat([each.roll(by) for each in members])) for by in (0, 1))
    for wrong in (clean.subset(torch.arange(20)), others):
        with pytest.raises(ConfigError, match="the originals are not those of the copies one by one"):
            build_countermeasure("pairs:5", clean=originals).prepare(wrong)
        assert why_unfit("jpeg:30+pairs:5", wrong, clean=originals)
    assert not why_unfit("pairs:5", originals, clean=originals) and not why_unfit("pairs:5", others)


def test_purification_without_pairs_takes_out_what_is_independent_from_pixel_to_pixel(clean: ImageSet) -> None:
    rng = torch.Generator().manual_seed(1)
    signs = 2 * torch.randint(0, 2, clean.images.shape, generator=rng) - 1
    noisy = clean.with_images((clean.images.int() + 16 * signs).clamp(0, 255).to(torch.uint8))
    assert left(build_countermeasure(f"purify:{SMALL}").prepare(noisy)[0], noisy, clean) < 0.75


def test_pairs_of_a_reversible_key_hold_to_its_bound(clean: ImageSet) -> None:
    measure = build_countermeasure(f"own-pairs:key=reversible,pairs=60,epochs=1,epsilon_255=4,{SMALL}")
    assert isinstance(measure, OwnPairs)
    assert measure.config_for(headroom=False).to_dict()["filters"] == list(PRESETS["default"].filters)
    text = f"own-pairs:key=reversible,preset=combined,epochs=1,{SMALL}"
    assert build_countermeasure(text).config_for(headroom=False).to_dict()["filters"] == list(
        PRESETS["combined"].filters
    )
    with pytest.raises(ConfigError, match="unknown preset 'combine'; did you mean 'combined'"):
        build_countermeasure("own-pairs:key=reversible,preset=combine")
    originals, copies = measure.made(clean, torch.Generator().manual_seed(0))
    change = (copies.images.int() - originals.images.int()).abs()
    assert len(originals) == 60 and 2 <= change.max() <= 4
    seen, _ = measure.prepare(copies)
    assert (seen.int() - copies.images.int()).abs().max() <= 4 and measure.findings["rms_left"] < 1
    ours, em = {"method": "reversible"}, {"method": "em"}
    assert why_unfit("own-pairs:key=reversible", clean, ours) == why_unfit("own-pairs", clean) == ""
    assert why_unfit("own-pairs", clean, ours) == ""
    assert why_unfit("own-pairs:key=null-space", clean, ours) == "the copy is behind no null-space key"
    assert why_unfit("own-pairs:key=reversible", clean, em) == "the copy is behind no reversible key"
    assert why_unfit("own-pairs", clean, em) == "the copy is behind no null-space or reversible key"
    assert why_unfit("own-pairs:key=null-space", clean) == ""  # a folder that says nothing of itself


def test_a_hacker_makes_his_pairs_as_the_manifest_says_that_the_copy_was_made() -> None:
    config = replace(PRESETS["misdirecting"], epsilon_255=16, references=("mlp:width=8",), headroom=True)
    told = config.to_dict() | {"method": "reversible", "magnitudes": "full", "recipients": 1, "seed": 0}
    measure = build_countermeasure("own-pairs", settings=told)
    assert measure.space.layout == {"epsilon_255": 16, "magnitudes": "full"} and measure.epsilon_255 == 16
    assert measure.config_for(headroom=True) == config  # whether he needs headroom is up to his own images
    other = build_countermeasure("own-pairs:preset=combined,epsilon_255=4,magnitudes=half,epochs=2", settings=told)
    assert other.space.layout == {"epsilon_255": 4, "magnitudes": "half"}
    assert other.config_for(headroom=False) == replace(PRESETS["combined"], epsilon_255=4, epochs=2)
    assert build_countermeasure("own-pairs:key=null-space", settings=told).epsilon_255 == 16  # no copy holds more

    told = {
        "method": "null-space",
        "group_size": 4,
        "cell": 16,
        "signs": "random",
        "channels": "tied",
        "epsilon_255": 6,
    }
    for name in ("own-pairs", "guessed-views"):
        layout = build_countermeasure(name, settings=told).space.layout
        assert layout == {part: told[part] for part in ("group_size", "cell", "signs", "channels")}
    assert build_countermeasure("guessed-views:cell=4", settings=told).space.layout["cell"] == 4
    assert build_countermeasure("jpeg-lattice", settings=told).epsilon_255 == 6
    assert build_countermeasure("jpeg-lattice:epsilon_255=3", settings=told).epsilon_255 == 3


def test_pairs_of_a_baseline_behind_a_key_are_those_of_its_key(clean: ImageSet) -> None:
    view = {"kind": "reversible", "epsilon_255": 16, "magnitudes": "full"}
    told = {"method": "tap", "epochs": 999, "epsilon_255": 16, "view": view}
    for text in ("own-pairs", "own-pairs:key=reversible"):
        measure = build_countermeasure(text, settings=told)
        assert measure.space.layout == {"epsilon_255": 16, "magnitudes": "full"} and measure.epsilon_255 == 16
        assert measure.config_for(headroom=False) == replace(
            PRESETS["default"], epsilon_255=16
        )  # TAP's epochs are TAP's
        assert why_unfit(text, clean, told) == ""
    assert why_unfit("own-pairs:key=null-space", clean, told) == "the copy is behind no null-space key"
    blind = told | {"view": {"kind": "null-space", "group_size": 4, "cell": 16, "signs": "random", "channels": "tied"}}
    assert build_countermeasure("own-pairs", settings=blind).space.layout["group_size"] == 4


@pytest.mark.parametrize("source", ["published", "own"])
def test_pairs_made_with_keys_of_his_own_serve_a_copy_under_another_key(
    clean: ImageSet, copy: ImageSet, source: str, tmp_path: Path
) -> None:
    data = tmp_path / "own.npz"
    own = pictures(150, 3, size=20)
    np.savez(data, images=own.images.permute(0, 2, 3, 1).numpy(), labels=own.labels.numpy())
    place = "" if source == "published" else f"{data},"
    measure = build_countermeasure(f"own-pairs:{place}pairs=300,epochs=1,{SMALL}")
    seen, _ = measure.prepare(copy)
    moved = seen.int() - copy.images.int()
    assert moved.abs().max() <= 8 and moved.any()  # whole steps within the bound
    assert left(seen, copy, clean) < (0.97 if source == "published" else 0.85)
    found = measure.findings
    assert found["sign_accuracy"] > 60 and found["rms_left"] < 0.95 and 0 < found["shortcut_left"] < 1.5
    truly = sign_accuracy(lambda part: copy.images.float() - seen.float(), copy.images, clean.images)
    assert truly is not None and truly > 50


def test_gray_images_are_purified_by_pairs_from_colour_images(tmp_path: Path) -> None:
    data = tmp_path / "own.npz"
    own = pictures(30, 3)
    np.savez(data, images=own.images.permute(0, 2, 3, 1).numpy(), labels=own.labels.numpy())
    gray = pictures(30, 4, channels=1)
    seen, _ = build_countermeasure(f"own-pairs:{data},pairs=40,epochs=1,steps=5").prepare(gray)
    assert seen.shape == gray.images.shape


def test_measures_of_what_is_left_agree_with_what_was_put_in(clean: ImageSet) -> None:
    rng = torch.Generator().manual_seed(2)
    pattern = torch.randint(-4, 5, (3, 3, 16, 16), generator=rng)
    own = torch.randint(-4, 5, clean.images.shape, generator=rng)
    copy = clean.with_images((clean.images.int() + pattern[clean.labels] + own).to(torch.uint8))

    def without(share: float, part: Tensor) -> Tensor:  # all copies at once: they fit into one batch
        return (copy.images.float() - share * pattern[clean.labels]) / 255

    for share in (0.0, 0.5, 1.0):
        value = shortcut_left(lambda part, share=share: without(share, part), copy, clean)  # type: ignore[misc]
        assert value == pytest.approx(1 - share, abs=0.05)
    assert left_over(to_float, copy.images, clean.images) == 1
    assert left_over(lambda part: to_float(clean.images), copy.images, clean.images) == 0
    assert left_over(to_float, clean.images, clean.images) is None
    right = copy.images.float() - clean.images.float()
    assert sign_accuracy(lambda part: right, copy.images, clean.images) == 100
    assert sign_accuracy(lambda part: -right, copy.images, clean.images) == 0
    assert sign_accuracy(lambda part: right, clean.images, clean.images) is None
    assert shortcut_left(to_float, clean, clean) is None


# --- the lattice of JPEGs


def jpegs(quality: int, channels: int) -> ImageSet:
    images = pictures(60, 0, size=32, channels=channels)
    noise = torch.randn(images.images.shape, generator=torch.Generator().manual_seed(4)) * 12
    rough = (images.images + noise).clamp(0, 255).to(torch.uint8)
    return images.with_images(Jpeg(quality).pixels(rough))


@pytest.mark.parametrize(("quality", "channels"), [(50, 1), (30, 3)])
def test_the_lattice_is_read_through_a_perturbation_and_undoes_it(quality: int, channels: int) -> None:
    originals = jpegs(quality, channels)
    space = NullSpace(bytes(range(32)))
    config = NullSpaceConfig(epochs=1, surrogates=("convnet:width=8",), generator_width=8)
    copies = originals.with_images(torch.cat(list(NullSpaceProtection(originals, space, config, seed=0).copies())))
    assert why_unfit("jpeg-lattice", copies) == ""
    measure = build_countermeasure("jpeg-lattice")
    seen, labels = measure.prepare(copies)
    assert abs(measure.findings["jpeg_quality"] - quality) <= 1
    assert measure.findings["jpeg_halved_chroma"] == (channels == 3)  # Pillow halves it
    assert labels is copies.labels and (seen.int() - copies.images.int()).abs().max() <= 8
    assert left(seen, copies, originals) < 0.7


def test_unchanged_jpegs_keep_their_pixels() -> None:
    originals = jpegs(50, 1)
    seen, _ = build_countermeasure("jpeg-lattice").prepare(originals)
    assert (seen.int() - originals.images.int()).abs().max() <= 1


@pytest.mark.parametrize("size", [16, 7])
def test_images_that_were_no_jpegs_are_told(size: int) -> None:
    images = pictures(60, 0, size=size)
    assert read_lattice(images.images) is None
    assert "no JPEGs" in why_unfit("jpeg-lattice", images) and why_unfit("jpeg-lattice:50", images) == ""
    with pytest.raises(DataError, match="counter-measure 'jpeg-lattice': the originals of these images were no JPEGs"):
        build_countermeasure("jpeg-lattice").prepare(images)
