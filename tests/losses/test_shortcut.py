"""The shortcut loss by hand, at its ends, and in the direction of its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from uge.losses.shortcut import shortcut


def test_a_value_worked_out_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # 3/4 and 1/2 for the right label
    assert float(shortcut(logits, torch.tensor([0, 1]))) == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)


def test_it_is_zero_for_a_hacker_who_is_sure_and_right_and_large_for_one_who_is_wrong() -> None:
    sure = torch.tensor([[100.0, 0.0]])
    assert float(shortcut(sure, torch.tensor([0]))) == pytest.approx(0, abs=1e-6)
    assert float(shortcut(sure, torch.tensor([1]))) == pytest.approx(100)


def test_its_gradient_reaches_the_image_and_is_right() -> None:
    weights = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda image: shortcut(image @ weights.T, labels), (x,))
