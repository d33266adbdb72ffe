"""The search with a budget: what it finds, what it spends, and that a larger one goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from uge.audit.conduct import foreseen
from uge.audit.plan import AUTHORISED, Cell, Hacker, Hackers, Plan, named_plans
from uge.audit.search import RUNGS, ranking
from uge.audit.search import decide as decided

HOWS = ("none", "grayscale", "blur:1", "cutmix", "mixup", "jpeg:10", "pool:2", "adversarial", "sobel", "chroma")
MORE = ("clean-mixed:9", "refit:9", "distillation:soft", "distillation:hard", "pretrained-probe", "stolen-key")
PLAN = Plan(
    "mine",
    (Hackers(("vgg", "mlp", AUTHORISED), HOWS), Hackers(("vgg",), MORE)),
    strongest=2,
    more_seeds=(1, 2),
    budget=60,
)


class World:
    """An audit without trainings: how much each hacker learns and what an epoch costs is written down."""

    def __init__(self, best: dict[Hacker, float], cost: Callable[[Cell], float] = lambda cell: cell.budget) -> None:
        self.best, self.cost = best, cost
        self.rows: dict[Cell, dict[str, Any]] = {}

    def seconds(self, cell: Cell) -> float:
        return self.cost(cell) * (cell.originals / 300 if cell.originals else 1)

    def audit(self, plan: Plan, stop: int = 10**6) -> tuple[list[Cell], list[Hacker]]:
        """Train what is decided until nothing is added, or `stop` cells are trained."""
        while True:
            found = decided(plan, plan.pairs(), self.rows.get, self.seconds, key=True, originals=300)
            missing = [cell for cell in found.cells if cell not in self.rows]
            for cell in missing:
                if stop <= len(self.rows):
                    return found.cells, found.following
                reached = self.best.get((cell.network, cell.countermeasure), 20.0) * (0.5 + 0.5 * min(1, cell.budget))
                self.rows[cell] = {"accuracy": reached, "peak_accuracy": reached, "seconds": self.seconds(cell)}
            if not missing:
                return found.cells, found.following

    def spent(self) -> float:
        return sum(map(self.seconds, self.rows))


def tried(cells: list[Cell], budget: float = 1.0) -> set[Hacker]:
    return {(c.network, c.countermeasure) for c in cells if (c.trained_on, c.budget) == ("published", budget)}


BEST = {("mlp", "cutmix"): 50.0, ("vgg", "cutmix"): 45.0, ("vgg", "blur:1"): 40.0, ("vgg", "cutmix+blur:1"): 47.0}
BEST |= {("mlp", "cutmix+blur:1"): 60.0, ("vgg", "distillation:soft"): 90.0}


def test_it_ends_within_its_budget_and_says_who_would_be_next() -> None:
    for budget in (3, 10, 20, 40):
        world = World(BEST)
        cells, following = world.audit(PLAN.within(budget))
        assert world.spent() <= max(budget, 2) and following
        assert set(cells) == set(world.rows) and ("vgg", "stolen-key") not in following


def test_with_time_enough_everybody_is_tried_and_the_best_are_combined_and_change_networks() -> None:
    world = World(BEST)
    cells, following = world.audit(PLAN.within(10_000))
    assert following == []
    speaking = {who for who in PLAN.pairs() if who[1] != "stolen-key"}  # the others are controls
    assert speaking <= tried(cells, RUNGS[0]) | tried(cells)
    assert ("mlp", "cutmix+blur:1") in tried(cells) and ("vgg", "distillation:soft") in tried(cells)


def test_a_quarter_of_the_time_of_all_finds_a_hacker_within_two_points_of_the_strongest() -> None:
    full, world = World(BEST), World(BEST)
    full.audit(replace(PLAN, budget=0.0, budget_check=True))
    cells, _ = world.audit(PLAN.within(full.spent() / 4))
    alone = [BEST.get(who, 20.0) for who in tried(cells) if "distillation" not in who[1]]
    assert max(alone) >= max(BEST[who] for who in PLAN.pairs() if who in BEST and "distillation" not in who[1]) - 2


def test_a_larger_budget_goes_on_and_trains_nothing_twice() -> None:
    world, straight = World(BEST), World(BEST)
    world.audit(PLAN.within(12))
    small = dict(world.rows)
    cells, _ = world.audit(PLAN.within(60))
    assert small.items() <= world.rows.items()
    assert set(cells) == set(straight.audit(PLAN.within(60))[0]) | (set(cells) & set(small))


@pytest.mark.parametrize("stop", [1, 7, 20, 35])
def test_killed_anywhere_it_ends_as_if_it_had_not_been(stop: int) -> None:
    calm, killed = World(BEST), World(BEST)
    expected = calm.audit(PLAN)
    for count in itertools.count(stop, stop):
        found = killed.audit(PLAN, stop=count)
        if len(killed.rows) < count:
            break
    assert found == expected and killed.rows == calm.rows


def test_the_strongest_gets_a_ceiling_seeds_and_a_curve() -> None:
    cells, _ = World(BEST).audit(PLAN.within(200))
    leader = ("vgg", "distillation:soft")
    assert {c.seed for c in cells if (c.network, c.countermeasure, c.trained_on) == (*leader, "published")} == {0, 1, 2}
    assert Cell("hacker", *leader, trained_on="clean", budget=2.0) in cells
    assert {cell.originals for cell in cells} == {0, 50, 100, 200}
    assert {(c.seed, c.trained_on) for c in cells if c.role == AUTHORISED} >= {(0, "clean"), (1, "published")}


def test_students_come_after_the_network_that_they_ask() -> None:
    world = World(BEST)
    for budget in (4, 15, 60, 200):
        cells, _ = world.audit(PLAN.within(budget))
        for cell in cells:
            if "distillation" in cell.countermeasure:
                assert Cell(AUTHORISED, seed=cell.seed, trained_on=cell.trained_on) in cells


def test_who_does_most_before_the_first_step_is_trained_whole_at_once() -> None:
    cells, _ = World(BEST).audit(PLAN.within(10_000))
    budgets = {cell.budget for cell in cells if cell.countermeasure == "pretrained-probe" and cell.seed == 0}
    assert budgets <= {1.0, 2.0} and {cell.budget for cell in cells} > set(RUNGS)


def test_an_encoder_takes_no_place_of_who_has_the_copy_alone() -> None:
    plan = replace(PLAN, hackers=(Hackers(("vgg",), ("none", "adversarial", "pretrained-probe", "refit:9")),))
    cells, _ = World({("vgg", "pretrained-probe"): 95.0, ("vgg", "adversarial"): 60.0}).audit(plan)
    assert ("vgg", "adversarial") in tried(cells)
    assert {cell.countermeasure for cell in cells if cell.originals} == {"none", "adversarial", "pretrained-probe"}


def test_who_costs_more_than_is_left_does_not_end_the_search() -> None:
    world = World(BEST, lambda cell: 500.0 if cell.countermeasure == "adversarial" else cell.budget)
    cells, following = world.audit(PLAN.within(60))
    assert "adversarial" not in {how for _, how in tried(cells, RUNGS[0])}
    assert following[0][1] == "adversarial" and ("mlp", "cutmix") in tried(cells, RUNGS[0])


def test_who_takes_many_trainings_to_try_waits_for_who_takes_one() -> None:
    order = [cell.countermeasure for cell in World({}).audit(named_plans()["worst-case"].within(300))[0]]
    assert ranking()["pairs:500"] > ranking()["jpeg:10"] and order.index("pairs:500") > order.index("jpeg:10")


def test_what_is_foreseen_is_within_the_budget() -> None:
    world = World({})
    cells = foreseen(PLAN.within(30), PLAN.pairs(), world.seconds, key=True, originals=300)
    assert 20 < sum(map(world.seconds, cells)) <= 30


def test_the_ranking_knows_most_counter_measures_of_the_worst_case() -> None:
    ranks = ranking()
    assert all(0 <= rank <= 1 for rank in ranks.values()) and list(ranks.values()) == sorted(ranks.values())[::-1]
    hows = {how for _, how in named_plans()["worst-case"].pairs()}
    assert len(hows & set(ranks)) > len(hows) / 2
