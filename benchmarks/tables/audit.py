"""Audits of the paper's method and of copies by another program (`quality/audit.py`).

A row is a training, or `"kind": "facts"` a finished audit. Audits of keys that are gone stay in the records, and are
linked from docs/research.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from benchmarks.tables.text import NOT_MEASURED, Row, numbered, short, table, trained_at
from uge.attack import knowledge_of
from uge.audit.metrics import holds_originals, summarise
from uge.report.tables import plus_minus

SHOWN = ("uge ", "foreign ")  # what the names of audits begin with


def audits(
    rows: Iterable[Row], shown: Callable[[Row], bool] = lambda row: row["name"].startswith(SHOWN)
) -> dict[tuple[str, str], list[Row]]:
    """(data set, protection) -> the rows of its trainings; of two rows of one cell the later counts."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["kind"] != "facts" and shown(row):
            found.setdefault((row["dataset"], row["name"]), {})[row["cell"]] = row
    return {place: list(cells.values()) for place, cells in sorted(found.items())}


def shrunk(row: Row) -> bool:
    """Whether the images of an audit had been made smaller."""
    return re.search(r", \d+x\d+$", row["name"]) is not None


def classes_of(rows: Iterable[Row], dataset: str) -> int:
    """Of the data; an audit that is not finished has no facts of its own yet."""
    return next(row["manifest"]["classes"] for row in rows if row["kind"] == "facts" and row["dataset"] == dataset)


def ceilings_of(trainings: Sequence[Row], among: Iterable[Row]) -> list[Row]:
    """Trainings on the same originals by the recipes of an audit, or for twice the epochs, whoever did them.

    Students' depend on the key.
    """
    first, recipes = trainings[0], [row["recipe"] for row in trainings]
    return [
        row
        for row in among
        if (row["trained_on"], row["kind"]) == ("clean", "hacker")
        and row.get("budget", 1.0) in (1.0, 2.0)
        and (row["dataset"], row["images"]) == (first["dataset"], first["images"])
        and row["knows"] not in ("model outputs", "key")
        and row["recipe"] | {"epochs": round(row["recipe"]["epochs"] / row.get("budget", 1.0))} in recipes
    ]


def grid(title: str, trainings: Sequence[Row], classes: int, known: Sequence[Row] = ()) -> str:
    """Every hacker of one audit: counter-measures down, networks across, and the share that he recovers.

    `known` are more trainings on the originals.
    """
    summary = summarise([*known, *trainings], classes)  # of two rows of one cell the later counts
    groups = {
        (group["network"], group["countermeasure"].replace("other-init", "none")): group for group in summary["groups"]
    }
    networks = list(dict.fromkeys(network for network, _ in groups))
    worst: dict[str, float] = {}
    for (_, how), group in groups.items():
        worst[how] = max(worst.get(how, 0.0), group["accuracy"])
    # Besides the architecture, which the column says.
    knows = {how: group["knows"] for (_, how), group in groups.items()}
    knows |= {how: knowledge_of(how) for how, known in knows.items() if known == "architecture"}
    body = [
        [how, knows[how], *(_hacker_text(groups.get((network, how))) for network in networks)]
        for how in sorted(worst, key=lambda how: (how != "none", -worst[how]))
    ]
    user = summary["authorised"]
    own = f"authorised {user['network']}: {user['accuracy']:.1f}" if user else "no authorised network"
    if user and user["locked_clean_accuracy"] is not None:
        own += f" (on the originals {user['locked_clean_accuracy']:.1f})"
    margin = "" if summary["margin"] is None else f", margin {summary['margin']:+.1f}"
    doubts = "".join(f" {doubt}" for doubt in summary["why_no_evidence"])
    on_copy = [row for row in trainings if row["trained_on"] == "published"]
    at = trained_at(on_copy or trainings)
    facts = f"**{title}**, {at}; {own}{margin}; chance {summary['chance']:.1f}.{doubts}\n\n"
    return facts + table(["counter-measure", "knows", *networks], body)


BELOW = (
    "\nAccuracy, and in brackets the ceiling (the same on the originals) and the share recovered:"
    " (accuracy - chance) / (ceiling - chance). Copies of the same images share their ceilings. † undertrained.\n"
)


def audit_grid(rows: Sequence[Row], keyed: Sequence[Row] = ()) -> str:
    """Every audit that is shown; those of the same images share what was trained on them, in earlier searches, too."""
    at_full_size = [row for row in keyed if row["stage"] == "full" and row["kind"] != "measures"]
    at_full_size += [row for row in rows if row["kind"] != "facts" and not shrunk(row)]
    parts = [
        grid(
            name,
            trainings,
            classes_of(rows, dataset),
            [] if shrunk(trainings[0]) else ceilings_of(trainings, at_full_size),
        )
        for (dataset, name), trainings in audits(rows).items()
    ]
    return "\n".join(parts) + BELOW if parts else NOT_MEASURED


def _hacker_text(group: Row | None) -> str:
    if group is None:
        return ""
    share = "" if group["recovered"] is None else f", {100 * group['recovered']:.0f} %"
    ceiling = "" if group["clean_accuracy"] is None else f" ({group['clean_accuracy']:.1f}{share})"
    return f"{group['accuracy']:.1f}{plus_minus(group['interval'])}{'†' if group['undertrained'] else ''}{ceiling}"


def audit_headline(rows: Sequence[Row]) -> str:
    """A line a protection: the authorised network, plain hackers, and the worst that an audit found."""
    body = []
    for (dataset, name), trainings in audits(rows).items():
        summary = summarise(trainings, classes_of(rows, dataset))
        user, counted = summary["authorised"], [group for group in summary["groups"] if group["counts"]]
        if counted:
            body.append(
                [
                    f"{name}, {dataset}",
                    "-" if user is None else f"{user['accuracy']:.1f}",
                    _strongest([group for group in counted if group["countermeasure"] == "none"]),
                    _strongest([group for group in counted if not holds_originals(group)]),
                    _strongest(counted),
                    "-" if summary["margin"] is None else f"{summary['margin']:+.1f}",
                    numbered([len(counted)]),
                ]
            )
    header = ["audit", "authorised", "strongest plain hacker of another architecture", "strongest without clean images"]
    return table([*header, "strongest of all", "margin", "kinds of hacker tried"], body)


def _strongest(groups: Sequence[Row]) -> str:
    if not groups:
        return "-"
    best = max(groups, key=lambda group: group["accuracy"])
    how = "" if best["countermeasure"] == "none" else f", {best['countermeasure']}"
    return f"{best['accuracy']:.1f} ({short(best['network'])}{how})"
