"""What copies are worth: controls of the measure, as `uge bench benchmarks/quality/worth.toml` writes them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, table
from uge.report.tables import countermeasure_label, originals, originals_between, percent


def worth_table(rows: Sequence[Row]) -> str:
    """A line a hacker with a curve."""
    lines = [
        [
            f"{result['name']}, {result['dataset']}",
            f"{worth['network']}, {countermeasure_label(worth['countermeasure'])}",
            f"{percent(worth['accuracy'])} ({percent(worth['curve'][-1]['accuracy'])})",
            f"{worth['copies']:,}",
            originals(worth["originals"], worth),
            originals_between(worth) or "-",
        ]
        for result in rows
        if result["kind"] == "result"
        for worth in (result["worth"], result["worth_pretrained"])
        if worth
    ]
    heads = ["copy", "strongest hacker", "on the copy, % (on all originals)", "copies", "worth, originals", "95 %"]
    return table(heads, lines)
