"""How the generator of sealed copies stays able to learn, and what it expects of hackers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from uge.keys import SealedKey
from uge.protect.family import filtered
from uge.protect.letters import rendered
from uge.protect.sealed import SealedConfig, SealedProtection, smaller
from uge.training import Recipe

from ..images import in_turn, noise

pytestmark = pytest.mark.usefixtures("one_thread")


def protection(count: int = 24, classes: int = 3, **settings: Any) -> SealedProtection:
    clean = in_turn(noise(count, 3, 32, 32), *(f"class {number:02d}" for number in range(classes)))
    return SealedProtection(clean, [SealedKey.draw()], SealedConfig(width=4, **settings), seed=0)


@torch.no_grad()
def test_a_proposal_counts_by_its_shape_not_by_its_size() -> None:
    made = protection()
    pick = torch.arange(8)
    layout = made.layout(made.clean.images[:1])
    made.generator.eval()
    made.generator.last.weight.mul_(100)
    small = made._proposed(pick, layout)
    made.generator.last.weight.mul_(1e3)
    for one, other in zip(small, made._proposed(pick, layout), strict=True):
        assert (one - other).abs().mean() < 0.1  # of levels up to 2


def test_a_generator_that_has_grown_large_still_learns() -> None:
    made = protection()
    with torch.no_grad():
        made.generator.last.weight.mul_(1e3)
    pick, rng = torch.arange(8), torch.Generator().manual_seed(0)
    layout = made.layout(made.clean.images[:1])
    x_u = rendered(made.clean.images[pick], *made._proposed(pick, layout), layout, rng)
    x_u.square().mean().backward()
    gradient = made.generator.last.weight.grad
    assert gradient is not None
    relative = gradient.norm() * made.generator.last.weight.norm()
    assert relative > 1e-4  # with levels that are all the largest it would be zero


@pytest.mark.parametrize(
    ("count", "batch", "steps"), [(24, 32, 40), (300, 32, 400), (2000, 40, 2000), (6000, 64, 3760)]
)
def test_small_sets_take_smaller_batches_and_so_more_steps(count: int, batch: int, steps: int) -> None:
    made = protection(count)
    assert (made.batch_size, made.steps) == (batch, steps)


def test_a_batch_of_one_is_no_batch_for_networks_that_normalise_batches() -> None:
    """33 images of 28x28 in batches of 32: a vgg sees a single pixel of each at its end."""
    clean = in_turn(noise(33, 1, 28, 28), "one", "other")
    small = {"references": ("vgg:depth=8,width=2",), "surrogates": ("vgg:depth=8,width=2",), "width": 4}
    made = SealedProtection(clean, [SealedKey.draw()], SealedConfig(epochs=2, reference_epochs=1, **small), seed=0)
    batches = made._shuffled(torch.Generator().manual_seed(0))
    assert sorted(map(len, batches)) == [2, 32] and torch.cat(batches).unique().tolist() == [*range(33)]
    made.train()
    assert len(made.log) == made.steps


def test_names_make_a_run_another_one_as_images_do() -> None:
    made = protection()
    renamed = replace(made.clean, names=made.clean.names[::-1])
    again, other = (SealedProtection(each, made.keys, made.config, seed=0) for each in (made.clean, renamed))
    assert made.identity() == again.identity() != other.identity()


def test_filters_keep_shape_and_range_differ_from_draw_to_draw_and_let_gradients_through() -> None:
    x = torch.rand(6, 3, 16, 18, generator=torch.Generator().manual_seed(1)).requires_grad_()
    changed = set()
    for seed in range(40):
        y = filtered(x, torch.Generator().manual_seed(seed))
        assert y.shape == x.shape
        assert 0 <= float(y.detach().min()) <= float(y.detach().max()) <= 1
        assert torch.equal(y, filtered(x, torch.Generator().manual_seed(seed)))
        if not torch.equal(y, x):
            (gradient,) = torch.autograd.grad(y.sum(), x)
            assert gradient.abs().sum() > 0
        changed.add(round(float((y - x).abs().mean().detach()), 4))
    assert len(changed) > 20


def test_images_are_seen_in_another_light_each() -> None:
    x = torch.full((200, 3, 8, 8), 0.5)
    spreads = [filtered(x, torch.Generator().manual_seed(seed)).mean((1, 2, 3)).std() for seed in range(40)]
    assert 0.3 < sum(spread > 0.1 for spread in spreads) / 40 < 0.7


def test_of_more_than_ten_classes_edges_alone_are_seen_of_a_fifth_of_the_images() -> None:
    x = torch.full((200, 3, 16, 16), 0.2)
    x[..., 8:] = 0.8

    def share(edges: bool) -> float:
        seen = [filtered(x, torch.Generator().manual_seed(seed), edges=edges)[:, 1, 8] for seed in range(40)]
        left, edge, right = (row := torch.cat(seen))[:, 2], row[:, 7:9].amin(1), row[:, 13]
        return float(((left - right).abs() < 0.02).logical_and(edge > left + 0.05).float().mean())

    assert 0.1 < share(True) - share(False) < 0.3
    assert (protection(classes=10).edges, protection(classes=11).edges) == (False, True)


def test_a_recipe_for_fewer_images_has_more_steps_and_one_for_all_of_them_stays_as_it_is() -> None:
    recipe = Recipe(12, batch_size=128, learning_rate=0.1)
    assert smaller(recipe, 1.0) == recipe
    quarter = smaller(recipe, 0.25)
    assert (quarter.batch_size, quarter.learning_rate, quarter.epochs) == (32, 0.05, 12)
    assert smaller(recipe, 0.001) == quarter  # no noisier than that
