from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.errors import ConfigError, TrainingError
from uge.networks import fresh_network
from uge.training import PlainTraining, Recipe, Shift, accuracy_of, fit, learning_rate_at, logits_of, make_optimiser

Pair = tuple[ImageSet, ImageSet]
QUICK = Recipe(epochs=3, batch_size=50, learning_rate=0.05)


def weights_after(images: ImageSet, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    network = fresh_network("convnet:width=8", images, 0)
    fit(network, images, recipe, seed=seed)
    return network.state_dict()


# --- the augmentation


@st.composite
def shifts(draw: st.DrawFn) -> tuple[Shift, Tensor]:
    count, channels = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shift = Shift.draw(count, (height, width), generator)
    return shift, torch.rand(count, channels, height, width, generator=generator)


def shifted_slowly(shift: Shift, x: Tensor) -> Tensor:
    """Flip, pad with zeros, crop: pixel by pixel."""
    moved = torch.zeros_like(x)
    for n in range(x.shape[0]):
        image = x[n].flip(-1) if shift.flip[n] else x[n]
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                source = (row + int(shift.down[n]), column + int(shift.right[n]))
                if 0 <= source[0] < x.shape[2] and 0 <= source[1] < x.shape[3]:
                    moved[n, :, row, column] = image[:, source[0], source[1]]
    return moved


@settings(max_examples=60, deadline=None)
@given(shifts())
def test_a_shift_is_flip_pad_and_crop(drawn: tuple[Shift, Tensor]) -> None:
    shift, x = drawn
    assert torch.equal(shift(x), shifted_slowly(shift, x))


def test_shifts_reach_an_eighth_of_the_side_both_ways_and_flip_half() -> None:
    shift = Shift.draw(4000, (32, 16), torch.Generator().manual_seed(0))
    assert (int(shift.down.min()), int(shift.down.max())) == (-4, 4)
    assert (int(shift.right.min()), int(shift.right.max())) == (-2, 2)
    assert 0.45 < shift.flip.float().mean() < 0.55
    # 9 and 5 values, each as often as any other
    assert torch.stack([(shift.down == d).float().mean() for d in range(-4, 5)]).sub(1 / 9).abs().max() < 0.02
    assert torch.stack([(shift.right == d).float().mean() for d in range(-2, 3)]).sub(1 / 5).abs().max() < 0.03


def test_gradients_flow_through_a_shift() -> None:
    shift = Shift.draw(3, (4, 5), torch.Generator().manual_seed(0))
    x = torch.rand(3, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(shift, x)


# --- recipe, schedule, optimiser


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0.0: 0.1, 0.5: 0.1, 1.0: 0.1}),
        ("cosine", {0.0: 0.1, 0.5: 0.05, 1.0: 0.0}),
        ("one-cycle", {0.0: 0.0, 0.125: 0.05, 0.25: 0.1, 0.625: 0.05, 1.0: 0.0}),
    ],
)
def test_schedules_pass_through_known_points(schedule: str, values: dict[float, float]) -> None:
    recipe = Recipe(schedule=schedule, learning_rate=0.1)
    for progress, expected in values.items():
        assert learning_rate_at(recipe, progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": "adam"}, "unknown optimiser 'adam'; .*sgd, adamw"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"augmentation": "mixup"}, "unknown augmentation 'mixup'"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"epochs": -1}, "epochs 0 or more"),
        ({"batch_size": 0}, "must be positive"),
        ({"learning_rate": 0.0}, "must be positive"),
    ],
)
def test_a_wrong_recipe_says_why(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**wrong)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_only_weights_of_two_or_more_dimensions_decay(optimiser: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    decayed, kept = make_optimiser(network, Recipe(optimiser=optimiser, weight_decay=0.01)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert [[p.ndim for p in each["params"]] for each in (decayed, kept)] == [[4, 2], [1, 1, 1, 1]]


# --- fit


def test_the_seed_decides_the_run_and_nothing_else_does(two_classes: Pair) -> None:
    train = two_classes[0].subset(torch.arange(120))
    before = torch.get_rng_state()
    first = weights_after(train, QUICK, seed=1)
    assert torch.equal(before, torch.get_rng_state()), "training moved torch's global generator"
    torch.manual_seed(99)
    same, other = weights_after(train, QUICK, seed=1), weights_after(train, QUICK, seed=2)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    "recipe",
    [
        QUICK,
        Recipe(3, batch_size=50, learning_rate=0.003, optimiser="adamw", schedule="cosine", precision="bfloat16"),
        Recipe(3, 50, learning_rate=0.02, schedule="constant", augmentation="none", precision="float32"),
    ],
    ids=["one-cycle", "adamw-cosine-bfloat16", "constant-plain-float32"],
)
def test_real_images_are_learnt(two_classes: Pair, recipe: Recipe) -> None:
    train, test = two_classes
    network = fresh_network("convnet:width=8", train, 0)
    untrained = accuracy_of(network, test)
    seen: list[tuple[int, float, float]] = []
    history = fit(network, train, recipe, seed=0, test=test, on_epoch=lambda *row: seen.append(row))
    assert history.train_loss[-1] < 0.5 * history.train_loss[0] and history.accuracy > 95 > untrained
    assert history.accuracy == accuracy_of(network, test) == history.test_accuracy[-1]
    assert history.images_seen == 3 * 400 and history.peak_accuracy == max(history.test_accuracy)
    assert seen == [(i + 1, history.train_loss[i], history.test_accuracy[i]) for i in range(3)]
    assert not network.training and all(p.dtype == torch.float32 for p in network.parameters())


def test_a_frozen_stem_stays_and_the_rest_moves(two_classes: Pair) -> None:
    train = two_classes[0].subset(torch.arange(100))
    network = fresh_network("convnet:width=8,stem=2,frozen_stem=true", train, 0)
    before = {key: value.clone() for key, value in network.named_parameters()}
    fit(network, train, Recipe(epochs=1, batch_size=50), seed=0)
    for key, parameter in network.named_parameters():
        assert torch.equal(before[key], parameter) != parameter.requires_grad, key


def test_fewer_images_than_a_batch_are_one_batch(two_classes: Pair) -> None:
    few = two_classes[0].subset(torch.arange(7))
    history = fit(fresh_network("mlp:width=8", few, 0), few, Recipe(epochs=2, learning_rate=0.01), seed=0)
    assert history.images_seen == 14
    assert math.isnan(history.accuracy) and math.isnan(history.peak_accuracy)


def test_a_training_that_diverges_is_an_error_and_no_weak_hacker(two_classes: Pair) -> None:
    train, test = two_classes
    recipe = Recipe(epochs=2, batch_size=50, learning_rate=1e30)
    with pytest.raises(TrainingError, match="diverged"):
        fit(fresh_network("mlp:width=8", train, 0), train, recipe, seed=0, test=test)


def test_plain_training_changes_nothing(two_classes: Pair) -> None:
    plain, x, (train, _) = PlainTraining(), torch.rand(2, 3, 8, 8), two_classes
    assert all(got is own for got, own in zip(plain.prepare(train), (train.images, train.labels), strict=True))
    assert plain.batch(x, train.labels, torch.Generator())[0] is x


def test_logits_do_not_depend_on_the_batches_and_leave_the_mode_alone(two_classes: Pair) -> None:
    test = two_classes[1].subset(torch.arange(30))
    network = fresh_network("resnet:depth=8,width=16", test, 0)
    network.train()
    whole, parts = logits_of(network, test.images), logits_of(network, test.images, batch_size=7)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)
    assert whole.shape == (30, 2)
    assert network.training
    right = sum(int(row.argmax() == label) for row, label in zip(whole, test.labels, strict=True))
    assert accuracy_of(network, test) == pytest.approx(100 * right / 30, abs=1e-3)
