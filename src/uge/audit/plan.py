"""Cells: the single trainings an audit is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from uge.attack import KNOWLEDGE, knowledge_of

AUTHORISED = "authorised"  # in the place of a network's name: the architecture of the key


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        role: "authorised" (starts from the key) or "hacker" (draws weights of its own).
        network: a network as `parse_network` reads it, or "authorised" for the key's architecture.
        countermeasure: as `uge.attack.build_countermeasure` reads it.
        seed: decides initial weights of hackers, order and augmentation.
        trained_on: "published", or "clean" for the ceiling.
    """

    role: str
    network: str = AUTHORISED
    countermeasure: str = "none"
    seed: int = 0
    trained_on: str = "published"

    @property
    def knows(self) -> str:
        """What the hacker has besides the published images, their labels and our code; of several things the most."""
        if self.role == AUTHORISED:
            return "key"
        architecture = "architecture" if self.network == AUTHORISED else "nothing"
        return max(architecture, knowledge_of(self.countermeasure), key=KNOWLEDGE.index)


def grid(
    networks: Iterable[str],
    students: Iterable[tuple[str, str]],
    seeds: Iterable[int],
    *,
    clean: bool = True,
    key: bool = True,
) -> list[Cell]:
    """Authorised user and hackers for each seed, each on the copy and, where `clean`, on the originals.

    Args:
        networks: plain hackers; "authorised" is the key's architecture with other initial weights.
        students: distilling hackers as (network, counter-measure).
        seeds: repetitions.
        clean: whether originals are there for the ceilings.
        key: whether there is an authorised network.
    """
    hackers = [(network, "none") for network in networks] + list(students if key else [])
    sources = ("published", "clean") if clean else ("published",)
    cells = []
    for seed in seeds:
        for source in sources:
            cells += [Cell(AUTHORISED, seed=seed, trained_on=source)] if key else []
            cells += [Cell("hacker", network, how, seed, source) for network, how in hackers]
    return cells
