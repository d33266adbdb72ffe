"""A whole audit: from a protected folder to its records and summary, in one call that can be killed and repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from uge.attack import why_unfit
from uge.audit.estimate import Estimate
from uge.audit.folder import claimed_for_audit, facts_of, write_examples, write_summary
from uge.audit.plan import Cell, Hacker, Plan, Row, possible
from uge.audit.run import Audit
from uge.audit.search import decide
from uge.audit.worker import train_cells
from uge.copy import Manifest
from uge.data.images import ImageSet
from uge.keys.key import Key
from uge.runners import Runner
from uge.training import recommended_recipe

MOST_FOLLOWING = 5  # hackers that an audit names as the next


class Watcher:
    """What an audit tells while it works; the command line shows it, a script may ignore it."""

    def planned(self, trainings: int, seconds: float, skipped: Sequence[dict[str, str]]) -> None:
        """Before anything is trained: how much there is to do on one worker, and what is left out."""

    def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
        """A stage of the plan begins, with so many trainings still missing."""

    def trained(self, row: Row, seconds: float) -> None:
        """A training is finished or has failed; it was estimated to take so long."""

    def ended(self, following: Sequence[str]) -> None:
        """Everything is on disk; these hackers a larger budget would try next."""


def conduct(
    published: ImageSet,
    test: ImageSet,
    out: Path,
    plan: Plan,
    runner: Runner,
    *,
    manifest: Manifest | None = None,
    key: Key | None = None,
    clean: ImageSet | None = None,
    view: ImageSet | None = None,
    device: str = "cpu",
    threads: int = 1,
    known: Sequence[Row] = (),
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Run a plan against a copy; the same call goes on where a killed one stopped.

    Args:
        published: the copy, as read from its files.
        test: clean held-out images; of classes with the same names, in whatever order.
        out: the audit's folder (see `uge.audit.folder`).
        plan: what to try; what needs a key or originals that are not given is left out and named.
        runner: where to train.
        manifest: of the copy; None for a folder of another program.
        key: the recipient's.
        clean: the originals, in whatever order (see `ImageSet.like`).
        view: as for `Audit`.
        device: where to train.
        threads: of each training.
        known: rows of other audits, such as one of another copy of the same originals: ceilings are trained once.
        watcher: hears of progress.

    Returns:
        The summary, as in summary.json.

    Raises:
        UgeError: the first thing that is wrong, before anything is trained where it can be known by then.
    """
    watcher = watcher or Watcher()
    audit = Audit(
        published,
        test,
        out,
        recipe=partial(recommended_recipe, epochs=plan.epochs),
        recipient=plan.authorised,
        key_epochs=plan.key_epochs,
        key=key,
        clean=clean,
        view=view,
        told=manifest.told if manifest else None,
        device=device,
        threads=threads,
    )
    unfit = cache(
        partial(why_unfit, images=published, settings=audit.settings, clean=audit.sources.get("clean"), key=key)
    )
    hackers, skipped = possible(
        plan, key=key is not None, clean=clean is not None, unfit=unfit, twin=audit.is_authorised_architecture
    )
    data = {"published": audit.digests["published"], "test": audit.test_digest}
    with claimed_for_audit(out, data):
        estimate = Estimate(audit)
        whole = foreseen(plan, hackers, estimate.seconds, key=key is not None, originals=audit.originals)
        seconds = estimate.total(whole)
        watcher.planned(len(whole), seconds, skipped)
        facts = facts_of(audit, plan, skipped, manifest, data)
        write_examples(out, published, audit.sources.get("clean"))

        def stage(cells: Sequence[Cell], missing: Sequence[Cell]) -> None:
            done = estimate.total([cell for cell in cells if cell not in missing])
            watcher.progress(len(missing), done, max(seconds, estimate.total(cells)))

        rows, untried = audit.run_plan(
            plan,
            hackers,
            partial(train_cells, runner),
            stage,
            lambda cell, row: watcher.trained(row, estimate.seconds(cell)),
            known,
            estimate.seconds,
        )
        following = [f"{network}, {how}" for network, how in untried[:MOST_FOLLOWING]]
        summary = write_summary(out, facts, rows, plan, following)
        watcher.ended(following)
        return summary


def foreseen(
    plan: Plan, hackers: Sequence[Hacker], seconds: Callable[[Cell], float], *, key: bool, originals: int
) -> list[Cell]:
    """The cells of a plan as if all hackers were alike: as many, and as long, as they will be, about."""
    row: Row = {"accuracy": 0.0, "peak_accuracy": 0.0}
    trained: set[Cell] = set()
    while True:
        cells = decide(
            plan, hackers, lambda cell: row if cell in trained else None, seconds, key=key, originals=originals
        ).cells
        if trained.issuperset(cells):
            return cells
        trained.update(cells)
