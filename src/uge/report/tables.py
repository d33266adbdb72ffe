"""The accuracy table, computed from summary.json alone: for the page, the terminal and the README."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

MINUS, DASH = "\u2212", "\u2013"
COLUMNS = ("network", "counter-measure / role", "knows", "clean %", "published %", "peak %", "difference")


@dataclass(frozen=True)
class Row:
    """One line of the table; accuracies in percent of clean held-out images, None where nobody measured.

    Attributes:
        role: "authorised", "hacker" or "chance".
        network: label of the architecture.
        countermeasure: as in the records; empty unless the role is "hacker".
        knows: what this user knows beyond the published images.
        clean: after the same training on the originals, mean over seeds.
        published: after training on the published copy, mean over seeds.
        peak: the best epoch on the published copy, picked on test data, mean over seeds.
        span: lowest and highest `published` over the seeds.
        seeds: trainings behind the row.
    """

    role: str
    network: str
    countermeasure: str = ""
    knows: str = ""
    clean: float | None = None
    published: float | None = None
    peak: float | None = None
    span: tuple[float, float] | None = None
    seeds: int = 0

    @property
    def difference(self) -> float | None:
        """Published minus clean, in points: what the protection takes from this user."""
        return None if self.published is None or self.clean is None else self.published - self.clean

    @property
    def role_label(self) -> str:
        """The second column in words."""
        if self.role == "hacker":
            return countermeasure_label(self.countermeasure)
        return {"authorised": "authorised", "chance": "guessing"}[self.role]

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `COLUMNS`."""
        if self.role == "chance":
            return ("chance", "guessing", "", percent(self.clean), percent(self.published), "", "")
        numbers = (percent(self.clean), percent(self.published), percent(self.peak), points(self.difference))
        return (self.network, self.role_label, self.knows, *numbers)


def percent(value: float | None) -> str:
    """One decimal, or a dash where there is no number."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.1f}"


def points(value: float | None) -> str:
    """A difference in points with its sign (a true minus), or a dash."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else MINUS) + text


def countermeasure_label(spec: str) -> str:
    """A counter-measure's spec in words: "distillation:soft,temperature=4" -> "distillation (soft, temperature 4)"."""
    named = {"none": "plain training", "other-init": "other initial weights"}
    if spec in named:
        return named[spec]
    name, _, options = spec.partition(":")
    return f"{name} ({options.replace(',', ', ').replace('=', ' ')})" if options else name


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers that exist; None where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def accuracy_table(summary: dict[str, Any]) -> list[Row]:
    """The rows: the authorised user first, then the hackers from the strongest down, then chance.

    Args:
        summary: summary.json. Trainings that differ in their seed alone share a row.
    """
    rows: list[Row] = []
    if authorised := summary.get("authorised"):
        rows.append(
            Row(
                role="authorised",
                network=authorised["network"],
                knows="key",
                clean=authorised.get("clean_accuracy"),
                published=authorised.get("accuracy"),
                peak=authorised.get("peak_accuracy"),
                seeds=seed_count(authorised.get("seeds")),
            )
        )
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for hacker in summary.get("hackers", []):
        groups.setdefault((hacker["network"], hacker["countermeasure"], hacker["knows"]), []).append(hacker)
    hackers = []
    for (network, countermeasure, knows), runs in groups.items():
        finals = [run["accuracy"] for run in runs]
        hackers.append(
            Row(
                role="hacker",
                network=network,
                countermeasure=countermeasure,
                knows=knows,
                clean=mean(run.get("clean_accuracy") for run in runs),
                published=mean(finals),
                peak=mean(run.get("peak_accuracy") for run in runs),
                span=(min(finals), max(finals)),
                seeds=len(runs),
            )
        )
    rows += sorted(hackers, key=lambda row: -math.inf if row.published is None else row.published, reverse=True)
    return [*rows, Row(role="chance", network="chance", clean=summary["chance"], published=summary["chance"])]


def seed_count(seeds: int | Sequence[int] | None) -> int:
    """How many seeds, whether the summary counts or lists them."""
    return seeds if isinstance(seeds, int) else len(seeds or ())


def closing_lines(summary: dict[str, Any]) -> list[str]:
    """What stands beneath the table: the margin and the worst (that is, strongest) hacker."""
    worst, margin = summary.get("worst"), summary.get("margin")
    if not worst:
        return ["No hacker was trained, so there is no margin."]
    name = f"{worst['network']}, {countermeasure_label(worst['countermeasure'])}"
    lines = [f"Strongest hacker: {name}, {percent(worst['accuracy'])} %"]
    if margin is not None:
        lines.insert(0, f"Margin (authorised minus strongest hacker): {points(margin)} points")
    return lines


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the table to the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    table = Table(title="Accuracy on clean held-out images", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for number, column in enumerate(COLUMNS):
        if number < 3:
            table.add_column(column, min_width=15 if number == 1 else None, overflow="fold")
        else:  # numbers are never folded; a narrow terminal folds the words instead
            longest = max(map(len, column.split()))
            table.add_column(column.replace(" ", "\n"), justify="right", min_width=longest, no_wrap=True)
    styles = {"authorised": "bold cyan", "hacker": "", "chance": "dim"}
    rows = accuracy_table(summary)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        boundary = following is not None and following.role != row.role
        table.add_row(*row.cells(), style=styles[row.role], end_section=boundary)
    console.print(table)
    for line in closing_lines(summary):
        console.print(line, markup=False, highlight=False)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, for a README."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|--:|--:|--:|"]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row.cells()]
        lines.append("| " + " | ".join(f"**{c}**" if row.role == "authorised" and c else c for c in cells) + " |")
    return "\n".join(lines) + "\n"
