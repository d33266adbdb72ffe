"""The geometry of the page's figures: where each mark goes, in percent of its plot; the template draws them.

Percent coordinates let one SVG fit a phone and a desktop without scaling its text.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from uge.report.tables import MINUS, Row, countermeasure_label, percent

MOST_POINTS = 200  # a line keeps at most this many; more cannot be seen and make the page heavy
TERMS = (
    ("loss", "total loss"),
    ("gradient_matching", "gradient matching"),
    ("shortcut", "shortcut"),
    ("feature_distance", "feature distance"),
    ("misdirection", "misdirection"),
    ("undistillation", "undistillation"),
)


@dataclass(frozen=True)
class Line:
    """A polyline in a box of 100 x 100 whose origin is at the top left; `role` names its colour and stroke."""

    role: str
    points: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in percent of the axis, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One small line plot with its caption and its description for people who hear the page."""

    title: str
    subtitle: str
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    first: str
    last: str
    description: str


@dataclass(frozen=True)
class DotPlot:
    """Clean against published accuracy, a row a network; the axis runs from 0 to `top` percent."""

    rows: tuple[Row, ...]
    top: float
    chance: float
    ticks: tuple[Tick, ...]
    description: str

    def place(self, accuracy: float) -> float:
        """Where an accuracy lies, in percent of the plot's width."""
        return 100 * accuracy / self.top


def nice_ticks(low: float, high: float, count: int = 3) -> list[float]:
    """About `count` round numbers that enclose low..high; the first and last are the ends of the axis."""
    if high <= low:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    rough = (high - low) / count
    scale = 10 ** math.floor(math.log10(rough))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def shorten(values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: means over runs of equal length."""
    size = math.ceil(len(values) / MOST_POINTS)
    parts = [values[start : start + size] for start in range(0, len(values), max(size, 1))]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def line(role: str, values: Sequence[tuple[float, float]], x_range: tuple[float, float], ticks: list[float]) -> Line:
    """Place (x, y) values; a single one becomes a level line, for a lone point has no stroke."""
    low, high, width = ticks[0], ticks[-1], x_range[1] - x_range[0]
    if len(values) == 1 or width <= 0:
        values, width = [(x_range[0], values[-1][1]), (x_range[0] + 1, values[-1][1])], 1
    coordinates = [(100 * (x - x_range[0]) / width, 100 * (high - y) / (high - low)) for x, y in values]
    return Line(role, " ".join(f"{x:.2f},{y:.2f}" for x, y in coordinates))


def tick_marks(values: list[float], unit: str = "") -> tuple[Tick, ...]:
    """Ticks spread over their own range."""
    span = values[-1] - values[0]
    return tuple(Tick(100 * (value - values[0]) / span, f"{value:.4g}{unit}".replace("-", MINUS)) for value in values)


def axis_top(accuracies: Iterable[float]) -> float:
    """The end of an accuracy axis from 0 that holds them all: a multiple of 20 percent."""
    return 20.0 * max(1, math.ceil(max(accuracies, default=0.0) / 20))


def dot_plot(rows: Sequence[Row], chance: float) -> DotPlot:
    """The plot of the accuracy table, without its chance row (that one is a line)."""
    rows = [row for row in rows if row.role != "chance" and row.published is not None]
    values = [v for row in rows for v in (row.clean, row.published, row.peak, *(row.span or ())) if v is not None]
    top = axis_top([*values, chance])
    said = "; ".join(
        f"{row.network}, {row.role_label}: {percent(row.clean)} on clean, {percent(row.published)} on published images"
        for row in rows
    )
    return DotPlot(
        rows=tuple(rows),
        top=top,
        chance=chance,
        ticks=tick_marks([20.0 * number for number in range(round(top / 20) + 1)]),
        description=f"Accuracy in percent, chance {percent(chance)}. {said}.",
    )


def training_curves(rows: Sequence[Row], records: Sequence[dict[str, Any]]) -> list[Panel]:
    """Test accuracy an epoch, one panel a hacker: his runs, the authorised ones, and his own on clean images.

    Args:
        rows: the accuracy table; gives the order.
        records: rows of records.jsonl. Those without a curve or of another budget are passed over.
    """
    whole = [record for record in records if record.get("budget", 1.0) == 1.0]
    runs = [record for record in whole if record.get("test_accuracy")]
    authorised = [r for r in runs if r["kind"] == "authorised" and r["trained_on"] == "published"]
    authorised_clean = [r for r in runs if r["kind"] == "authorised" and r["trained_on"] == "clean"]
    top = axis_top(accuracy for run in runs for accuracy in run["test_accuracy"])
    ticks = [0.0, top / 2, top]
    panels = []
    for row in rows:
        if row.role == "chance":
            continue
        if row.role == "authorised":
            drawn = [("clean", authorised_clean), ("authorised", authorised)]
            own = authorised
        else:
            of_row = [r for r in runs if r["kind"] == "hacker" and r["network"] == row.network]
            matching = [r for r in of_row if r["countermeasure"] == row.countermeasure]
            own = [r for r in matching if r["trained_on"] == "published" and r["knows"] == row.knows]
            clean = [r for r in matching if r["trained_on"] == "clean"] or [
                r for r in of_row if r["trained_on"] == "clean" and r["countermeasure"] == "none"
            ]
            drawn = [("clean", clean), ("authorised", authorised), ("hacker", own)]
        if not own:
            continue
        shown = [(role, run["test_accuracy"]) for role, group in drawn for run in group]
        epochs = max(len(curve) for _, curve in shown)
        lines = [
            line(role, [(n + 1, y) for n, y in enumerate(curve)], (1, max(epochs, 2)), ticks) for role, curve in shown
        ]
        first, last = mean_at(own, 0), mean_at(own, -1)
        panels.append(
            Panel(
                title=row.network,
                subtitle="authorised" if row.role == "authorised" else countermeasure_label(row.countermeasure),
                lines=tuple(lines),
                ticks=tick_marks(ticks, " %"),
                first="epoch 1",
                last=str(epochs),
                description=f"{row.network}, {row.role_label}: test accuracy from {percent(first)} % after the first"
                f" epoch to {percent(last)} % after the last; best epoch {percent(row.peak)} %.",
            )
        )
    return panels


def mean_at(runs: Sequence[dict[str, Any]], epoch: int) -> float:
    """The mean test accuracy of several runs at one epoch."""
    return sum(run["test_accuracy"][epoch] for run in runs) / len(runs)


LADDERS = {  # counter-measure -> title and what its number counts
    "noisy-key": ("Noisy copies of the right initial weights", "noise, relative"),
    "pairs": ("A denoiser from clean/protected pairs", "pairs"),
    "pair-means": ("Mean changes of the classes from clean/protected pairs", "pairs"),
    "clean-only": ("A few clean images alone", "clean images"),
    "clean-mixed": ("A few clean images among the copies", "clean images"),
    "refit": ("Last layer refit on clean images", "clean images"),
}


def ladders(summary: dict[str, Any]) -> list[Panel]:
    """Accuracy against how much a hacker has, for counter-measures that were tried with two amounts or more.

    The horizontal axis has the amounts in order, equally far apart; one panel a network.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for group in summary["groups"]:
        name, _, options = group["countermeasure"].partition(":")
        first = options.partition(",")[0].partition("=")
        amount = first[2] or first[0]
        if name in LADDERS and _is_number(amount):
            found.setdefault((name, group["network"]), []).append((float(amount), group["accuracy"]))
    authorised = summary["authorised"]
    panels = []
    for (name, network), points in found.items():
        if len(points) < 2:
            continue
        points.sort()
        steps = [(float(place), accuracy) for place, (_, accuracy) in enumerate(points)]
        width = (0.0, float(len(points) - 1))
        top = axis_top([accuracy for _, accuracy in points] + ([authorised["accuracy"]] if authorised else []))
        ticks = [0.0, top / 2, top]
        level = [line("authorised", [(0.0, authorised["accuracy"])], width, ticks)] if authorised else []
        told = "; ".join(f"{amount:g}: {percent(accuracy)} %" for amount, accuracy in points)
        title, unit = LADDERS[name]
        panels.append(
            Panel(
                title=title,
                subtitle=network,
                lines=(*level, line("hacker", steps, width, ticks)),
                ticks=tick_marks(ticks, " %"),
                first=f"{points[0][0]:g} {unit}",
                last=f"{points[-1][0]:g}",
                description=f"{title}, {network}: accuracy with {unit} {told}.",
            )
        )
    return panels


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def loss_panels(protect_log: Sequence[dict[str, Any]]) -> list[Panel]:
    """The terms of the protection's loss over its steps, one panel a term that was switched on."""
    panels = []
    for name, title in TERMS:
        known = [(float(row["step"]), row[name]) for row in protect_log if row.get(name) is not None]
        finite = [(step, value) for step, value in known if math.isfinite(value)]
        if not finite:
            continue
        values = shorten(finite)
        ticks = nice_ticks(min(y for _, y in values), max(y for _, y in values))
        first, last = finite[0][1], finite[-1][1]
        panels.append(
            Panel(
                title=title,
                subtitle=f"{first:.3g} → {last:.3g}".replace("-", MINUS),
                lines=(line("term", values, (values[0][0], values[-1][0]), ticks),),
                ticks=tick_marks(ticks),
                first=f"step {known[0][0]:.0f}",
                last=f"{known[-1][0]:.0f}",
                description=f"{title}: from {first:.3g} at the first step to {last:.3g} at the last.",
            )
        )
    return panels


def amplification(epsilon_255: int) -> int:
    """How far differences are stretched: the largest whole factor that keeps +-epsilon inside 0..255 around 128."""
    return max(1, 127 // max(1, epsilon_255))


def amplified(originals: Tensor, copies: Tensor, factor: int) -> Tensor:
    """128 + factor * (copy - original) as uint8, same shape: middle gray is an unchanged value."""
    return (128 + factor * (copies.int() - originals.int())).clamp(0, 255).byte()


def png_uri(image: Tensor) -> str:
    """One image, uint8 [C, H, W] with C = 1 or 3, as a PNG in a data URI."""
    from PIL import Image

    pixels = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
