"""The accuracy table, computed from summary.json alone: for the page, the terminal and the README."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        counts: whether he speaks of the protection; see `uge.audit.metrics.counts`.
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
    counts: bool = True

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
    """A counter-measure's spec in words: "jpeg:30+pairs:9,depth=4" -> "jpeg (30) + pairs (9, depth 4)"."""
    named = {"none": "plain training", "other-init": "other initial weights"}
    if spec in named:
        return named[spec]
    parts = []
    for part in spec.split("+"):
        name, _, options = part.partition(":")
        parts.append(f"{name} ({options.replace(',', ', ').replace('=', ' ')})" if options else name)
    return " + ".join(parts)


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
                span=authorised.get("span"),
                seeds=len(authorised["seeds"]),
            )
        )
    finals: dict[tuple[str, str, str], list[float]] = {}
    for hacker in summary["hackers"]:
        finals.setdefault(who(hacker), []).append(hacker["accuracy"])
    hackers = [
        Row(
            role="hacker",
            network=group["network"],
            countermeasure=group["countermeasure"],
            knows=group["knows"],
            clean=group["clean_accuracy"],
            published=group["accuracy"],
            peak=group["peak_accuracy"],
            span=(min(finals[who(group)]), max(finals[who(group)])),
            seeds=group["seeds"],
            counts=counts(group),
        )
        for group in summary["groups"]
    ]
    rows += sorted(hackers, key=lambda row: -math.inf if row.published is None else row.published, reverse=True)
    return [*rows, Row(role="chance", network="chance", clean=summary["chance"], published=summary["chance"])]


def counts(group: dict[str, Any]) -> bool:
    """Whether a group of summary.json speaks of the protection; those of an earlier version have only one control."""
    return bool(group.get("counts", group["knows"] != "key"))


def who(row: dict[str, Any]) -> tuple[str, str, str]:
    """What runs of one hacker have in common, whatever their seed."""
    return row["network"], row["countermeasure"], row["knows"]


@dataclass(frozen=True)
class Heatmap:
    """Counter-measures down, networks across.

    Attributes:
        networks: labels of the columns.
        rows: (counter-measure in words, what it knows, a group of summary.json or None for each network), the one
            that recovers the most first, after plain training.
    """

    networks: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[dict[str, Any] | None, ...]], ...]

    @property
    def undertrained(self) -> bool:
        """Whether any hacker was not trained long enough to count."""
        return any(group and group["undertrained"] for *_, cells in self.rows for group in cells)

    @property
    def gaps(self) -> bool:
        """Whether any counter-measure was not tried on every network."""
        return any(group is None for *_, cells in self.rows for group in cells)


def heatmap(summary: dict[str, Any]) -> Heatmap:
    """The grid of an audit; a hacker with the authorised architecture stands in its column."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for group in summary["groups"]:
        how = "none" if group["countermeasure"] == "other-init" else group["countermeasure"]
        groups.setdefault(how, {})[group["network"]] = group
    networks = tuple(dict.fromkeys(group["network"] for group in summary["groups"]))

    def strength(how: str) -> float:
        return max(group["accuracy"] if group["recovered"] is None else 100 * group["recovered"]
                   for group in groups[how].values())  # fmt: skip

    order = sorted(groups, key=lambda how: (how != "none", -strength(how)))
    rows = []
    for how in order:
        knows = [group["knows"] for group in groups[how].values() if group["knows"] != "architecture"]
        cells = tuple(groups[how].get(network) for network in networks)
        rows.append((countermeasure_label(how), knows[0] if knows else "nothing", cells))
    return Heatmap(networks, tuple(rows))


def heat_text(group: dict[str, Any] | None) -> str:
    """One cell in words: accuracy, half-width of its interval, share recovered, whether undertrained."""
    if group is None:
        return ""
    text = percent(group["accuracy"])
    if group["interval"] is not None:
        text += f" ± {group['interval'][1] - group['accuracy']:.1f}"
    if group["recovered"] is not None:
        text += f" ({100 * group['recovered']:.0f} %)"
    return text + (" †" if group["undertrained"] else "")


def heatmap_markdown(heat: Heatmap) -> str:
    """The grid as a Markdown table."""
    head = ["counter-measure", "knows", *heat.networks]
    lines = [head, ["---", "---", *["--:"] * len(heat.networks)]]
    lines += [[how, knows, *map(heat_text, cells)] for how, knows, cells in heat.rows]
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines)
        + "\n\nAccuracy in percent, and in brackets the share recovered: (accuracy - chance) / (ceiling - chance)."
        + (" † undertrained." if heat.undertrained else "")
        + "\n"
    )


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
        network, *others = row.cells()
        table.add_row(
            network.replace("(", " (").replace(",", ", "), *others, style=styles[row.role], end_section=boundary
        )
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
