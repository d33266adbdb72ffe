"""The comparison of all protections, as `uge bench benchmarks/quality/leaderboard.toml` writes it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import NOT_MEASURED, Row
from uge.report.leaderboard import leaderboard_markdown

# What this version no longer makes: docs/research.
GONE = {"null-space", "reversible", "reversible-epsilon-16", "misdirecting", "em-reversible", "texture"}


def leaderboard(rows: Sequence[Row], *, brief: bool = False) -> str:
    """All columns, or those that a terminal shows; without what this version no longer makes."""
    rows = [row for row in rows if row["name"] not in GONE]
    return leaderboard_markdown(rows, level=0, brief=brief) if rows else NOT_MEASURED
