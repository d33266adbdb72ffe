"""How much each counter-measure taught on the copies of the committed records: the order of the audit's search.

A copy's counter-measures get 0 for its weakest to 1 for its strongest, each with its best network. A rank is the mean
over copies, drawn towards one half as if two copies more had said that. `python -m benchmarks.tables` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uge.attack import parse_countermeasures
from uge.errors import ConfigError
from uge.records import read_records

FOLDERS = ("sealed", "audit", "baselines", "leaderboard")
FILE = Path("src/uge/audit/ranking.json")
LEAST = 5  # counter-measures that a copy must have met to rank them
PRIOR, PRIOR_COPIES = 0.5, 2


def ranking(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Counter-measure -> rank, the best first."""
    reached: dict[str, dict[str, float]] = {}  # copy -> counter-measure -> the best accuracy
    for row in rows:
        if how := tried(row):
            copy = reached.setdefault(row["data"], {})
            copy[how] = max(copy.get(how, 0.0), row["accuracy"])
    shares: dict[str, list[float]] = {}
    for copy in reached.values():
        low, high = min(copy.values()), max(copy.values())
        if len(copy) >= LEAST and high > low:
            for how, accuracy in copy.items():
                shares.setdefault(how, []).append((accuracy - low) / (high - low))
    ranks = {
        how: round((sum(each) + PRIOR * PRIOR_COPIES) / (len(each) + PRIOR_COPIES), 3) for how, each in shares.items()
    }
    return dict(sorted(ranks.items(), key=lambda item: (-item[1], item[0])))


def tried(row: dict[str, Any]) -> str:
    """The counter-measure of a whole training on a copy without the key; "" for every other row."""
    how = "none" if row.get("countermeasure") == "other-init" else row.get("countermeasure", "")
    whole = row["kind"] == "hacker" and row["trained_on"] == "published" and row.get("budget", 1.0) == 1.0
    try:
        parse_countermeasures(how)
    except ConfigError:  # of an earlier version
        return ""
    planned = "data=" not in how  # what a hacker has beside the copy is in no plan
    return how if whole and planned and row["knows"] != "key" and "accuracy" in row else ""


def text(results: Path) -> str:
    """The file's content."""
    rows = [row for name in FOLDERS for row in read_records(results / name / "records.jsonl")]
    return json.dumps(ranking(rows), indent=1) + "\n"
