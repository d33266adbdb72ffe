"""The generator keeps its bound, whatever the image, and asks the label only where it may."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.data.images import to_float, to_uint8
from uge.protect.generator import Generator


def saturated(generator: Generator) -> Generator:
    """With weights so large that tanh is at its ends nearly everywhere."""
    with torch.no_grad():
        generator.propose.weight.mul_(1e4)
    return generator


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(4, 17),
    width=st.integers(4, 17),
    epsilon=st.sampled_from([1, 2, 8, 31, 32, 128]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_copies_stay_within_the_bound_after_rounding_and_use_it(
    channels: int, height: int, width: int, epsilon: int, seed: int
) -> None:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8, generator=source)
    images[0], images[1] = 0, 255  # black and white, where the perturbation must be cut
    generator = saturated(Generator(channels, 2, epsilon, width=4))
    with torch.no_grad():
        x_u = generator(to_float(images), torch.zeros(3, dtype=torch.int64))
    assert x_u.shape == images.shape and x_u.min() >= 0 and x_u.max() <= 1
    gap = (to_uint8(x_u).int() - images.int()).abs()
    assert gap.max() <= epsilon
    assert gap.float().mean() > 0.05 * epsilon  # saturated, so far from no perturbation at all


def test_every_8_bit_value_reaches_plus_and_minus_epsilon() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for epsilon in range(1, 129):
        for sign in (-1.0, 1.0):
            x_u = (to_float(values) + sign * epsilon / 255).clamp(0, 1)
            assert torch.equal(to_uint8(x_u).int(), (values.int() + int(sign) * epsilon).clamp(0, 255))


@pytest.mark.parametrize("label_conditional", [False, True])
def test_labels_matter_only_where_they_may(label_conditional: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(1, 3, 16, width=4, label_conditional=label_conditional)
    x = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (generator.perturbation(x, torch.tensor(labels)) for labels in ([0, 1], [2, 1]))
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0], other[0]) is not label_conditional


def test_a_copy_depends_on_its_own_image_alone() -> None:
    generator = Generator(3, 2, 16, width=4)
    x, y = torch.rand(5, 3, 12, 14), torch.zeros(5, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(generator(x, y)[2:3], generator(x[2:3], y[2:3]), rtol=0, atol=1e-6)
