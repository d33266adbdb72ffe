"""The distillation loss and L_ud against a slow oracle, by hand, and at their ends."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uge.losses.undistillation import distillation, undistillation


def draw(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(v / temperature) for v in logits]
    return [p / sum(powers) for p in powers]


def oracle(teacher: Tensor, student: Tensor, temperature: float) -> float:
    total = 0.0
    for t, s in zip(teacher.tolist(), student.tolist(), strict=True):
        pairs = zip(softmax(t, temperature), softmax(s, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return temperature**2 * total / len(teacher)


@given(
    batch=st.integers(1, 5),
    classes=st.integers(1, 6),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
)
@settings(max_examples=50, deadline=None)
def test_they_are_what_their_equations_say(batch: int, classes: int, seed: int, temperature: float) -> None:
    teacher, student = draw(batch, classes, seed=seed), draw(batch, classes, seed=seed + 1)
    expected = oracle(teacher, student, temperature)
    assert float(distillation(teacher, student, temperature)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(undistillation(teacher, student, temperature)) == pytest.approx(-math.log(1 + expected), abs=1e-6)


def test_a_value_worked_out_by_hand() -> None:
    # T = 2: the teacher's logits (2 ln 3, 0) give 3/4 and 1/4, the student's give 1/2 each
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(distillation(teacher, student, 2.0)) == pytest.approx(4 * kl)
    assert float(undistillation(teacher, student, 2.0)) == pytest.approx(-math.log(1 + 4 * kl))


def test_a_high_temperature_tends_to_half_the_mean_square_of_centred_logits() -> None:
    """Hinton, Vinyals & Dean 2015, section 2.1: T² KL tends to ‖t - s‖² / 2K, so its size hardly depends on T."""
    teacher, student = draw(4, 5, seed=0), draw(4, 5, seed=1)
    gap = (teacher - teacher.mean(1, keepdim=True)) - (student - student.mean(1, keepdim=True))
    limit = float(gap.square().sum(1).mean()) / (2 * 5)
    assert float(distillation(teacher, student, 1000.0)) == pytest.approx(limit, rel=1e-2)


def test_derivatives_are_right() -> None:
    teacher, student = draw(3, 4, seed=0).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, s: distillation(t, s, 4.0), (teacher, student))
    fixed = teacher.detach()
    assert torch.autograd.gradcheck(lambda s: undistillation(fixed, s, 4.0), student)


def test_distillation_moves_both_and_undistillation_the_student_alone() -> None:
    teacher, student = draw(3, 4, seed=0).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(distillation(teacher, student, 4.0), (teacher, student)))
    undistillation(teacher, student, 4.0).backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


def test_its_slope_drives_the_student_away() -> None:
    teacher, student = draw(8, 4, seed=0), draw(8, 4, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(undistillation(teacher, student, 4.0), student)
    assert distillation(teacher, student - gradient, 4.0) > distillation(teacher, student, 4.0)


def test_equal_logits_are_at_zero_with_no_slope() -> None:
    teacher = draw(1, 4, seed=0)
    student = teacher.clone().requires_grad_()
    value = undistillation(teacher, student, 4.0)
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.grad(value, student)[0].abs().max() < 1e-12


def test_certain_and_opposed_networks_give_finite_values_and_slopes() -> None:
    teacher, student = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]).requires_grad_()
    value = undistillation(teacher, student, 1.0)
    assert float(value.detach()) == pytest.approx(-math.log(1 + 2e4), rel=1e-4)
    assert torch.autograd.grad(value, student)[0].isfinite().all()
