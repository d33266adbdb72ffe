"""Misdirection by hand, at its ends, and in the direction of its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from uge.losses.misdirection import misdirection


def test_a_value_worked_out_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(2), 0.0], [math.log(6), 0.0, 0.0]])  # 1/2 and 3/4 for the targets
    assert float(misdirection(logits, torch.tensor([1, 0]))) == pytest.approx((-math.log(0.5) - math.log(0.75)) / 2)


def test_it_is_zero_where_the_target_is_seen_and_large_where_another_class_is() -> None:
    sure = torch.tensor([[0.0, 100.0, 0.0]])
    assert float(misdirection(sure, torch.tensor([1]))) == pytest.approx(0, abs=1e-6)
    assert float(misdirection(sure, torch.tensor([2]))) == pytest.approx(100)


def test_its_gradient_reaches_the_image_and_is_right() -> None:
    weights = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets = torch.tensor([1, 0, 2])
    assert torch.autograd.gradcheck(lambda image: misdirection(image @ weights.T, targets), (x,))
