"""Cells and the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from uge.attack import why_unfit
from uge.audit.plan import AUTHORISED, Cell, Hackers, Plan, cells_of, grid, named_plans, possible, read_plan
from uge.errors import ConfigError

from ..images import in_turn, noise


def test_a_cell_says_what_its_hacker_knows_besides_his_counter_measure() -> None:
    mine = partial(Cell, "hacker", AUTHORISED)
    assert Cell(AUTHORISED).knows == mine("noisy-key:0.1").knows == "key"
    assert Cell("hacker", "vgg").knows == Cell("hacker", "vgg", "pretrained-probe").knows == "nothing"
    assert mine().knows == mine("jpeg:30+cutmix").knows == mine("wrong-key").knows == "architecture"
    assert mine("distillation").knows == Cell("hacker", "vgg", "distillation+cutmix").knows == "model outputs"
    assert mine("jpeg:30+clean-mixed").knows == Cell("hacker", "vgg", "refit:20").knows == "clean images"
    with pytest.raises(ConfigError, match="unknown counter-measure 'denoise'"):
        _ = Cell("hacker", "vgg", "denoise").knows


def test_the_grid_holds_every_hacker_on_both_sources_after_the_authorised() -> None:
    cells = grid([("vgg", "none"), (AUTHORISED, "none"), ("mlp", "distillation:hard")], [3, 5])
    assert len(cells) == len(set(cells)) == 2 * 2 * 4
    for seed in (3, 5):
        for source in ("published", "clean"):
            block = [cell for cell in cells if (cell.seed, cell.trained_on) == (seed, source)]
            assert [(cell.role, cell.network, cell.countermeasure) for cell in block] == [
                (AUTHORISED, AUTHORISED, "none"),
                ("hacker", "vgg", "none"),
                ("hacker", AUTHORISED, "none"),
                ("hacker", "mlp", "distillation:hard"),
            ]


def test_a_whole_budget_names_a_cell_as_it_always_did() -> None:
    assert "budget" not in Cell("hacker", "vgg").to_dict()
    assert Cell("hacker", "vgg", budget=2.0).to_dict()["budget"] == 2.0


@pytest.mark.parametrize("plan", named_plans().values(), ids=named_plans().keys())
def test_what_needs_something_missing_is_left_out_and_named(plan: Plan) -> None:
    everything, nothing_skipped = possible(plan, key=True, clean=True)
    assert nothing_skipped == [] and everything == plan.pairs()
    chosen, skipped = possible(plan, key=False, clean=False, unfit=lambda how: "gray already" * (how == "grayscale"))
    assert len(chosen) + len(skipped) == len(everything) and chosen
    for network, how in chosen:
        assert network != AUTHORISED and "distillation" not in how and "clean" not in how and how != "grayscale"
    assert {each["why"] for each in skipped} >= {"needs --key", "needs --clean"}
    cells = cells_of(plan, chosen, lambda cell: {"peak_accuracy": 0.0}, key=False, originals=0)
    assert {cell.role for cell in cells} == {"hacker"} and {cell.trained_on for cell in cells} == {"published"}


def oracle(strength: dict[tuple[str, str], float]) -> Callable[[Cell], dict[str, float]]:
    """Rows as if every cell had been trained."""

    def row_of(cell: Cell) -> dict[str, float]:
        reached = strength.get((cell.network, cell.countermeasure), 0.0)
        return {"accuracy": reached, "peak_accuracy": reached}

    return row_of


PAIRS = [(network, how) for how in ("none", "grayscale", "blur:1", "cutmix", "mixup") for network in ("vgg", "mlp")]
STRENGTH = {("vgg", "none"): 40.0, ("mlp", "grayscale"): 60.0, ("vgg", "grayscale"): 55.0, ("vgg", "cutmix"): 50.0}
BLOCK = Hackers(("vgg", "mlp"), ("none", "grayscale", "blur:1", "cutmix", "mixup"))


def test_only_the_strongest_get_more_seeds_and_only_when_all_are_known() -> None:
    plan = Plan("mine", (BLOCK,), strongest=2, more_seeds=(1, 2))
    early = cells_of(plan, PAIRS, lambda cell: None, key=True, originals=10)
    assert {cell.seed for cell in early} == {0} and len(early) == 2 * (1 + len(PAIRS))
    late = cells_of(plan, PAIRS, oracle(STRENGTH), key=True, originals=10)
    assert late[: len(early)] == early
    more = [cell for cell in late if cell.seed]
    strongest = {("mlp", "grayscale"), ("vgg", "grayscale")}
    assert {(cell.network, cell.countermeasure) for cell in more if cell.role == "hacker"} == strongest
    assert sum(cell.role == AUTHORISED for cell in more) == 4  # both seeds, on the copy and on the originals
    assert len(more) == 2 * 2 * 3


def test_the_strongest_are_trained_on_subsets_of_the_originals_to_say_what_the_copy_is_worth() -> None:
    block = Hackers(("vgg", "mlp"), ("none", "relabel+blur:1", "clean-mixed:9", "distillation:soft"))
    plan = Plan("mine", (block, Hackers(("vgg",), ("pretrained-probe",))), subsets=2)
    strength = {("mlp", "none"): 40.0, ("vgg", "relabel+blur:1"): 60.0, ("vgg", "distillation:soft"): 70.0}
    strength |= {("mlp", "clean-mixed:9"): 80.0, ("vgg", "pretrained-probe"): 90.0}
    cells = cells_of(plan, plan.pairs(), oracle(strength), key=True, originals=150)
    parts = [cell for cell in cells if cell.originals]
    assert {cell.trained_on for cell in parts} == {"clean"} and len(parts) == len(set(parts)) == 3 * 2 * 2
    assert {(cell.originals, cell.seed) for cell in parts} == {(50, 0), (50, 1), (100, 0), (100, 1)}
    asked = {("mlp", "none"), ("vgg", "blur:1"), ("vgg", "pretrained-probe")}  # those with the copy alone
    assert {(cell.network, cell.countermeasure) for cell in parts} == asked
    whole = {(c.network, c.countermeasure) for c in cells if (c.trained_on, c.seed, c.originals) == ("clean", 1, 0)}
    assert whole == asked  # all originals are the end of the curve
    without = cells_of(replace(plan, subsets=0), plan.pairs(), oracle(strength), key=True, originals=150)
    assert [cell for cell in cells if cell in without] == without
    few = cells_of(plan, plan.pairs(), oracle(strength), key=True, originals=40)
    assert not any(cell.originals for cell in few)


def test_twice_the_budget_is_checked_on_the_originals_alone() -> None:
    plan = Plan("mine", (BLOCK,), budget_check=True, seeds=(4, 5))
    double = [cell for cell in cells_of(plan, PAIRS, lambda cell: None, key=True, originals=10) if cell.budget == 2]
    assert {(cell.trained_on, cell.seed) for cell in double} == {("clean", 4)}
    assert len(double) == len(PAIRS) + 1  # the authorised network, too
    without = cells_of(plan, PAIRS, lambda cell: None, key=True, originals=0)
    assert {(cell.trained_on, cell.budget) for cell in without} == {("published", 1.0)}


def test_an_encoder_that_takes_every_networks_place_is_tried_once() -> None:
    plan = Plan("mine", (Hackers(("vgg", "mlp"), ("pretrained-probe", "none")),))
    chosen, _ = possible(plan, key=False, clean=False)
    assert chosen == [("vgg", "pretrained-probe"), ("vgg", "none"), ("mlp", "none")]
    images = in_turn(noise(1, 1, 4, 4), "a")
    why = why_unfit("pretrained-probe:efficientnet-lite7", images)
    assert why == "the weights of efficientnet-lite7 are not installed"
    assert not why_unfit("pretrained-probe", images)


def test_who_asks_for_more_originals_than_there_are_is_left_out() -> None:
    few = in_turn(noise(60, 3, 8, 8), "a", "b")
    for how in ("clean-mixed", "refit:61", "jpeg:30+clean-only:500", "pairs:100"):
        assert why_unfit(how, few, clean=few) == "there are only 60 originals"
    assert why_unfit("clean-mixed:60", few, clean=few) == why_unfit("clean-only:500", few) == ""


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "epochs = 12\nseeds = [0, 1]\nceilings = false\nbudget = 60\n"
        '[[hackers]]\nnetworks = ["vgg"]\ncountermeasures = ["none", "jpeg:30+cutmix"]\n'
        '[[hackers]]\nnetworks = ["authorised"]\n'
    )
    plan = read_plan(str(file))
    assert (plan.name, plan.epochs, plan.seeds, plan.ceilings, plan.budget) == ("mine", 12, (0, 1), False, 60)
    assert plan.pairs() == [("vgg", "none"), ("vgg", "jpeg:30+cutmix"), (AUTHORISED, "none")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", r"has no \[\[hackers\]\]"),
        ("epoch = 3", "unknown entry of a plan 'epoch'; did you mean 'epochs'"),
        ('epochs = "3"', "epochs: Expected int, got str"),
        ("seeds = []\n[[hackers]]\nnetworks = ['vgg']", "must be one or more"),
        ("key_epochs = -1\n[[hackers]]\nnetworks = ['vgg']", "strongest, subsets and budget must not be negative"),
        ("[[hackers]]\nnetworks = ['vggg']", "unknown network 'vggg'; did you mean 'vgg'"),
        ("[[hackers]]\nnetworks = ['vgg']\ncountermeasures = ['gray']", "unknown counter-measure 'gray'"),
        ("[[hackers]]\nnetworks = 'vgg'", r"hackers\[0\].networks: Expected array, got str"),
        ("[[hackers]]\ncountermeasures = ['none']", r"hackers\[0\]: Object missing required field networks"),
        ("[[hackers]]\nnetwork = ['vgg']", "unknown entry of"),
        ("epochs = ", "is no TOML file"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_plan(str(file))


def test_nobody_relabels_the_originals() -> None:
    plan = Plan("mine", (Hackers(("vgg",), ("relabel", "relabel+blur:1")),), budget_check=True)
    cells = cells_of(plan, plan.pairs(), lambda cell: None, key=False, originals=10)
    assert [(cell.countermeasure, cell.trained_on, cell.budget) for cell in cells] == [
        ("relabel", "published", 1.0),
        ("relabel+blur:1", "published", 1.0),
        ("none", "clean", 1.0),
        ("blur:1", "clean", 1.0),
        ("none", "clean", 2.0),
        ("blur:1", "clean", 2.0),
    ]


def test_the_keys_network_by_another_name_is_one_hacker() -> None:
    plan = Plan("mine", (Hackers((AUTHORISED, "vgg", "mlp")), Hackers(("vgg",), ("blur:1",))))
    chosen, _ = possible(plan, key=True, clean=False, twin=lambda network: network == "vgg")
    assert chosen == [(AUTHORISED, "none"), ("mlp", "none"), (AUTHORISED, "blur:1")]
