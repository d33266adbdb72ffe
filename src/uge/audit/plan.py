"""Plans: which hackers an audit tries, and the cells, single trainings, that follow from them.

A plan has a name (`named_plans`) or is a TOML file:

    epochs = 30
    authorised = "vgg:depth=8,width=16"   # what he trains whose key does not say it
    key_epochs = 10           # at most, of the recipient's network; 0: as its recipe says
    seeds = [0]
    strongest = 10            # this many of the strongest hackers ...
    more_seeds = [1, 2]       # ... are trained with these seeds, too
    ceilings = true           # every hacker on the originals as well
    budget_check = true       # ... and there for twice the epochs
    budget = 1800             # seconds: search for the strongest, and train for so long in all; 0: train everybody
    subsets = 3               # the strongest on so many subsets of the originals of each size; 0: nobody

    [[hackers]]
    networks = ["authorised", "vgg:depth=8,width=16"]
    countermeasures = ["none", "grayscale", "jpeg:30+cutmix"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from uge.attack import (
    KNOWLEDGE,
    by_epochs,
    encoder_of,
    has_copy_alone,
    knowledge_of,
    needs_clean,
    needs_key,
    needs_teacher,
    on_originals,
    sees_copy,
    trains_key_network,
    tried,
)
from uge.audit.worth import sizes_of
from uge.errors import ConfigError, unknown_name
from uge.keys.key import RECIPIENT_NETWORK
from uge.networks import parse_network
from uge.outside import read_toml, typed

AUTHORISED = "authorised"  # in the place of a network's name: the recipient's
Row = dict[str, Any]
Hacker = tuple[str, str]  # a network and a counter-measure
T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        role: "authorised" (the recipient) or "hacker" (draws weights of its own).
        network: a network as `parse_network` reads it, or "authorised" for the recipient's.
        countermeasure: as `uge.attack.build_countermeasure` reads it.
        seed: decides initial weights of hackers, order and augmentation.
        trained_on: "published", or "clean" for the ceiling.
        budget: epochs as a multiple of the recipe's: 2 to see whether more would help, less to screen hackers.
        originals: of those it is trained on, so many, which the seed decides; 0 for all (see `uge.audit.worth`).
    """

    role: str
    network: str = AUTHORISED
    countermeasure: str = "none"
    seed: int = 0
    trained_on: str = "published"
    budget: float = 1.0
    originals: int = 0

    @property
    def knows(self) -> str:
        """What the hacker has besides the published images, their labels and our code; of several things the most."""
        if self.role == AUTHORISED:
            return "key"
        architecture = "architecture" if self.network == AUTHORISED else "nothing"
        return max(architecture, knowledge_of(self.countermeasure), key=KNOWLEDGE.index)

    def to_dict(self) -> dict[str, Any]:
        """What names the cell; a whole budget and all originals go without saying, as before there were others."""
        unsaid = {"budget": 1.0, "originals": 0}
        return {name: value for name, value in asdict(self).items() if unsaid.get(name) != value}


def grid(hackers: Iterable[Hacker], seeds: Iterable[int], *, clean: bool = True, key: bool = True) -> list[Cell]:
    """Authorised user and hackers for each seed, each on the copy and, where `clean`, on the originals.

    A hacker is (network, counter-measure), "authorised" the recipient's network without the key. Without `key` there is
    no authorised user.
    """
    hackers = list(hackers)
    cells = []
    for seed in seeds:
        cells += [Cell(AUTHORISED, seed=seed)] if key else []
        cells += [Cell("hacker", *who, seed) for who in hackers]
        if clean:
            cells += [Cell(AUTHORISED, seed=seed, trained_on="clean")] if key else []
            cells += [ceiling_of(who, seed) for who in hackers]
    return cells


@dataclass(frozen=True)
class Hackers:
    """Every one of some networks with every one of some counter-measures."""

    networks: tuple[str, ...]
    countermeasures: tuple[str, ...] = ("none",)

    def __post_init__(self) -> None:
        if not self.networks:
            raise ConfigError("plan: a [[hackers]] without networks")
        for network in self.networks:
            if network != AUTHORISED:
                parse_network(network)
        for countermeasure in self.countermeasures:
            knowledge_of(countermeasure)


@dataclass(frozen=True)
class Plan:
    """What an audit tries.

    Attributes:
        name: for the page.
        hackers: whom to train.
        epochs: of every training but those of a network that a key defines, which follow the key's recipe.
        authorised: the network that is trained with a key that does not define one.
        key_epochs: not 0: at most so many epochs of the recipient's network.
        seeds: repetitions of every hacker.
        strongest: so many of the strongest hackers are repeated with `more_seeds`.
        more_seeds: see `strongest`.
        ceilings: train every hacker on the originals, too.
        budget_check: train him there for twice the epochs, too: was the budget enough?
        subsets: the strongest hackers are trained on so many subsets of the originals of each size, to say what the
            copy is worth to them; 0: nobody is. It needs `ceilings`.
        budget: not 0: search for the strongest hacker, and train for so many seconds in all (see `uge.audit.search`).
        reason: why this plan is no evidence, where it is none.
    """

    name: str
    hackers: tuple[Hackers, ...]
    epochs: int = 30
    authorised: str = RECIPIENT_NETWORK
    key_epochs: int = 0
    seeds: tuple[int, ...] = (0,)
    strongest: int = 0
    more_seeds: tuple[int, ...] = ()
    ceilings: bool = True
    budget_check: bool = False
    subsets: int = 3
    budget: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.hackers:
            raise ConfigError(f"the plan {self.name} has no [[hackers]]")
        parse_network(self.authorised)
        if self.epochs < 1 or not self.seeds:
            raise ConfigError(f"the plan {self.name}: epochs and seeds must be one or more")
        if min(self.key_epochs, self.strongest, self.subsets, self.budget) < 0:
            raise ConfigError(f"the plan {self.name}: key_epochs, strongest, subsets and budget must not be negative")

    def within(self, seconds: float) -> Plan:
        """The same search with another budget.

        Raises:
            ConfigError: the plan is no search.
        """
        if not self.budget:
            raise ConfigError(f"the plan {self.name} trains every hacker it names; --budget is for worst-case")
        return replace(self, budget=seconds)

    def pairs(self) -> list[Hacker]:
        """(network, counter-measure), each once, in the plan's order."""
        found = [(n, how) for block in self.hackers for how in block.countermeasures for n in block.networks]
        return list(dict.fromkeys(found))


def possible(
    plan: Plan,
    *,
    key: bool,
    clean: bool,
    unfit: Callable[[str], str] = lambda countermeasure: "",
    twin: Callable[[str], bool] = lambda network: False,
) -> tuple[list[Hacker], list[dict[str, str]]]:
    """The hackers of a plan who can be tried here, and what must be left out: {"what", "why"}.

    Args:
        plan: any plan.
        key: whether there is a key.
        clean: whether there are originals.
        unfit: why a counter-measure can do nothing to these images, empty if it can.
        twin: whether a network is the recipient's by another name: then it goes by that of his, and once.
    """
    chosen: list[Hacker] = []
    skipped = []
    named = [(AUTHORISED if twin(network) else network, how) for network, how in plan.pairs()]
    for network, how in dict.fromkeys(named):
        if encoder_of(how) and how in [other for _, other in chosen]:
            continue  # the same encoder takes the place of every network
        if not key and (network == AUTHORISED or needs_key(how)):
            why = "needs --key"
        elif not clean and needs_clean(how):
            why = "needs --clean"
        else:
            why = unfit(how)
        if why:
            skipped.append({"what": network if how == "none" else f"{network}, {how}", "why": why})
        else:
            chosen.append((network, how))
    return chosen, skipped


def cells_of(
    plan: Plan, hackers: Sequence[Hacker], row_of: Callable[[Cell], Row | None], *, key: bool, originals: int
) -> list[Cell]:
    """All cells that are decided by now: those of a plan's later stages depend on the rows of the earlier ones.

    Call again when all are trained, until nothing is added. The answer depends on the rows alone, so that an audit
    which was killed makes the same decisions again. `hackers` are those of `possible`, `row_of` gives the finished row
    of a cell, None if it is missing; `originals` says how many there are.
    """
    whole = partial(_full, plan, key=key, clean=originals > 0)

    def finished(some: Sequence[Cell]) -> bool:
        return all(row_of(cell) is not None for cell in some)

    def ranked(who: Sequence[Hacker]) -> list[Hacker]:
        """Strongest first, by the peak: it is picked on test data, which favours the hacker."""
        rows = {each: row_of(Cell("hacker", *each, seed=plan.seeds[0])) or {} for each in who}
        return sorted(who, key=lambda each: -rows[each].get("peak_accuracy", 0.0))

    cells = whole(hackers, plan.seeds)
    if plan.strongest and plan.more_seeds and finished(cells):
        eligible = [who for who in hackers if not is_control(who[1])]
        cells += whole(ranked(eligible)[: plan.strongest], plan.more_seeds)
    if plan.subsets and plan.ceilings and sizes_of(originals) and finished(cells):
        for who in worth_asking(cells, row_of):
            cells += curve_of(plan, who, originals)
    return list(dict.fromkeys(cells))


def curve_of(plan: Plan, hacker: Hacker, originals: int) -> list[Cell]:
    """One hacker on subsets of the originals of each size, and as often on all of them."""
    sizes = (*sizes_of(originals), 0)
    return [replace(ceiling_of(hacker, seed), originals=size) for seed in range(plan.subsets) for size in sizes]


def ceiling_of(hacker: Hacker, seed: int) -> Cell:
    """The same hacker on all originals."""
    network, how = hacker
    return Cell("hacker", network, on_originals(how), seed, trained_on="clean")


def worth_asking(cells: Sequence[Cell], row_of: Callable[[Cell], Row | None]) -> list[Hacker]:
    """To whom the copy's worth is told: the strongest plain hacker, the strongest of all, and with an encoder.

    They have the copy alone: whoever holds originals or queries the recipient's network does not learn from it only.
    """
    found: dict[Hacker, list[float]] = {}
    for cell in cells:
        whole = (cell.role, cell.trained_on, cell.budget) == ("hacker", "published", 1.0)
        if whole and has_copy_alone(cell.countermeasure):
            accuracy = (row_of(cell) or {}).get("accuracy", 0.0)
            found.setdefault((cell.network, cell.countermeasure), []).append(accuracy)
    order = sorted(found, key=lambda who: -fmean(found[who]))
    kinds = (
        [who for who in order if who[1] == "none"],
        [who for who in order if not encoder_of(who[1])],
        [who for who in order if encoder_of(who[1])],
    )
    return list(dict.fromkeys(kind[0] for kind in kinds if kind))


def _full(plan: Plan, hackers: Sequence[Hacker], seeds: Iterable[int], *, key: bool, clean: bool) -> list[Cell]:
    """Whole trainings with their ceilings, and the check of the budget at the plan's first seed."""
    cells = grid(hackers, seeds, clean=clean and plan.ceilings, key=key)
    if clean and plan.budget_check:
        cells += [
            replace(cell, budget=2.0)
            for cell in cells
            if cell.trained_on == "clean" and cell.seed == plan.seeds[0] and knowledge_of(cell.countermeasure) != "key"
        ]
    return cells


def is_control(countermeasure: str) -> bool:
    """Who says nothing of the protection: he has the key, or never looks at the copy."""
    return knowledge_of(countermeasure) == "key" or not sees_copy(countermeasure)


SMALL_NETWORKS = ("vgg:depth=8,width=16", "resnet:depth=8,width=16")
OTHER_NETWORKS = ("mlp", "convnet:width=32", "vit:width=64,depth=3", "mobilenetv2")  # no copy is made against the last
COMBINED = ("grayscale+high-pass", "grayscale+equalise")  # beside those that a search finds


def named_plans() -> dict[str, Plan]:
    """Plans by name: every counter-measure of the registry as it says itself, those that take long with one network."""
    known = [how for how in (*tried(), *COMBINED) if how != "none"]
    with_key = [how for how in known if trains_key_network(how) or knowledge_of(how) == "key"]
    long = [how for how in known if how not in with_key and (encoder_of(how) or not by_epochs(how))]
    short = [how for how in known if how not in (*with_key, *long)]
    students = [how for how in short if needs_teacher(how)]
    full = (
        Hackers((AUTHORISED, *SMALL_NETWORKS, *OTHER_NETWORKS)),
        Hackers(SMALL_NETWORKS, tuple(short)),
        Hackers(SMALL_NETWORKS[:1], tuple(long)),
        Hackers((AUTHORISED,), ("grayscale", "jpeg:30", "cutmix", *students, *with_key)),
    )
    worst = (
        Hackers((*SMALL_NETWORKS, AUTHORISED), ("none", *short)),
        Hackers(OTHER_NETWORKS),
        Hackers(SMALL_NETWORKS[:1], tuple(long)),
    )
    return {
        "worst-case": Plan("worst-case", worst, strongest=3, more_seeds=(1, 2), budget=1800.0),
        "full": Plan("full", full, strongest=10, more_seeds=(1, 2), budget_check=True),
    }


def read_plan(text: str) -> Plan:
    """A plan by its name (see `named_plans`), or from a TOML file.

    Raises:
        ConfigError: neither, or a file that says something else than a plan.
    """
    plans = named_plans()
    if text in plans:
        return plans[text]
    if not text.endswith(".toml"):
        raise unknown_name("plan", text, [*plans, "FILE.toml"])
    return plan_of(read_toml(Path(text), "plan"), Path(text).stem)


def plan_of(content: dict[str, Any], name: str) -> Plan:
    """A plan from the content of a file.

    Raises:
        ConfigError: an entry that is unknown or not of its type.
    """
    check_entries(content, Plan, "a plan")
    check_entries(content.get("hackers"), Hackers, "[[hackers]]")
    return planned({"hackers": []} | content | {"name": name}, Plan)


def planned(content: dict[str, Any], kind: type[T]) -> T:
    """A part of a plan from the content of a file; raises ConfigError where an entry is not of its type."""
    try:
        return typed(content, kind)
    except ValueError as error:
        raise ConfigError(f"plan: {error}") from error


def check_entries(found: Any, kind: type, what: str) -> None:
    """Refuse entries of a block, or of some, that are none of a dataclass; raises ConfigError with the nearest."""
    names = [field.name for field in fields(kind)]
    blocks = (block for block in (found if isinstance(found, list) else [found]) if isinstance(block, dict))
    if unknown := [entry for block in blocks for entry in block if entry not in names]:
        raise unknown_name(f"entry of {what}", unknown[0], names)
