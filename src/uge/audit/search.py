"""Worst first: what an audit with a budget trains, so that the strongest hacker is found early.

Successive halving in waves (Jamieson & Talwalkar 2016): each wave tries some hackers for few epochs, a third of all who
were tried goes on to the next rung, and a third of those to whole trainings. The order comes from committed records,
then from what this audit has found: the best counter-measures are combined, and tried with other networks. A part of
the budget is kept for what makes the strongest hacker evidence: his ceiling, more seeds, and what the copy is worth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import combinations, islice, pairwise

from uge.attack import (
    amount_of,
    build_countermeasure,
    by_epochs,
    cost_of,
    encoder_of,
    needs_clean,
    needs_key,
    needs_teacher,
)
from uge.audit.plan import AUTHORISED, Cell, Hacker, Plan, Row, ceiling_of, cells_of, curve_of, is_control, worth_asking
from uge.errors import UgeError
from uge.records import without_copy

RUNGS = (0.1, 0.3, 1.0)  # shares of the epochs
KEEP = 3  # one of so many goes on to the next rung
WAVE = 9
MIXES, OTHERS = 2, 2  # of a wave: combinations of the best, and the best with another network
BEST = 6  # counter-measures that are combined
CLOSING = 0.5  # at most this share of the budget is kept for what follows the search
UNKNOWN = 0.5  # the rank of what no record knows
PATIENCE = 0.05  # of rank: who takes a plain training longer to try waits for who ranks so much below


@dataclass(frozen=True)
class Decision:
    """What an audit trains, as far as its rows decide it.

    Attributes:
        cells: all that are decided by now.
        following: whom a larger budget would try next; empty where everybody was tried, or while trainings are missing.
    """

    cells: list[Cell]
    following: list[Hacker]


def decide(
    plan: Plan,
    hackers: Sequence[Hacker],
    row_of: Callable[[Cell], Row | None],
    seconds: Callable[[Cell], float],
    *,
    key: bool,
    originals: int,
) -> Decision:
    """The cells of any plan that are decided by now; ask again when all are trained, until nothing is added.

    The answer depends on the rows and on the time that cells take, so that an audit which was killed goes on. A plan
    with a budget is searched, all of another is trained; the arguments are those of `cells_of`, and `seconds`: what a
    cell took, or will take.
    """
    if not plan.budget:
        return Decision(cells_of(plan, hackers, row_of, key=key, originals=originals), [])
    return _Search(plan, hackers, cache(row_of), cache(seconds), key, originals).decide()


@dataclass(eq=False)
class _Search:
    plan: Plan
    hackers: Sequence[Hacker]
    row_of: Callable[[Cell], Row | None]
    seconds: Callable[[Cell], float]
    key: bool
    originals: int

    def __post_init__(self) -> None:
        self.seed = self.plan.seeds[0]
        self.queue = _best_first(self.hackers)
        self.networks = list(dict.fromkeys(network for network, _ in self.hackers))
        self.cells: dict[Cell, None] = {}  # in the order of their decision
        self.tried: list[Hacker] = []

    def decide(self) -> Decision:
        skipped: dict[Hacker, None] = {}
        for number, stage in enumerate(self.stages()):
            known = number == 0 or self.trained(stage)  # without the first there is nothing to say
            reserve = 0.0 if known else self.reserve()
            for cell in stage:
                if known or self.affordable([cell], reserve):
                    self.take([cell])
            if not self.trained(self.cells):
                return Decision([*self.cells], [])
            left = [cell for cell in stage if cell not in self.cells]
            skipped |= dict.fromkeys(map(_who, left))
            if stage and len(left) == len(stage):
                break
        for block in self.closing():
            if self.affordable(block, 0.0):
                self.take(block)
        following = [*dict.fromkeys([*skipped, *self.untried()])]
        return Decision([*self.cells], following if self.trained(self.cells) else [])

    def take(self, cells: Sequence[Cell]) -> None:
        self.cells |= dict.fromkeys(cells)

    def trained(self, cells: Iterable[Cell]) -> bool:
        return all(self.row_of(cell) is not None for cell in cells)

    def affordable(self, cells: Sequence[Cell], reserve: float) -> bool:
        """Whether the budget has room for cells besides those taken and a reserve; what is trained costs no more."""
        missing = [cell for cell in cells if cell not in self.cells and self.row_of(cell) is None]
        if not missing:
            return True
        spent = sum(map(self.seconds, self.cells))
        return spent + sum(map(self.seconds, missing)) <= self.plan.budget - reserve

    def reserve(self) -> float:
        """What the end of the audit will take, if the search ended now."""
        cells = {cell for block in self.closing() for cell in block if cell not in self.cells}
        return min(CLOSING * self.plan.budget, sum(map(self.seconds, cells)))

    # -- the search ------------------------------------------------------------------------------------------------

    def stages(self) -> Iterator[list[Cell]]:
        """Cells that can be decided together; the next stage is asked for when they are trained."""
        plain = [who for who in self.queue if who[1] == "none"][:1]
        yield [*self.recipient(), *(self.cell(who) for who in plain)]
        while wave := self.wave():
            self.tried += wave
            yield [self.cell(who, RUNGS[0]) for who in wave]
            for low, high in pairwise(RUNGS):
                yield [self.cell(who, high) for who in self.promoted(low)]

    def recipient(self) -> list[Cell]:
        return [Cell(AUTHORISED, seed=self.seed)] if self.key else []

    def cell(self, who: Hacker, budget: float = 1.0) -> Cell:
        """On a rung; who would not be sooner ready with fewer epochs is trained whole at once."""
        return Cell("hacker", *who, seed=self.seed, budget=budget if _by_epochs(who[1]) else 1.0)

    def untried(self) -> list[Hacker]:
        return [who for who in self.queue if who not in self.tried]

    def wave(self) -> list[Hacker]:
        """The next to try: children of the best, then the rest in order."""
        born = [*islice(self.mixes(), MIXES), *islice(self.others(), OTHERS)]
        return [*born, *(who for who in self.untried() if who not in born)][:WAVE]

    def ranked(self, rung: float) -> list[Hacker]:
        """Who was trained up to a rung, the strongest first, by the peak: it favours the hacker."""
        found = [who for who in self.tried if self.cell(who, rung) in self.cells]
        return sorted(found, key=lambda who: -self.reached(self.cell(who, rung), "peak_accuracy"))

    def reached(self, cell: Cell, what: str = "accuracy") -> float:
        return float((self.row_of(cell) or {}).get(what, 0.0))

    def promoted(self, rung: float) -> list[Hacker]:
        """A third of each kind of hacker, so that no student or encoder takes the place of who has the copy alone."""
        kinds: dict[str, list[Hacker]] = {}
        for who in self.ranked(rung):
            kinds.setdefault(_kind(who[1]), []).append(who)
        return [who for kind in kinds.values() for who in kind[: math.ceil(len(kind) / KEEP)]]

    def mixes(self) -> Iterator[Hacker]:
        """Pairs of the best counter-measures that nobody tried yet, with the network of the better one."""
        known = {how for _, how in self.tried}
        best: dict[str, str] = {}  # counter-measure -> network
        for network, how in self.ranked(RUNGS[0]):
            if how != "none" and "+" not in how and _kind(how) in ("", "encoder"):
                best.setdefault(how, network)
        names = list(best)[:BEST]
        places = sorted(combinations(range(len(names)), 2), key=lambda pair: (pair[1], pair[0]))  # best pairs first
        for one, other in ((names[one], names[other]) for one, other in places):
            if not known & {f"{one}+{other}", f"{other}+{one}"} and fit_together(one, other):
                yield best[one], f"{one}+{other}"

    def others(self) -> Iterator[Hacker]:
        """The best counter-measures with networks that did not try them yet."""
        for _, how in self.ranked(RUNGS[1]):
            for network in self.networks:
                if not encoder_of(how) and not needs_key(how) and (network, how) not in self.tried:
                    yield network, how

    # -- what follows it -------------------------------------------------------------------------------------------

    def closing(self) -> Iterator[list[Cell]]:
        """What makes the strongest evidence, the most important first; each list is trained whole or not at all."""
        for cells in self.evidence():
            students = [cell for cell in cells if needs_teacher(cell.countermeasure)]
            yield [*(Cell(AUTHORISED, seed=cell.seed, trained_on=cell.trained_on) for cell in students), *cells]

    def evidence(self) -> Iterator[list[Cell]]:
        """The lists of `closing`, without the networks that students query."""
        leaders = self.leaders()
        clean = self.originals > 0 and self.plan.ceilings
        ceilings = {who: ceiling_of(who, self.seed) for who in leaders}
        if clean and self.key:
            yield [replace(cell, trained_on="clean") for cell in self.recipient()]
        if clean:
            yield from ([ceilings[who]] for who in leaders[:1])
            yield from self.curves(0)
        for seed in self.plan.more_seeds:
            yield [replace(cell, seed=seed) for cell in (*self.recipient(), *map(self.cell, leaders[:1]))]
        if clean:
            yield from ([ceilings[who], replace(ceilings[who], budget=2.0)] for who in leaders[: self.plan.strongest])
            for subset in range(1, self.plan.subsets):
                yield from self.curves(subset)
            yield from ([cell] for who in leaders[: self.plan.strongest] for cell in self.levels(who))
        for who in leaders[1 : self.plan.strongest]:
            yield [replace(self.cell(who), seed=seed) for seed in self.plan.more_seeds]
        if clean:
            yield from ([ceilings[who], replace(ceilings[who], budget=2.0)] for who in leaders[self.plan.strongest :])

    def leaders(self) -> list[Hacker]:
        """Who was trained in full, the strongest first; before anybody was, the first plain hacker."""
        whole = [_who(cell) for cell in self.cells if cell == self.cell(_who(cell))]
        return sorted(whole, key=lambda who: -self.reached(self.cell(who)))

    def curves(self, subset: int) -> Iterator[list[Cell]]:
        """One subset of each size, for everybody to whom the worth is told."""
        for who in worth_asking([self.cell(who) for who in self.leaders()], self.row_of):
            yield [cell for cell in curve_of(self.plan, who, self.originals) if cell.seed == subset]

    def levels(self, who: Hacker) -> list[Cell]:
        """What the originals that he holds teach without the copy."""
        alone = without_copy(amount_of(who[1]))
        return [self.cell((who[0], alone))] if alone else []


def _who(cell: Cell) -> Hacker:
    return cell.network, cell.countermeasure


_by_epochs = cache(by_epochs)


@cache
def _kind(how: str) -> str:
    """What helps a hacker besides the copy; "" of who has the copy alone."""
    if needs_teacher(how):
        return "outputs"
    return "originals" if needs_clean(how) else "encoder" if encoder_of(how) else ""


def _best_first(hackers: Sequence[Hacker]) -> list[Hacker]:
    """By rank and by what trying takes; every counter-measure with its first network before any with its second."""
    ranks = ranking()

    def promise(how: str) -> float:
        cost, before = cost_of(how)
        return ranks.get(how, UNKNOWN) - PATIENCE * (before + cost * (RUNGS[0] if _by_epochs(how) else 1.0))

    turn: dict[Hacker, int] = {}
    for who in hackers:
        turn[who] = sum(other[1] == who[1] for other in turn)
    speaking = [who for who in hackers if not is_control(who[1])]
    return sorted(speaking, key=lambda who: (turn[who], -promise(who[1])))


def ranking() -> dict[str, float]:
    """How much counter-measures taught in committed records, 0 to 1 for the best; `benchmarks/ranking.py` writes it."""
    text = resources.files("uge.audit").joinpath("ranking.json").read_text(encoding="utf-8")
    found: dict[str, float] = json.loads(text)
    return found


@cache
def fit_together(one: str, other: str) -> bool:
    """Different counter-measures that can be combined; those with knowledge of their own go alone."""
    if one.partition(":")[0] == other.partition(":")[0] or needs_key(f"{one}+{other}") or needs_clean(f"{one}+{other}"):
        return False
    try:
        build_countermeasure(f"{one}+{other}")
    except UgeError:
        return False
    return True
