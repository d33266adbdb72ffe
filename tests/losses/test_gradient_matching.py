"""L_gm against a slow oracle, by hand, and where gradients vanish."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uge.losses.gradient_matching import gradient_matching

layers_of_shapes = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4
)  # biases to convolutions


def draw(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def oracle(clean: list[Tensor], copy: list[Tensor]) -> tuple[float, float]:
    """The two equations of the docstring, number by number."""
    direction = magnitude = 0.0
    for g, g_u in zip(clean, copy, strict=True):
        a, b = g.flatten().tolist(), g_u.flatten().tolist()
        length, length_u = math.sqrt(sum(v * v for v in a)), math.sqrt(sum(v * v for v in b))
        direction += 1 - sum(v * w for v, w in zip(a, b, strict=True)) / (length * length_u)
        magnitude += min((length_u - length) ** 2 / length**2, 1e4)
    return direction / len(clean), magnitude / len(clean)


@given(shapes=layers_of_shapes, seed=st.integers(0, 1000), scale=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=50, deadline=None)
def test_it_is_what_its_equations_say(shapes: list[tuple[int, ...]], seed: int, scale: float) -> None:
    clean, copy = draw(shapes, seed), [scale * g for g in draw(shapes, seed + 1)]
    direction, magnitude = oracle(clean, copy)
    got = gradient_matching(clean, copy, tiny=0.0)
    assert float(got.direction) == pytest.approx(direction, abs=1e-9)
    assert float(got.magnitude) == pytest.approx(magnitude, rel=1e-9)


def test_a_value_worked_out_by_hand() -> None:
    clean = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]])]
    copy = [torch.tensor([4.0, 3.0]), torch.tensor([[0.0, 3.0]])]
    got = gradient_matching(clean, copy)
    assert float(got.direction) == pytest.approx((1 - 24 / 25 + 1) / 2)
    assert float(got.magnitude) == pytest.approx((0 + 4) / 2)  # lengths 5 and 5; 1 and 3


def test_every_layer_weighs_the_same_whatever_its_size() -> None:
    same, opposite = torch.ones(1000), torch.ones(1)
    got = gradient_matching([same, opposite], [same, -opposite])
    assert float(got.direction) == pytest.approx(1.0)


def test_derivatives_are_right_to_second_order() -> None:
    clean = draw([(3, 2), (4,)], 0)
    copy = [g.requires_grad_() for g in draw([(3, 2), (4,)], 1)]

    def both(*gradients: Tensor) -> Tensor:
        return torch.stack(gradient_matching(clean, gradients))

    assert torch.autograd.gradcheck(both, copy)
    assert torch.autograd.gradgradcheck(both, copy)


def test_only_the_copy_gets_gradients() -> None:
    clean, copy = (torch.randn(5, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (0, 1))
    got = gradient_matching([clean], [copy])
    (got.direction + got.magnitude).backward()
    assert clean.grad is None
    assert copy.grad is not None and copy.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("clean", "copy", "direction", "magnitude"),
    [(0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1e4), (1.0, 1.0, 0.0, 0.0), (1.0, -1.0, 2.0, 0.0)],
    ids=["both zero", "copy zero", "clean zero", "equal", "opposite"],
)
def test_zero_equal_and_opposite_gradients(clean: float, copy: float, direction: float, magnitude: float) -> None:
    g, g_u = torch.full((2, 3), clean), torch.full((2, 3), copy).requires_grad_()
    got = gradient_matching([g], [g_u])
    assert float(got.direction.detach()) == pytest.approx(direction, abs=1e-5)
    assert float(got.magnitude.detach()) == pytest.approx(magnitude, abs=1e-5)
    (got.direction + got.magnitude).backward()
    assert g_u.grad is not None and g_u.grad.isfinite().all()


def test_a_real_network_on_one_image_and_on_a_constant_image() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.SiLU(), torch.nn.Linear(3, 2))
    label = torch.tensor([1])

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        loss = torch.nn.functional.cross_entropy(network(x), label)
        return torch.autograd.grad(loss, list(network.parameters()), create_graph=True)

    for image in (torch.rand(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)):
        x_u = image.clone().requires_grad_()
        same = gradient_matching(gradients(image), gradients(x_u))
        # at a black image the first layer's weights get no gradient: that layer alone is at direction 1
        assert float(same.direction.detach()) == pytest.approx(0.25 if not image.any() else 0.0, abs=1e-5)
        assert float(same.magnitude.detach()) == pytest.approx(0.0, abs=1e-6)
        assert torch.autograd.grad(same.direction + same.magnitude, x_u)[0].isfinite().all()


def test_a_layer_that_is_missing_on_one_side_is_no_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        gradient_matching([torch.ones(2)], [torch.ones(2), torch.ones(2)])
