"""L_fd, misalignment and class prototypes against slow oracles, by hand, and where features meet their mean."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uge.losses.feature_distance import class_prototypes, feature_distance, misalignment

sizes = {"batch": st.integers(1, 6), "width": st.integers(1, 8), "seed": st.integers(0, 1000)}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(v * w for v, w in zip(a, b, strict=True))
    return dot / math.sqrt(sum(v * v for v in a)) / math.sqrt(sum(v * v for v in b))


def centred(row: Tensor, mean: Tensor) -> list[float]:
    return [v - m for v, m in zip(row.tolist(), mean.tolist(), strict=True)]


@given(**sizes)
@settings(max_examples=50, deadline=None)
def test_distance_is_what_its_equation_says(batch: int, width: int, seed: int) -> None:
    clean, copy, mean = (draw(batch, width, seed=seed), draw(batch, width, seed=seed + 1), draw(width, seed=seed + 2))
    expected = sum(cosine(centred(clean[i], mean), centred(copy[i], mean)) for i in range(batch)) / batch
    assert float(feature_distance(clean, copy, mean)) == pytest.approx(expected, abs=1e-6)


@given(**sizes, classes=st.integers(2, 5))
@settings(max_examples=50, deadline=None)
def test_misalignment_is_what_its_equation_says(batch: int, width: int, seed: int, classes: int) -> None:
    copy, prototypes, mean = (
        draw(batch, width, seed=seed),
        draw(classes, width, seed=seed + 1),
        draw(width, seed=seed + 2),
    )
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for i in range(batch):
        target = (int(labels[i]) + 1) % classes
        expected += 1 - cosine(centred(copy[i], mean), centred(prototypes[target], mean))
    assert float(misalignment(copy, labels, prototypes, mean)) == pytest.approx(expected / batch, abs=1e-6)


@given(count=st.integers(0, 12), width=st.integers(1, 4), classes=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_prototypes_are_class_means(count: int, width: int, classes: int, seed: int) -> None:
    features = draw(count, width, seed=seed)
    labels = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))
    got = class_prototypes(features, labels, classes)
    assert got.shape == (classes, width)
    for label in range(classes):
        members = [features[i] for i in range(count) if int(labels[i]) == label]
        expected = sum(members) / len(members) if members else torch.zeros(width, dtype=torch.float64)
        torch.testing.assert_close(got[label], expected)


def test_values_worked_out_by_hand() -> None:
    mean = torch.tensor([1.0, 1.0])
    clean, copy = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[1.0, 5.0], [1.0, -1.0]])
    assert float(feature_distance(clean, copy, mean)) == pytest.approx((0 + -1) / 2)
    prototypes = torch.tensor([[4.0, 5.0], [1.0, 2.0]])  # less the mean: (3, 4) and (0, 1)
    labels = torch.tensor([0, 1])  # pulled to classes 1 and 0; the copies less the mean: (0, 4) and (0, -2)
    assert float(misalignment(copy, labels, prototypes, mean)) == pytest.approx(1 - (1 - 0.8) / 2)


def test_equal_is_one_and_opposite_is_minus_one() -> None:
    clean, mean = draw(4, 6, seed=0), draw(6, seed=1)
    assert float(feature_distance(clean, clean, mean)) == pytest.approx(1.0)
    assert float(feature_distance(clean, 2 * mean - clean, mean)) == pytest.approx(-1.0)


def test_derivatives_are_right() -> None:
    clean, copy, mean = draw(3, 4, seed=0), draw(3, 4, seed=1).requires_grad_(), draw(4, seed=2)
    prototypes, labels = draw(5, 4, seed=3), torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda c: feature_distance(clean, c, mean), copy)
    assert torch.autograd.gradcheck(lambda c: misalignment(c, labels, prototypes, mean), copy)


def test_originals_get_no_gradient_and_the_copy_does() -> None:
    clean, copy = draw(3, 4, seed=0).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    feature_distance(clean, copy, draw(4, seed=2)).backward()
    assert clean.grad is None
    assert copy.grad is not None and copy.grad.abs().sum() > 0


def test_features_equal_to_the_mean_give_zero_and_finite_gradients() -> None:
    mean = draw(4, seed=0)
    copy = mean.repeat(2, 1).requires_grad_()
    for value in (
        feature_distance(draw(2, 4, seed=1), copy, mean),
        feature_distance(mean.repeat(2, 1), copy, mean),
        1 - misalignment(copy, torch.tensor([0, 1]), draw(2, 4, seed=2), mean),
    ):
        assert float(value.detach()) == 0.0
        (gradient,) = torch.autograd.grad(value, copy)
        assert gradient.isfinite().all()


def test_at_the_original_itself_there_is_no_slope() -> None:
    """Why the generator needs a warm-up without L_gm."""
    clean = draw(3, 4, seed=0)
    copy = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(feature_distance(clean, copy, draw(4, seed=1)), copy)
    assert gradient.abs().max() < 1e-12
