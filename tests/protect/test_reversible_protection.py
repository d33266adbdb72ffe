"""Protection behind a reversible key, of our own and of baselines: bounded, undone by the key, learnt, determined."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uge.data.images import ImageSet, normalisation_of
from uge.errors import ConfigError
from uge.keys.key import Key, new_key
from uge.keys.keyed_view import KeyedView, with_headroom
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible
from uge.networks import NetworkSpec, build_network
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.protect.baseline import BaselineConfig
from uge.protect.reversible import ReversibleConfig, ReversibleProtection
from uge.publish import load_published, verify
from uge.training import Recipe, fit, logits_of

SECRET = bytes(range(32))
SMALL = {"epochs": 2, "batch_size": 16, "generator_width": 4, "surrogates": ("mlp:width=16",), "run_epochs": 1}


@pytest.fixture(scope="module")
def colour() -> ImageSet:
    """Colour images with blacks, whites, one gray picture and two equal ones of different labels among them."""
    images = torch.randint(0, 256, (48, 3, 14, 13), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[0], images[1], images[2], images[4] = 0, 255, images[2, :1], images[3]
    return ImageSet(images, torch.arange(48) % 3, ("a", "b", "c"), tuple(f"{i:02d}" for i in range(48)))


def key_with(images: ImageSet, view: KeyedView | None) -> Key:
    spec = NetworkSpec("mlp", images.channels, images.image_size, images.classes, {"width": 4})
    return new_key(spec, images.class_names, *normalisation_of(images.images), Recipe(), view=view)


@pytest.mark.parametrize("epsilon", [2, 8, 33])
@pytest.mark.parametrize("headroom", [False, True])
def test_the_copy_keeps_the_bound_and_the_view(colour: ImageSet, epsilon: int, headroom: bool) -> None:
    config = ReversibleConfig(**SMALL, epsilon_255=epsilon, headroom=headroom)
    view = Reversible(SECRET, epsilon_255=epsilon)
    protection = ReversibleProtection(colour, view, config, seed=0)
    protection.train()
    copy = torch.cat(list(protection.copies(batch_size=20)))
    assert torch.equal(copy, torch.cat(list(protection.copies(batch_size=7))))
    original = with_headroom(colour.images, epsilon) if headroom else colour.images
    assert torch.equal(view.integer_view(copy, view.nonces(original)), view.integer_view_of_originals(original))
    assert (copy.int() - original.int()).abs().max() <= epsilon
    assert torch.equal(copy[2], copy[2, :1].expand(3, -1, -1)) and torch.equal(copy[3], copy[4])
    again = ReversibleProtection(colour, view, config, seed=0)
    again.train()
    assert torch.equal(torch.cat(list(again.copies())), copy)
    assert not torch.equal(copy, torch.cat(list(ReversibleProtection(colour, view, config, seed=1).copies())))


def test_the_generator_learns_a_shortcut(colour: ImageSet) -> None:
    """A surrogate reads the labels of random pictures from their copies, which a generator that never learnt hides."""

    def last(rate: float) -> float:
        sizes = {"epochs": 60, "run_epochs": 1000, "epsilon_255": 32, "filters": ("none",), "class_patterns": 0}
        config = ReversibleConfig(**SMALL | sizes, learning_rate=rate)
        protection = ReversibleProtection(colour, Reversible(SECRET, epsilon_255=32), config, seed=0)
        protection.train()
        losses = [float(row["shortcut"]) for row in protection.log[-10:]]
        return sum(losses) / len(losses)

    assert last(5e-3) < last(1e-9) - 0.1


def test_undistillation_leads_students_by_the_perturbation(colour: ImageSet) -> None:
    """Students come nearer to the teacher's answers on the copies than a generator that never learnt lets them."""

    def last(rate: float) -> float:
        sizes = {"epochs": 100, "run_epochs": 3, "epsilon_255": 32, "filters": ("none",), "class_patterns": 4}
        terms = {"shortcut": 0.0, "undistillation": 1.0, "temperature": 1.0, "teacher": "mlp:width=32"}
        config = ReversibleConfig(**SMALL | sizes | terms | {"generator_width": 8}, learning_rate=rate)
        protection = ReversibleProtection(colour, Reversible(SECRET, epsilon_255=32), config, seed=0)
        protection.train()
        assert protection.log[-1]["shortcut"] is None
        return sum(row["undistillation"] for row in protection.log[-60:]) / 60

    assert last(5e-3) < 0.95 * last(1e-9)


def test_misdirection_makes_pictures_look_like_the_next_class() -> None:
    """A network that learnt the originals, and that the protector never saw, takes copies for what they are not."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    shapes = 25 * torch.randn(3, 3, 12, 12, generator=rng).sign()
    images = (128 + shapes[labels] + 25 * torch.randn(96, 3, 12, 12, generator=rng)).clamp(0, 255).to(torch.uint8)
    clean = ImageSet(images, labels, ("a", "b", "c"), tuple(f"{i:02d}" for i in range(96)))
    network = build_network(NetworkSpec("convnet", 3, (12, 12), 3, {"width": 8}), *normalisation_of(images), 9)
    fit(network, clean, Recipe(20, batch_size=16, learning_rate=0.05, augmentation="none"), seed=9)

    def taken_for_the_next(**terms: float) -> float:
        sizes = {"epochs": 30, "epsilon_255": 32, "filters": ("none", "blur"), "references": ("convnet:width=16",)}
        config = ReversibleConfig(**SMALL | sizes | terms, learning_rate=0.01)
        protection = ReversibleProtection(clean, Reversible(SECRET, epsilon_255=32), config, seed=0)
        protection.train()
        seen = logits_of(network, torch.cat(list(protection.copies()))).argmax(1)
        return float((seen == (labels + 1) % 3).float().mean())

    assert taken_for_the_next(misdirection=0.0) < 0.4
    assert taken_for_the_next(misdirection=1.0) > 0.7
    assert taken_for_the_next(misdirection=1.0, shortcut=0.0) > 0.7


@pytest.mark.parametrize("method", ["random-noise", "lsp", "ops", "cuda"])
def test_a_baseline_behind_a_reversible_key_has_an_authorised_network(
    colour: ImageSet, method: str, tmp_path: Path
) -> None:
    key = key_with(colour, Reversible.draw(epsilon_255=12))
    config = resolve_config(method=method)
    manifest = protect_and_publish(colour, [key], tmp_path / "out", config, seed=0)
    assert manifest.method == method and manifest.epsilon_255 == 12 and manifest.epsilon_measured_255 <= 12
    assert manifest.settings["view"] == {"kind": "reversible", "epsilon_255": 12, "magnitudes": "half"}
    assert config.to_dict().items() - {("bound", config.to_dict()["bound"])} <= manifest.settings.items()
    found = verify(tmp_path / "out", clean=colour, key=key)
    assert found.ok and found.views == len(colour)
    plain = protect_and_publish(colour, [], tmp_path / "plain", config, seed=0)
    assert plain.nonces is None
    ours, theirs = (load_published(tmp_path / name).images.float() - colour.images for name in ("out", "plain"))
    moved = theirs.abs() >= 6
    moved[:3] = False  # black and white move one way, gray together
    if method != "ops":  # it moves one pixel, the key all of them
        assert ((ours.sign() == theirs.sign()) & moved).sum() > 0.7 * moved.sum()


def test_the_folder_of_ones_own_encoder_is_not_published(colour: ImageSet, tmp_path: Path) -> None:
    key = key_with(colour, Reversible.draw(epsilon_255=8))
    for encoder, published in (("clip:/home/jan/models/vit", "clip:vit"), ("clip:openai/vit", "clip:openai/vit")):
        config = ReversibleConfig(**SMALL, epsilon_255=8, encoder=encoder)
        manifest = protect_and_publish(colour, [key], tmp_path / published.replace("/", "-"), config, seed=0)
        assert manifest.settings["encoder"] == published


def test_what_does_not_go_together_is_refused(colour: ImageSet, tmp_path: Path) -> None:
    baseline = resolve_config(method="lsp")
    assert isinstance(baseline, BaselineConfig)
    for view, config, words in (
        (None, baseline, "takes one reversible key, got: initial weights"),
        (NullSpace.draw(), baseline, "takes one reversible key, got: null-space"),
        (NullSpace.draw(), ReversibleConfig(), "takes one reversible key, got: null-space"),
        (Reversible.draw(), resolve_config(method="null-space"), "takes one null-space key, got: reversible"),
        (Reversible.draw(), resolve_config(method="uge"), "a reversible key protects with the method reversible"),
        (Reversible.draw(epsilon_255=16), ReversibleConfig(), "epsilon 8 asked for, but the key is for 16"),
        (Reversible.draw(), resolve_config(method="learnability-lock"), "needs --lock"),
    ):
        with pytest.raises(ConfigError, match=words):
            protect_and_publish(colour, [key_with(colour, view)], tmp_path / "out", config)
        assert not (tmp_path / "out").exists()


def test_filters_that_follow_each_other_can_be_set_in_words() -> None:
    config = resolve_config(overrides={"filters": "none grayscale+blur jpeg:30"}, method="reversible")
    assert isinstance(config, ReversibleConfig) and config.filters == ("none", "grayscale+blur", "jpeg:30")
