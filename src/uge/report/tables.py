"""The accuracy table, computed from summary.json alone: for the page, the terminal and the README."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from uge.outside import escaped_markdown
from uge.records import ASKS, asks

if TYPE_CHECKING:
    from rich.console import Console

MINUS, DASH = "\u2212", "\u2013"
COLUMNS = ("network", "counter-measure / role", "knows", "clean %", "published %", "peak %", "difference")


@dataclass(frozen=True)
class AccuracyRow:
    """One line of the table; accuracies in percent of clean held-out images, None where nobody measured.

    Attributes:
        role: "authorised", "hacker" or "chance".
        network: label of the architecture.
        countermeasure: as in the records; empty unless the role is "hacker".
        knows: what this user knows beyond the published images.
        clean: after the same training on the originals, mean over seeds.
        published: after training on the published copy, mean over seeds.
        peak: the best epoch on the published copy, picked on test data, mean over seeds.
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
    seeds: int = 0
    counts: bool = True

    @property
    def asks(self) -> bool:
        """Whether he queries the recipient's network; the margin is measured against all who do not."""
        return self.role == "hacker" and self.knows == ASKS

    @property
    def difference(self) -> float | None:
        """Published minus clean, in points: what the protection takes from this user."""
        return None if self.published is None or self.clean is None else self.published - self.clean

    @property
    def role_label(self) -> str:
        """The second column in words."""
        if self.role == "hacker":
            return countermeasure_label(self.countermeasure)
        return {"authorised": "recipient", "chance": "guessing"}[self.role]

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
    named = {"none": "plain training", "other-init": "same network, no key"}
    if spec in named:
        return named[spec]
    parts = []
    for part in spec.split("+"):
        name, _, options = part.partition(":")
        parts.append(f"{name} ({options.replace(',', ', ').replace('=', ' ')})" if options else name)
    return " + ".join(parts)


def accuracy_table(summary: dict[str, Any]) -> list[AccuracyRow]:
    """The rows: recipient, hackers who do not query his network, those who do, controls, chance.

    Within each part the weakest comes first, so that the last hacker is the one who wins. Trainings that differ in
    their seed alone share a row.
    """
    rows: list[AccuracyRow] = []
    if authorised := summary.get("authorised"):
        rows.append(
            AccuracyRow(
                role="authorised",
                network=authorised["network"],
                knows="key",
                clean=authorised.get("locked_clean_accuracy"),
                published=authorised.get("accuracy"),
                peak=authorised.get("peak_accuracy"),
                seeds=len(authorised["seeds"]),
            )
        )
    hackers = [
        AccuracyRow(
            role="hacker",
            network=group["network"],
            countermeasure=group["countermeasure"],
            knows=group["knows"],
            clean=group["clean_accuracy"],
            published=group["accuracy"],
            peak=group["peak_accuracy"],
            seeds=group["seeds"],
            counts=group["counts"],
        )
        for group in summary["groups"]
    ]
    rows += sorted(hackers, key=lambda row: (not row.counts, row.asks, row.published))
    return [*rows, AccuracyRow(role="chance", network="chance", clean=summary["chance"], published=summary["chance"])]


def parts(rows: Sequence[AccuracyRow]) -> list[tuple[str, list[AccuracyRow]]]:
    """The rows of the accuracy table in its parts, each with a title; "" where it needs none."""
    return [(title, list(members)) for title, members in groupby(rows, _part)]


def _part(row: AccuracyRow) -> str:
    if row.role != "hacker":
        return ""
    if not row.counts:
        return "Controls, who count for no margin"
    return "Hackers who query the recipient's network" if row.asks else "Hackers: the margin is measured against these"


def counted_runs(summary: dict[str, Any], *, asking: bool | None = None) -> list[dict[str, Any]]:
    """Single trainings of hackers who speak of the protection.

    With `asking` those alone who query the recipient's network, or those alone who do not.
    """
    counted = {who(group) for group in summary["groups"] if group["counts"]}
    return [hacker for hacker in summary["hackers"] if who(hacker) in counted and asking in (None, asks(hacker))]


def pixels(manifest: dict[str, Any]) -> str:
    """The size of images: "32 x 32 pixels", or "24 x 40 pixels (height x width)" where the order matters."""
    height, width = manifest["image_size"]
    notes = ["height x width"] * (height != width) + ["as networks see them"] * bool(manifest.get("own_sizes"))
    return f"{height} x {width} pixels" + (f" ({', '.join(notes)})" if notes else "")


def trained_on(row: dict[str, Any]) -> str:
    """What a training learnt from, and for how long where it was not the usual number of epochs."""
    budget, what = row.get("budget", 1.0), "the originals" if row["trained_on"] == "clean" else "the copy"
    what = f"{row['originals']:,} originals" if row.get("originals") else what
    return what if budget == 1 else f"{what}, {budget:g} times the epochs"


def strongest(summary: dict[str, Any], *, asking: bool) -> dict[str, Any] | None:
    """The strongest single training of the hackers who query the recipient's network, or of those who do not.

    Where the originals were not tried with its seed, his level there is that of his other seeds.
    """
    best = max(counted_runs(summary, asking=asking), key=lambda run: run["accuracy"], default=None)
    if best is None or best["clean_accuracy"] is not None:
        return best
    group = next(each for each in summary["groups"] if who(each) == who(best))
    return best | {"clean_accuracy": group["clean_accuracy"]}


def worth_to(summary: dict[str, Any], *, pretrained: bool) -> dict[str, Any] | None:
    """What the copy is worth to the strongest hacker with a curve, without or with a pretrained encoder."""
    found = summary.get("worth") or []
    return next((each for each in found if each["pretrained"] == pretrained), None)


def originals(number: float | None, worth: dict[str, Any]) -> str:
    """A number of originals with two digits that count: "0", "150", "1,200".

    "more than 10,000" where None stands, and "fewer than 50" below the fewest that anybody was trained on.
    """
    if number is None:
        return f"more than {worth['curve'][-1]['originals']:,}"
    fewest = worth["curve"][1]["originals"]
    return f"fewer than {fewest:,}" if 0 < number < fewest else two_digits(number)


def two_digits(number: float) -> str:
    """A count with two digits that count: "0", "150", "1,200"."""
    return f"{float(f'{number:.2g}'):,.0f}"


def worth_words(worth: dict[str, Any]) -> str:
    """In a few words, as in "10,000 copies are worth 150 originals"."""
    return f"{worth['copies']:,} copies are worth {originals(worth['originals'], worth)} originals"


def originals_between(worth: dict[str, Any]) -> str:
    """The interval of a worth: "120 to 190"; "" of too few trainings for one."""
    if worth["interval"] is None:
        return ""
    low, high = (originals(each, worth) for each in worth["interval"])
    return low if low == high else f"up to {high}" if low.startswith("fewer") else f"{low} to {high}"


def interval_of(worth: dict[str, Any]) -> str:
    """The same as it stands behind a number: " (95 %: 120 to 190)"."""
    between = originals_between(worth)
    return between and f" (95 %: {between})"


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
    text = percent(group["accuracy"]) + plus_minus(group["interval"])
    if group["recovered"] is not None:
        text += f" ({100 * group['recovered']:.0f} %)"
    return text + (" †" if group["undertrained"] else "")


def plus_minus(ends: Sequence[float] | None, digits: int = 1) -> str:
    """The half-width of a 95% interval, where there is one."""
    return f" ± {(ends[1] - ends[0]) / 2:.{digits}f}" if ends else ""


def heatmap_markdown(heat: Heatmap) -> str:
    """The grid as a Markdown table."""
    head = ["counter-measure", "knows", *heat.networks]
    lines = [head, ["---", "---", *["--:"] * len(heat.networks)]]
    lines += [[how, knows, *map(heat_text, cells)] for how, knows, cells in heat.rows]
    return (
        "\n".join("| " + " | ".join(map(escaped_markdown, line)) + " |" for line in lines)
        + "\n\nAccuracy in percent, and in brackets the share recovered: (accuracy - chance) / (ceiling - chance)."
        + (" † undertrained." if heat.undertrained else "")
        + "\n"
    )


def closing_lines(summary: dict[str, Any]) -> list[str]:
    """What stands beneath the table: the margin, who sets it, the best student of the recipient, the copy's worth."""
    best, student, gap = strongest(summary, asking=False), strongest(summary, asking=True), summary["margin"]
    if not best and not student:
        return ["No hacker was trained, so there is no margin."]
    lines = []
    if gap is not None:
        lines.append(f"Margin against hackers who do not query the recipient's network: {points(gap)} points")
    if best:
        lines.append(f"Strongest of them: {hacker_label(best)}, {percent(best['accuracy'])} %")
    if student:
        lines.append(
            f"Strongest who queries the recipient's network: {hacker_label(student)}, {percent(student['accuracy'])} %"
        )
    return lines + [
        f"{worth_words(each)}{interval_of(each)} to {hacker_label(each)}" for each in summary.get("worth") or []
    ]


def hacker_label(hacker: dict[str, Any]) -> str:
    """Network and counter-measure in words."""
    return f"{hacker['network']}, {countermeasure_label(hacker['countermeasure'])}"


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the table to the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    table = Table(title="Accuracy on clean held-out images", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for number, column in enumerate(COLUMNS):
        if number < 3:
            table.add_column(column, min_width=15 if number == 1 else None, overflow="fold")
        else:  # numbers are never folded; a narrow terminal folds the words instead
            longest = max(map(len, column.split()))
            table.add_column(column.replace(" ", "\n"), justify="right", min_width=longest, no_wrap=True)
    styles = {"authorised": "bold cyan", "hacker": "", "chance": "dim"}
    for _, members in parts(accuracy_table(summary)):
        for row in members:
            network, *others = row.cells()
            texts = map(Text, (network.replace("(", " (").replace(",", ", "), *others))
            table.add_row(*texts, style=styles[row.role], end_section=row is members[-1])
    console.print(table)
    for line in closing_lines(summary):
        console.print(line, markup=False, highlight=False)
