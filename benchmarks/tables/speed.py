"""Speed and memory (`speed/measure.py`).

A row is {"table", "measure", "subject", "value", "unit", "repeats", "environment": {"machine", "threads"}}; rows of
earlier versions have no "table" and are not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tables.text import Row, figure, table


def speed_table(rows: Iterable[Row], name: str) -> str:
    """One table; of two rows of one measurement on one kind of machine the later counts."""
    latest = {
        (row["measure"], row["subject"], row["environment"]["machine"], row["environment"]["threads"]): row
        for row in rows
        if row.get("table") == name
    }
    lines = [
        [measure, subject, f"{figure(row['value'])} {row['unit']}", str(row["repeats"]), f"{machine}, {threads}"]
        for (measure, subject, machine, threads), row in latest.items()
    ]
    return table(["measure", "of", "median", "repeats", "machine, threads"], lines)
