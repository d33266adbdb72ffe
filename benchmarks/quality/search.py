"""What the budgeted search would have found on copies whose hackers were all trained: a replay of committed records.

    python -m benchmarks.quality.search        writes benchmarks/results/search/records.jsonl

The search asks for trainings and gets the recorded ones; a rung of fewer epochs gets the accuracy after as many epochs
of the whole training. The ranking that it begins with is made without copies of that kind. Combinations are left out:
nobody trained them. The whole plan's time is that of every hacker on the copy, on the originals, and there for twice
the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.ranking import FOLDERS, ranking, tried
from uge.attack import needs_teacher
from uge.audit import search
from uge.audit.plan import Cell, Hacker, Plan, is_control, named_plans
from uge.durable import write_file
from uge.records import line_of, read_records

RESULTS = Path("benchmarks/results")
LEAST = 18  # hackers that a copy must have met
SHARES = (1 / 8, 1 / 4)
Row = dict[str, Any]


class Replay:
    """The trainings of one copy, as if they were made when they are asked for."""

    def __init__(self, recorded: Mapping[Hacker, Row]) -> None:
        self.recorded, self.done = recorded, set[Cell]()
        self.images = max(row["images"] for row in recorded.values())

    def row_of(self, cell: Cell) -> Row | None:
        if cell not in self.done:
            return None
        row = self.recorded.get((cell.network, cell.countermeasure))
        if row is None or cell.trained_on != "published":
            return {"accuracy": 0.0, "peak_accuracy": 0.0}
        reached = row["test_accuracy"][: max(1, round(len(row["test_accuracy"]) * cell.budget))]
        return {"accuracy": reached[-1], "peak_accuracy": max(reached)}

    def seconds(self, cell: Cell) -> float:
        row = self.recorded.get((cell.network, cell.countermeasure), {"seconds": 0.0, "images": 1})
        share = math.sqrt(cell.originals / row["images"]) if cell.originals else cell.budget
        return float(row["seconds"]) * share

    def audit(self, plan: Plan, ranks: dict[str, float]) -> float:
        """Search, and return the best accuracy of those trained whole."""
        key = any(needs_teacher(how) for _, how in self.recorded)
        with patch.multiple(search, ranking=lambda: ranks, fit_together=lambda one, other: False):
            while True:
                found = search.decide(plan, [*self.recorded], self.row_of, self.seconds, key=key, originals=self.images)
                if self.done.issuperset(found.cells):
                    break
                self.done.update(found.cells)
        whole = [cell for cell in self.done if cell.role == "hacker" and cell.budget == 1.0]
        return max((self.row_of(cell) or {})["accuracy"] for cell in whole)


def trainings_of(rows: Sequence[Row]) -> dict[str, dict[Hacker, Row]]:
    """Copy -> hacker -> his training of the lowest seed."""
    found: dict[str, dict[Hacker, Row]] = {}
    for row in sorted(rows, key=lambda row: -row.get("seed", 0)):
        if (how := tried(row)) and not is_control(how):
            found.setdefault(row["data"], {})[row["network"], how] = row
    return found


def _kind(row: Row) -> tuple[Any, Any]:
    """Copies of one kind differ in their seeds alone: none of them may say in what order another is tried."""
    return row.get("copy") or row.get("name"), row["dataset"]


def main() -> None:
    rows = [row for name in FOLDERS for row in read_records(RESULTS / name / "records.jsonl")]
    kept = []
    for data, recorded in trainings_of(rows).items():
        if len(recorded) < LEAST:
            continue
        one = next(iter(recorded.values()))
        ranks = ranking(row for row in rows if _kind(row) != _kind(one))
        seconds = sum(4 * row["seconds"] for row in recorded.values())
        for share in SHARES:
            found = Replay(recorded).audit(named_plans()["worst-case"].within(share * seconds), ranks)
            kept.append(
                {
                    "kind": "replay",
                    "copy": one.get("copy") or one["name"],
                    "dataset": one["dataset"],
                    "data": data,
                    "hackers": len(recorded),
                    "share": share,
                    "found": found,
                    "strongest": max(row["accuracy"] for row in recorded.values()),
                }
            )
    write_file(RESULTS / "search" / "records.jsonl", "".join(line_of(row) + "\n" for row in kept))


if __name__ == "__main__":
    main()
