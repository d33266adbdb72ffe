"""What the budgeted search finds, replayed (`quality/search.py`) and in whole audits (`quality/audit.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.audit import audits
from benchmarks.tables.text import Row, table
from uge.audit.metrics import summarise
from uge.report.tables import hacker_label, originals, percent, strongest, worth_to


def search_table(rows: Sequence[Row]) -> str:
    """A line a copy."""
    copies: dict[str, list[Row]] = {}
    for row in rows:
        copies.setdefault(row["data"], []).append(row)
    shares = sorted({row["share"] for row in rows})
    lines = [
        [
            f"{own[0]['copy']}, {own[0]['dataset']}",
            str(own[0]["hackers"]),
            *(f"{row['found']:.1f}" for row in sorted(own, key=lambda row: row["share"])),
            f"{own[0]['strongest']:.1f}",
        ]
        for own in copies.values()
    ]
    heads = [f"found in 1/{round(1 / share)} of the time, %" for share in shares]
    return table(["copy", "hackers", *heads, "strongest of all, %"], lines)


def live_table(rows: Sequence[Row]) -> str:
    """A line an audit that had a budget."""
    facts = {(row["dataset"], row["name"]): row for row in rows if row.get("budget_seconds")}
    lines = []
    for (dataset, name), trainings in audits(rows, lambda row: row["plan"] == "worst-case").items():
        about = facts[dataset, name]
        summary = summarise(trainings, about["manifest"]["classes"])
        lines.append(
            [
                f"{name}, {dataset}",
                f"{about['quality']['psnr_db']:.1f}",
                f"{about['budget_seconds'] / 3600:g}",
                str(len(trainings)),
                percent(summary["authorised"] and summary["authorised"]["accuracy"]),
                *(_run(strongest(summary, asking=asking)) for asking in (False, True)),
                *(_worth(worth_to(summary, pretrained=pretrained)) for pretrained in (False, True)),
            ]
        )
    heads = ["copy", "PSNR, dB", "hours of one worker", "trainings", "recipient, %", "strongest, %", "who queries, %"]
    return table([*heads, "worth, originals", "to a pretrained network"], lines)


def _run(found: Row | None) -> str:
    return "-" if found is None else f"{found['accuracy']:.1f} ({hacker_label(found)})"


def _worth(found: Row | None) -> str:
    return "-" if found is None else originals(found["originals"], found)
