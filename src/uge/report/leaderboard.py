"""The leaderboard of a comparison, from its records alone: Markdown, CSV, and one HTML file that sorts offline."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from uge.durable import write_file
from uge.errors import PublishError
from uge.outside import csv_cell, shown
from uge.outside import escaped_markdown as escaped
from uge.records import read_records
from uge.report import tables
from uge.report.page import filled_template

Result = dict[str, Any]  # a row of kind "result"
FILES = ("leaderboard.html", "leaderboard.md", "leaderboard.csv")


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Attributes:
        title: as short as it can be said.
        value: of a result: a number to sort by, text, or None where there is none.
        text: the value as people read it.
        detail: what stands below it in small letters.
        brief: whether a terminal has room for it.
        lower_first: whether lower is better, which a first click shows first.
    """

    title: str
    value: Callable[[Result], Any]
    text: Callable[[Any], str] = str
    detail: Callable[[Result], str] = lambda result: ""
    brief: bool = False
    lower_first: bool = False

    def shown(self, result: Result) -> str:
        value = self.value(result)
        return tables.DASH if value is None else self.text(value)


def _of(*path: str) -> Callable[[Result], Any]:
    """The entry at a path of a nested row; None where the path ends early."""

    def find(result: Result) -> Any:
        found: Any = result
        for name in path:
            found = None if found is None else found.get(name)
        return found

    return find


def three_digits(value: float) -> str:
    """A positive number with three significant digits: "0.0123", "1.23", "1,234"."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _who(name: str, result: Result) -> str:
    group = result[name]
    if group is None:
        return ""
    how = "" if group["countermeasure"] == "none" else f", {tables.countermeasure_label(group['countermeasure'])}"
    ceiling = "" if group["clean_accuracy"] is None else f"; clean {tables.percent(group['clean_accuracy'])}"
    peak = f"; peak {tables.percent(group['peak_accuracy'])}"
    return f"{tables.plus_minus(group.get('interval'))} {group['network']}{how}{ceiling}{peak}".strip()


def _authorised(result: Result) -> str:
    user = result["authorised"]
    if user is None:
        return ""
    clean = user["locked_clean_accuracy"]
    ceiling = "" if clean is None else f"; clean {tables.percent(clean)}"
    return f"{tables.plus_minus(user.get('interval'))} {user['network']}{ceiling}".strip()


def _at_peak(result: Result) -> str:
    margin = result["margin_at_peak"]
    return "" if margin is None else f"{tables.points(margin)} against best epochs"


def _epsilon(result: Result) -> str:
    asked = result["epsilon_asked_255"]
    return "" if asked is None else f"{asked} asked"


def _worth(name: str, result: Result) -> float | None:
    """Originals that a copy is worth; all of them where it is worth more, the fewest of its curve where less."""
    worth = result.get(name)
    if worth is None:
        return None
    number, sizes = worth["originals"], [point["originals"] for point in worth["curve"]]
    return float(sizes[-1] if number is None else max(number, sizes[1]) if number else 0)


def _worth_between(name: str, result: Result) -> str:
    worth = result.get(name)
    if worth is None:
        return ""
    told = tables.originals(worth["originals"], worth)
    side = "or more" if told.startswith("more") else "or fewer" if told.startswith("fewer") else ""
    return "; ".join(filter(None, (side, tables.originals_between(worth), tables.hacker_label(worth))))


COLUMNS = (
    Column(
        "protection",
        _of("name"),
        detail=lambda result: "" if result["method"] == result["name"] else result["method"],
        brief=True,
        lower_first=True,
    ),
    Column("plain hacker, %", _of("naive", "accuracy"), tables.percent, partial(_who, "naive"), True, True),
    Column(
        "worst case without clean images, %",
        _of("worst_without_clean", "accuracy"),
        tables.percent,
        partial(_who, "worst_without_clean"),
        True,
        True,
    ),
    Column("worst case, %", _of("worst", "accuracy"), tables.percent, partial(_who, "worst"), True, True),
    Column("recipient, %", _of("authorised", "accuracy"), tables.percent, _authorised, True),
    Column("margin, points", _of("margin"), tables.points, _at_peak, True),
    Column(
        "worth, originals", partial(_worth, "worth"), tables.two_digits, partial(_worth_between, "worth"), True, True
    ),
    Column(
        "worth with a pretrained encoder, originals",
        partial(_worth, "worth_pretrained"),
        tables.two_digits,
        partial(_worth_between, "worth_pretrained"),
        False,
        True,
    ),
    Column("PSNR, dB", _of("quality", "psnr_db"), "{:,.1f}".format),
    Column("SSIM", _of("quality", "ssim"), "{:,.3f}".format),
    Column("largest change, /255", _of("quality", "l_inf_255"), str, _epsilon, lower_first=True),
    Column("time, s", _of("cost", "seconds"), three_digits, lower_first=True),
    Column("cost, trainings of ResNet-18", _of("cost", "trainings"), three_digits, brief=True, lower_first=True),
    Column("memory, MB", _of("cost", "peak_memory_mb"), "{:,.0f}".format, lower_first=True),
)


def columns_of(results: Iterable[Result], *, brief: bool = False) -> list[Column]:
    """The columns that any of these results has a value for; for a terminal the brief ones alone."""
    results = list(results)
    kept = [column for column in COLUMNS if column.brief or not brief]
    return [column for column in kept if any(column.value(result) is not None for result in results)]


def results_of(records: Sequence[dict[str, Any]]) -> dict[str, list[Result]]:
    """The results of each data set, the lowest worst case first."""
    found: dict[str, list[Result]] = {}
    for row in records:
        if row["kind"] == "result":
            found.setdefault(row["dataset"], []).append(row)
    for results in found.values():
        results.sort(key=lambda result: (result["worst"] is None, (result["worst"] or {"accuracy": 0})["accuracy"]))
    return found


def write_leaderboards(folder: Path) -> list[Path]:
    """Write the three files of a comparison's folder.

    Raises:
        PublishError: the folder has no records.
    """
    records = shown(read_records(folder / "records.jsonl"))
    if not any(row["kind"] == "result" for row in records):
        raise PublishError(f"{folder} holds no results of a comparison; run 'uge bench' first")
    texts = (page(records), leaderboard_markdown(records), csv_text(records))
    files = [folder / name for name in FILES]
    for file, text in zip(files, texts, strict=True):
        write_file(file, text)
    return files


def print_leaderboard(records: Sequence[dict[str, Any]]) -> None:
    """Print each data set's table to the terminal, without the details."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for dataset, results in results_of(records).items():
        table = Table(title=Text(dataset), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        columns = columns_of(results, brief=True)
        for number, column in enumerate(columns):
            table.add_column(column.title, justify="right" if number else "left", no_wrap=number == 0)
        for result in results:
            table.add_row(*(Text(column.shown(result)) for column in columns))
        console.print(table)


def leaderboard_markdown(records: Sequence[dict[str, Any]], level: int = 1, *, brief: bool = False) -> str:
    """A table a data set, and what it was measured with.

    Args:
        records: of a comparison.
        level: of the headings; 0 leaves them out.
        brief: the columns that a terminal shows, without details.
    """
    parts = []
    for dataset, results in results_of(records).items():
        columns = columns_of(results, brief=brief)
        lines = [f"{'#' * level} {escaped(dataset)}", ""] if level else []
        lines += [escaped(" ".join(facts(records, dataset))), ""]
        lines += ["| " + " | ".join(column.title for column in columns) + " |"]
        lines += ["| --- |" + " --: |" * (len(columns) - 1)]
        for result in results:
            cells = []
            for column in columns:
                detail = "" if brief else column.detail(result)
                cells.append(column.shown(result) + (f" ({detail})" if detail else ""))
            lines.append("| " + " | ".join(map(escaped, cells)) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """Every result as a line of plain numbers, with who reached them."""
    lines = [_plain(result) for results in results_of(records).values() for result in results]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(lines[0])
    writer.writerows(map(csv_cell, line.values()) for line in lines)
    return buffer.getvalue()


def _plain(result: Result) -> dict[str, Any]:
    """A result as plain numbers and text, by the names of their columns."""
    line: dict[str, Any] = {name: result[name] for name in ("dataset", "name", "method")}
    line |= {"seeds": len(result["seeds"])} | {name: result[name] for name in ("images", "epochs", "chance")}
    for name in ("naive", "worst_without_clean", "worst"):
        group = result[name] or {}
        line |= {name: group.get("accuracy")} | {
            f"{name}_{of}": group.get(f"{of}_accuracy") for of in ("peak", "clean")
        }
        line |= _ends(name, group) | {f"{name}_{of}": group.get(of) for of in ("network", "countermeasure", "knows")}
    user, quality, cost = (result[name] or {} for name in ("authorised", "quality", "cost"))
    line |= {"authorised": user.get("accuracy"), "authorised_clean": user.get("locked_clean_accuracy")}
    line |= {name: result[name] for name in ("margin", "margin_at_peak", "hackers")}
    line |= {name: quality.get(name) for name in ("psnr_db", "ssim", "l_inf_255", "l2")}
    line |= {name: cost.get(name) for name in ("seconds", "cpu_seconds", "trainings", "peak_memory_mb")}
    for name in ("worth", "worth_pretrained"):
        worth = result.get(name) or {}
        line |= {name: worth.get("originals")} | _ends(name, worth)
    return line


def _ends(name: str, of: dict[str, Any]) -> dict[str, Any]:
    """Both ends of an interval, where there is one."""
    low, high = of.get("interval") or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def facts(records: Sequence[dict[str, Any]], dataset: str) -> list[str]:
    """What the table of a data set was measured with, and why it is no evidence, a sentence each."""
    results = results_of(records)[dataset]
    one = results[0]
    hackers = [row for row in records if row["kind"] == "hacker" and row["dataset"] == dataset and "error" not in row]
    networks, hows = ({row[name] for row in hackers} for name in ("network", "countermeasure"))
    hows -= {"none", "other-init"}
    seeds = sorted({len(result["seeds"]) for result in results})
    said = [
        f"{one['images']:,} training and {one['test_images']:,} test images of {tables.pixels(one)};"
        f" {'/'.join(map(str, seeds))} {'copy' if seeds == [1] else 'copies'} of each protection;"
        f" hackers {', '.join(sorted(networks))} with {len(hows)} counter-measures, {one['epochs']} epochs;"
        f" chance {one['chance']:.1f} %."
    ]
    clean = [result["naive"]["clean_accuracy"] for result in results if result["naive"]]
    if known := [value for value in clean if value is not None]:
        said.append(f"A plain hacker reaches {max(known):.1f} % on the originals.")
    for row in records:
        if row["kind"] == "yardstick" and row["dataset"] == dataset:
            device, threads = row["environment"]["device"], row["environment"]["threads"]
            took, clock = (
                (f"{three_digits(row['cpu_seconds'])} processor seconds with {threads} thread(s)", "processor seconds")
                if device == "cpu"
                else (f"{three_digits(row['seconds'])} seconds on {device}", "the clock")
            )
            said.append(
                f"One clean training of ResNet-18 ({row['epochs']} epochs, {row['steps']:,} steps) takes {took},"
                f" scaled from {row['steps_timed']} timed steps; costs are compared by {clock}."
            )
    parts = [result["name"] for result in results if result["cost"] and result["cost"]["parts"] > 1]
    if parts:
        said.append(f"Interrupted while it was made, so that its cost counts some work twice: {', '.join(parts)}.")
    if any(result["margin"] is not None for result in results):
        said.append(
            "A margin is the recipient's mean accuracy less that of the strongest single run on any copy."
            " Who queries the recipient's network sets none."
        )
    doubted: dict[str, dict[str, str]] = {}  # why, whatever its numbers -> the protections and what is said of each
    for result in results:
        for doubt in result["why_no_evidence"]:
            doubted.setdefault(re.sub(r"\d+", "#", doubt), {})[result["name"]] = doubt
    for doubts in sorted(doubted.values(), key=len, reverse=True):
        if 2 * len(doubts) > len(results):  # what most have in common needs no names
            said.append(Counter(doubts.values()).most_common(1)[0][0])
        else:
            said += [f"{name}: {doubt}" for name, doubt in doubts.items()]
    return said


def page(records: Sequence[dict[str, Any]]) -> str:
    """One self-contained HTML file: tables that sort by any column with a small script of its own, nothing fetched."""
    script = resources.files("uge.report").joinpath("leaderboard.js").read_text(encoding="utf-8")
    found = results_of(records)
    columns = columns_of(result for results in found.values() for result in results)
    boards = [
        {
            "dataset": dataset,
            "facts": facts(records, dataset),
            "rows": [_cells(result, columns) for result in results],
            "results": results,
        }
        for dataset, results in found.items()
    ]
    content: dict[str, Any] = {
        "boards": boards,
        "columns": [
            {"title": each.title, "first": "ascending" if each.lower_first else "descending"} for each in columns
        ],
        "script": script,
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "environment": next((row["environment"] for row in records if row["kind"] == "yardstick"), {}),
    }
    return filled_template("leaderboard.html.j2", content)


def _cells(result: Result, columns: Sequence[Column]) -> list[dict[str, Any]]:
    return [
        {"text": column.shown(result), "detail": column.detail(result), "value": column.value(result)}
        for column in columns
    ]
