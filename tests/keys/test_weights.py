"""Keys of initial weights: the authorised network as data, bit for bit the same wherever it is read."""

import json
from dataclasses import replace

import pytest
import torch

from uge.data.images import ImageSet
from uge.errors import KeyFileError
from uge.keys import RECIPIENT_NETWORK, WeightsKey, load_key, new_weights_key, save_key
from uge.networks import NetworkSpec, build_network
from uge.training import Recipe, fit

from ..images import in_turn, noise
from ..refusals import refused

CLASSES = ("cat", "dog", "ship")
MEAN, STD = (0.1, 1 / 3, 0.5), (0.25, 0.2, 0.3)
SPEC = NetworkSpec("convnet", 3, (8, 8), 3, {"width": 8, "depth": 1})


def make_key(spec: NetworkSpec = SPEC) -> WeightsKey:
    mean, std = (MEAN, STD) if spec.channels == 3 else ((0.5,), (0.2,))
    return new_weights_key(spec, CLASSES, mean, std, Recipe(epochs=3, learning_rate=0.05))


def images(channels: int = 3, size: tuple[int, int] = (8, 8), classes: tuple[str, ...] = CLASSES) -> ImageSet:
    return in_turn(noise(len(classes), channels, *size), *classes)


def module_of(key: WeightsKey) -> torch.nn.Module:
    return key.module(images(), RECIPIENT_NETWORK, seed=0)


def assert_same(first: WeightsKey, second: WeightsKey) -> None:
    """Equal bit for bit, down to the order of the tensors that a state_dict needs."""
    for field in ("network", "mean", "std", "own_recipe", "class_names", "fingerprint"):
        assert getattr(first, field) == getattr(second, field)
    assert set(first.weights) == set(second.weights)
    for name, tensor in first.weights.items():
        other = second.weights[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        assert tensor.reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        NetworkSpec("convnet", 1, (16, 16), 3, {"width": 8, "stem": 2, "frozen_stem": True}),
        NetworkSpec("resnet", 3, (8, 12), 3, {"depth": 8, "width": 4}),  # int64 buffers without dimensions
        NetworkSpec("vit", 1, (8, 8), 3, {"width": 16, "depth": 1, "heads": 2}),
        NetworkSpec("mlp", 3, (4, 4), 3, {"width": 8}),
    ],
    ids=lambda spec: spec.name,
)
def test_round_trip_keeps_every_bit(spec, tmp_path):
    key = make_key(spec)
    for path in save_key(key, tmp_path / "mine"):
        loaded = load_key(path)
        assert isinstance(loaded, WeightsKey)
        assert_same(key, loaded)
        assert loaded.digest() == key.digest()
        x = torch.rand(2, spec.channels, *spec.image_size)
        assert torch.equal(module_of(loaded).eval()(x), module_of(key).eval()(x))


def test_it_decides_network_and_recipe_and_leaves_images_as_they_are():
    key, data = make_key(), images()
    assert key.spec(data, "vit") == SPEC and key.recipe("vit", 99) == key.own_recipe
    assert torch.equal(key.opened(data.images), data.images) and torch.equal(key.seen(data.images), data.images)
    assert not key.opens


def test_the_module_is_fresh_at_each_call():
    key = make_key()
    before = {name: tensor.clone() for name, tensor in key.weights.items()}
    fit(module_of(key), images(), Recipe(epochs=1, batch_size=3), seed=0)
    again = key.module(images(), "mlp", seed=1).state_dict()
    for name, tensor in before.items():
        assert torch.equal(key.weights[name], tensor) and torch.equal(again[name], tensor), name


def test_the_secret_does_not_come_from_torch():
    keys = []
    for _ in range(2):
        torch.manual_seed(0)
        keys.append(make_key())
    drawn = [name for name in keys[0].weights if not torch.equal(keys[0].weights[name], keys[1].weights[name])]
    assert any(keys[0].weights[name].ndim == 4 for name in drawn)
    assert keys[0].digest() != keys[1].digest()


def test_a_32_bit_seed_does_not_give_the_weights(monkeypatch):
    """torch's CPU generator has 2**32 seeds; whoever tries them all must not meet a key's weights."""
    seeds = iter((0, 1))
    monkeypatch.setattr("uge.keys.weights.secrets.randbits", lambda bits: next(seeds))
    spec = NetworkSpec("convnet", 3, (8, 8), 3)
    key = make_key(spec)
    for name, tensor in build_network(spec, MEAN, STD, seed=0).state_dict().items():
        ours = key.weights[name]
        assert torch.equal(ours.flatten().sort().values, tensor.flatten().sort().values), name  # the same distribution
        if tensor.ndim >= 2 and name != "0.mean" and name != "0.std":
            assert (ours == tensor).float().mean() < 0.05, name


def test_public_facts_hold_no_weight_and_no_statistic():
    text = json.dumps(make_key().public_facts())
    assert "convnet" in text and "ship" in text and "initial-weights" in text
    assert str(MEAN[1]) not in text and str(STD[0]) not in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("1.classify.bias"), ["lacks 1", "1.classify.bias"]),
        (lambda w: w.clear() or w.update(x=torch.zeros(1)), ["lacks", "0.mean", "give the state_dict"]),
        (lambda w: w.update({"1.classify.bias": torch.zeros(4)}), ["1.classify.bias", "[4]", "[3]"]),
        (lambda w: w.update({"1.more": torch.zeros(4)}), ["1.more"]),
        (lambda w: w.update({"1.classify.bias": torch.tensor([0.0, torch.nan, 0.0])}), ["1.classify.bias", "finite"]),
    ],
    ids=["missing", "another network", "shape", "unknown", "nan"],
)
def test_weights_that_do_not_fit(change, words):
    key = make_key()
    weights = dict(key.weights)
    change(weights)
    with refused(KeyFileError, "the key", *words):
        module_of(replace(key, weights=weights))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (images(classes=("cat", "dog")), ["the key alone has 'ship'"]),
        (images(classes=("dog", "cat", "ship")), ["'cat'", "'dog'"]),
        (images(channels=1), ["3 channels", "has 1"]),
        (images(size=(8, 9)), ["8x8", "8x9"]),
    ],
    ids=["number of classes", "order of classes", "channels", "size"],
)
def test_a_key_for_other_images_is_refused(data, words):
    key = make_key()
    key.check_fits(images())
    with refused(KeyFileError, "", *words):
        key.check_fits(data)


def test_a_key_must_agree_with_itself():
    key = make_key()
    with pytest.raises(KeyFileError, match="3 outputs for 2"):
        replace(key, class_names=("cat", "dog"))
    with pytest.raises(KeyFileError, match="3 channel means"):
        replace(key, mean=(0.5,))
    with pytest.raises(KeyFileError, match="two classes of the key are called 'cat'"):
        replace(key, class_names=("cat", "dog", "cat"))
