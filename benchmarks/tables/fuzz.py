"""What became of changed files (`python -m benchmarks.fuzz`): a row a target, `ends` counted, `faults` by seed."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, table


def fuzz_table(rows: Sequence[Row]) -> str:
    """Of two rows of one target the later counts."""
    latest = {row["target"]: row for row in rows}
    body = [
        [
            target,
            f"{row['changes']:,}",
            f"{row['ends'].get('read', 0):,}",
            f"{row['ends'].get('refused', 0):,}",
            str(len(row["faults"])),
        ]
        for target, row in latest.items()
    ]
    return table(["what is changed", "changes", "read rightly", "refused in one line", "faults"], body)
