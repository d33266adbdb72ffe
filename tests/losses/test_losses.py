"""Losses against slow oracles, by hand, in their derivatives, and where gradients, features or logits vanish."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uge.losses.feature_distance import class_prototypes, feature_distance, misalignment
from uge.losses.gradient_matching import gradient_matching
from uge.losses.undistillation import distillation, undistillation


def draw(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(count: int, classes: int, seed: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


# --- slow oracles: the equations of the docstrings, number by number


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(v * w for v, w in zip(a, b, strict=True))
    return dot / math.sqrt(sum(v * v for v in a)) / math.sqrt(sum(v * v for v in b))


def slow_matching(clean: list[Tensor], copy: list[Tensor]) -> tuple[float, float]:
    direction = magnitude = 0.0
    for g, g_u in zip(clean, copy, strict=True):
        a, b = g.flatten().tolist(), g_u.flatten().tolist()
        length, length_u = math.sqrt(sum(v * v for v in a)), math.sqrt(sum(v * v for v in b))
        direction += 1 - cosine(a, b)
        magnitude += min((length_u - length) ** 2 / length**2, 1e4)
    return direction / len(clean), magnitude / len(clean)


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(v / temperature) for v in logits]
    return [p / sum(powers) for p in powers]


def slow_distillation(teacher: Tensor, student: Tensor, temperature: float) -> float:
    total = 0.0
    for t, s in zip(teacher.tolist(), student.tolist(), strict=True):
        pairs = zip(softmax(t, temperature), softmax(s, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return temperature**2 * total / len(teacher)


shapes_of_layers = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
sizes = {"count": st.integers(1, 6), "width": st.integers(1, 8), "classes": st.integers(2, 5)}
seeds = st.integers(0, 1000)


@given(shapes=shapes_of_layers, seed=seeds, scale=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=50, deadline=None)
def test_gradient_matching_is_what_its_equations_say(shapes: list[tuple[int, ...]], seed: int, scale: float) -> None:
    clean, copy = ([draw(*shape, seed=seed + n) for shape in shapes] for n in (0, 1))
    copy = [scale * g for g in copy]
    got, expected = gradient_matching(clean, copy, tiny=0.0), slow_matching(clean, copy)
    assert [float(term) for term in got] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(**sizes, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_feature_losses_are_what_their_equations_say(count: int, width: int, classes: int, seed: int) -> None:
    rows = (count, count, classes, 1)
    clean, copy, prototypes, (mean,) = (draw(n, width, seed=seed + place) for place, n in enumerate(rows))
    labels = labels_of(count, classes, seed)
    distance = pull = 0.0
    for i in range(count):
        seen, target = (copy[i] - mean).tolist(), prototypes[(int(labels[i]) + 1) % classes]
        distance += cosine((clean[i] - mean).tolist(), seen)
        pull += 1 - cosine(seen, (target - mean).tolist())
    assert float(feature_distance(clean, copy, mean)) == pytest.approx(distance / count, abs=1e-6)
    assert float(misalignment(copy, labels, prototypes, mean)) == pytest.approx(pull / count, abs=1e-6)


@given(**sizes | {"count": st.integers(0, 12)}, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_prototypes_are_class_means(count: int, width: int, classes: int, seed: int) -> None:
    features, labels = draw(count, width, seed=seed), labels_of(count, classes, seed)
    got = class_prototypes(features, labels, classes)
    for label in range(classes):
        members = [features[i] for i in range(count) if int(labels[i]) == label]
        torch.testing.assert_close(got[label], sum(members) / len(members) if members else torch.zeros_like(got[label]))


@given(**sizes, seed=seeds, temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]))
@settings(max_examples=50, deadline=None)
def test_distillation_is_what_its_equations_say(
    count: int, width: int, classes: int, seed: int, temperature: float
) -> None:
    teacher, student = draw(count, classes, seed=seed), draw(count, classes, seed=seed + 1)
    expected = slow_distillation(teacher, student, temperature)
    assert float(distillation(teacher, student, temperature)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(undistillation(teacher, student, temperature)) == pytest.approx(-math.log(1 + expected), abs=1e-6)


def test_values_worked_out_by_hand() -> None:
    got = gradient_matching(  # lengths 5 and 5; 1 and 3
        [torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]])], [torch.tensor([4.0, 3.0]), torch.tensor([[0.0, 3.0]])]
    )
    assert (float(got.direction), float(got.magnitude)) == pytest.approx(((1 - 24 / 25 + 1) / 2, (0 + 4) / 2))
    mean = torch.tensor([1.0, 1.0])
    clean, copy = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[1.0, 5.0], [1.0, -1.0]])
    assert float(feature_distance(clean, copy, mean)) == pytest.approx((0 + -1) / 2)
    prototypes = torch.tensor([[4.0, 5.0], [1.0, 2.0]])  # less the mean: (3, 4) and (0, 1)
    labels = torch.tensor([0, 1])  # pulled to classes 1 and 0; the copies less the mean: (0, 4) and (0, -2)
    assert float(misalignment(copy, labels, prototypes, mean)) == pytest.approx(1 - (1 - 0.8) / 2)
    # T = 2: the teacher's logits (2 ln 3, 0) give 3/4 and 1/4, the student's give 1/2 each
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(distillation(teacher, student, 2.0)) == pytest.approx(4 * kl)
    assert float(undistillation(teacher, student, 2.0)) == pytest.approx(-math.log(1 + 4 * kl))


CLEAN, MEAN, LABELS = draw(3, 4, seed=0), draw(4, seed=2), torch.tensor([0, 3, 2])
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of what is constant, and of what gets the gradients
    "matching": lambda clean, copy: torch.stack(gradient_matching([clean], [copy])),
    "distance": lambda clean, copy: feature_distance(clean, copy, MEAN),
    "misalignment": lambda clean, copy: misalignment(copy, LABELS, draw(5, 4, seed=3), MEAN),
    "undistillation": lambda teacher, student: undistillation(teacher, student, 4.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_right_and_move_the_copy_or_student_alone(name: str) -> None:
    clean, copy = CLEAN.clone().requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](CLEAN, x), copy)
    LOSSES[name](clean, copy).sum().backward()
    assert clean.grad is None and copy.grad is not None and copy.grad.abs().sum() > 0


def test_matching_has_a_second_derivative_and_distillation_moves_teachers_too() -> None:
    copy = draw(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: LOSSES["matching"](CLEAN, x), copy)
    assert torch.autograd.gradcheck(lambda t, s: distillation(t, s, 4.0), (CLEAN.clone().requires_grad_(), copy))


# --- where gradients, features or logits vanish


@pytest.mark.parametrize(
    ("clean", "copy", "direction", "magnitude"),
    [(0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1e4), (1.0, 1.0, 0.0, 0.0), (1.0, -1.0, 2.0, 0.0)],
    ids=["both zero", "copy zero", "clean zero", "equal", "opposite"],
)
def test_zero_equal_and_opposite_gradients(clean: float, copy: float, direction: float, magnitude: float) -> None:
    g, g_u = torch.full((2, 3), clean), torch.full((2, 3), copy).requires_grad_()
    got = gradient_matching([g], [g_u])
    assert [float(term.detach()) for term in got] == pytest.approx([direction, magnitude], abs=1e-5)
    assert torch.autograd.grad(got.direction + got.magnitude, g_u)[0].isfinite().all()


def test_features_equal_to_the_mean_give_zero_and_finite_gradients() -> None:
    copy = MEAN.repeat(3, 1).requires_grad_()
    for value in (
        feature_distance(CLEAN, copy, MEAN),
        feature_distance(MEAN.repeat(3, 1), copy, MEAN),
        1 - LOSSES["misalignment"](CLEAN, copy),
    ):
        assert float(value.detach()) == 0.0 and torch.autograd.grad(value, copy)[0].isfinite().all()


@pytest.mark.parametrize(("name", "value"), [("distance", 1.0), ("undistillation", 0.0)])
def test_at_the_original_or_teacher_itself_there_is_no_slope(name: str, value: float) -> None:
    """Why the generator needs a warm-up without L_gm."""
    copy = CLEAN.clone().requires_grad_()
    got = LOSSES[name](CLEAN, copy)
    assert float(got.detach()) == pytest.approx(value, abs=1e-9)
    assert torch.autograd.grad(got, copy)[0].abs().max() < 1e-12


def test_certain_and_opposed_networks_give_finite_values_and_slopes() -> None:
    teacher, student = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]).requires_grad_()
    value = undistillation(teacher, student, 1.0)
    assert float(value.detach()) == pytest.approx(-math.log(1 + 2e4), rel=1e-4)
    assert torch.autograd.grad(value, student)[0].isfinite().all()
