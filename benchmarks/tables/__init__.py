"""Every table of README.md and docs/, every plot, and the audit's ranking, computed from the committed records alone.

    python -m benchmarks.tables            write them
    python -m benchmarks.tables --check    exit code 1 if a page is not what the records say

A generated section stands between `<!-- results:NAME -->` and `<!-- /results -->`; NAME is a key of `SECTIONS`. Records
are JSON lines, benchmarks/results/FOLDER/records.jsonl. Each module here says what its rows are and who writes them.
Where there are two seeds or more, a number is the mean and the half-width of its 95% interval (Student's t).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import ranking
from benchmarks.tables.audit import audit_grid, audit_headline
from benchmarks.tables.baselines import baseline_copies, baseline_table, field_table
from benchmarks.tables.claims import claims_table
from benchmarks.tables.fedavg import fedavg_table
from benchmarks.tables.fuzz import fuzz_table
from benchmarks.tables.gallery import gallery_table
from benchmarks.tables.guard import guard_table, refused_table
from benchmarks.tables.leaderboard import leaderboard
from benchmarks.tables.many import formats_table, hundred_million, many_table, numbers_table
from benchmarks.tables.photographs import photograph_table
from benchmarks.tables.pictures import picture_table, recall_table
from benchmarks.tables.plots import hackers_plot, leaderboard_plot
from benchmarks.tables.sealed import copy_table, every_hacker, headline
from benchmarks.tables.search import live_table, search_table
from benchmarks.tables.speed import speed_table
from benchmarks.tables.uge_cifar import budget_table, stage_table
from benchmarks.tables.worth import worth_table
from uge.records import read_records

ROOT = Path(__file__).resolve().parents[2]
PAGES = (Path("README.md"), *sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md")))
RESULTS = Path("benchmarks/results")
MARKED = re.compile(r"(<!-- results:(\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)

SECTIONS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "headline": (("sealed",), headline),
    "sealed": (("sealed",), every_hacker),
    "sealed-tried": (("sealed",), partial(every_hacker, default=False)),
    "sealed-copies": (("sealed",), copy_table),
    "gallery": (("gallery",), gallery_table),
    "photographs": (("photographs",), photograph_table),
    "pictures": (("pictures",), picture_table),
    "pictures-recall": (("pictures",), recall_table),
    "guard": (("guard",), guard_table),
    "guard-refused": (("guard",), refused_table),
    "fuzz": (("fuzz",), fuzz_table),
    "leaderboard": (("leaderboard",), leaderboard),
    "worth": (("worth",), worth_table),
    "search": (("search",), search_table),
    "search-live": (("audit",), live_table),
    "fedavg": (("fedavg",), fedavg_table),
    "speed": (("speed",), partial(speed_table, name="costs")),
    "speed-parts": (("speed",), partial(speed_table, name="seconds")),
    "many-numbers": (("many",), numbers_table),
    "many-kills": (("many",), partial(many_table, name="kills")),
    "many-workers": (("many",), partial(many_table, name="workers")),
    "many-formats": (("many",), formats_table),
    "many-cost": (("many",), hundred_million),
    "claims": (("uge_cifar", "audit", "fedavg"), claims_table),
    "grid": (("uge_cifar",), partial(stage_table, stage="grid")),
    "check": (("uge_cifar",), budget_table),
    "finalists": (("uge_cifar",), partial(stage_table, stage="finalists")),
    "seeds": (("uge_cifar",), partial(stage_table, stage="seeds")),
    "transfer": (("uge_cifar",), partial(stage_table, stage="transfer")),
    "students": (("uge_cifar",), partial(stage_table, stage="students")),
    "uge-filters": (("uge_cifar",), partial(stage_table, stage="filters")),
    "two-keys": (("uge_cifar",), partial(stage_table, stage="two-keys")),
    "audit-headline": (("audit",), audit_headline),
    "audit": (("audit", "null_space"), audit_grid),
    "baselines": (("baselines",), baseline_table),
    "baseline-copies": (("baselines",), baseline_copies),
    "field": (("baselines", "published"), field_table),
}  # name in the page -> folders of its records, function of their rows
PLOTS: dict[Path, tuple[str, Callable[..., str]]] = {
    Path("docs/results/sealed.svg"): ("sealed", hackers_plot),
    Path("docs/results/leaderboard.svg"): ("leaderboard", leaderboard_plot),
}  # file -> folder of its records, function of their rows


def rendered(page: str, results: Path) -> str:
    """A page with its marked sections computed anew."""

    def section(match: re.Match[str]) -> str:
        folders, compute = SECTIONS[match[2]]
        return match[1] + compute(*(read_records(results / name / "records.jsonl") for name in folders)) + match[3]

    return MARKED.sub(section, page)


def _made(file: Path, old: str, results: Path) -> str:
    """What a file should hold."""
    if file == ranking.FILE:
        return ranking.text(results)
    if file in PLOTS:
        folder, draw = PLOTS[file]
        return draw(read_records(results / folder / "records.jsonl"))
    return rendered(old, results)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    options = parser.parse_args(arguments)
    stale = []
    for file in (*PAGES, *PLOTS, ranking.FILE):
        old = (root / file).read_text(encoding="utf-8") if (root / file).exists() else ""
        if (new := _made(file, old, root / RESULTS)) != old:
            stale.append(str(file))
            if not options.check:
                (root / file).write_text(new, encoding="utf-8")
    verb = "stale, run python -m benchmarks.tables" if options.check else "written"
    print(f"{', '.join(stale)}: {verb}" if stale else "all tables are up to date")
    return int(bool(stale and options.check))
