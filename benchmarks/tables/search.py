"""What the budgeted search finds in a part of the whole plan's time, as `benchmarks/quality/search.py` replays it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, table


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
