"""The geometry of the page's figures: where each mark goes, in percent of its plot; the template draws them.

Percent coordinates let one SVG fit a phone and a desktop without scaling its text.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from torch import Tensor

from uge.data.decoding import picture_of
from uge.report.tables import AccuracyRow, countermeasure_label, hacker_label, interval_of, originals, percent

if TYPE_CHECKING:
    import PIL.Image

MOST_BARS = 8  # the recipient and seven hackers
TILE, GAP, MARGIN = 108, 4, 96  # of a comparison picture, in pixels: an image, between two, what names the rows


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


def line(role: str, values: Sequence[float], steps: int, top: float) -> Line:
    """Place values from 0 to `top`, one a step, so many steps from side to side.

    A single one becomes a level line, for a lone point has no stroke.
    """
    if len(values) == 1:
        values, steps = [*values, *values], 1
    return Line(role, " ".join(f"{100 * n / steps:.2f},{100 * (top - y) / top:.2f}" for n, y in enumerate(values)))


def tick_marks(top: float) -> tuple[Tick, ...]:
    """Of an accuracy axis from 0 to `top`."""
    return tuple(Tick(100 * share, f"{share * top:.4g} %") for share in (0.0, 0.5, 1.0))


def axis_top(accuracies: Iterable[float]) -> float:
    """The end of an accuracy axis from 0 that holds them all: a multiple of 20 percent."""
    return 20.0 * max(1, math.ceil(max(accuracies, default=0.0) / 20))


def bars(rows: Sequence[AccuracyRow]) -> list[AccuracyRow]:
    """The rows of the accuracy table that are drawn: the recipient, then at most seven hackers, the strongest last.

    Where there are more, these are the strongest, with room for one at least who queries the recipient's network.
    """
    recipient = [row for row in rows if row.role == "authorised"]
    hackers = [row for row in rows if row.role == "hacker" and row.counts]
    asking = [row for row in hackers if row.asks]
    others = [row for row in hackers if not row.asks]
    room = MOST_BARS - len(recipient)
    asking = asking[-max(1, room - len(others)) :]
    return [*recipient, *others[-(room - len(asking)) :], *asking]


def in_short(rows: Sequence[AccuracyRow]) -> list[AccuracyRow]:
    """The rows of the first screen: the recipient, the strongest hacker who does not query his network, chance."""
    hackers = [row for row in rows if row.role == "hacker" and row.counts]
    best = [row for row in hackers if not row.asks] or hackers
    return [row for row in rows if row.role != "hacker" or row in best[-1:]]


def described(rows: Sequence[AccuracyRow], chance: float) -> str:
    """The bars for people who hear the page."""
    said = "; ".join(
        f"{row.network}, {row.role_label}: {percent(row.published)} on the copy, {percent(row.clean)} on the originals"
        for row in rows
    )
    return f"Accuracy in percent, guessing {percent(chance)}. {said}."


def training_curves(rows: Sequence[AccuracyRow], records: Sequence[dict[str, Any]]) -> list[Panel]:
    """Test accuracy an epoch, one panel a hacker: his runs, the authorised ones, and his own on clean images.

    The accuracy table gives the order. Records without a curve or of another budget are passed over.
    """
    whole = [each for each in records if each.get("budget", 1.0) == 1.0 and not each.get("originals")]
    runs = [record for record in whole if record.get("test_accuracy")]
    authorised = [r for r in runs if r["kind"] == "authorised" and r["trained_on"] == "published"]
    authorised_clean = [r for r in runs if r["kind"] == "authorised" and r["trained_on"] == "clean"]
    top = axis_top(accuracy for run in runs for accuracy in run["test_accuracy"])
    panels = []
    for row in rows:
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
        first, last = (fmean(run["test_accuracy"][epoch] for run in own) for epoch in (0, -1))
        panels.append(
            Panel(
                title=row.network,
                subtitle="recipient" if row.role == "authorised" else countermeasure_label(row.countermeasure),
                lines=tuple(line(role, curve, epochs - 1, top) for role, curve in shown),
                ticks=tick_marks(top),
                first="epoch 1",
                last=str(epochs),
                description=f"{row.network}, {row.role_label}: test accuracy from {percent(first)} % after the first"
                f" epoch to {percent(last)} % after the last; best epoch {percent(row.peak)} %.",
            )
        )
    return panels


def ladders(summary: dict[str, Any]) -> list[Panel]:
    """Accuracy against how much a hacker has, for counter-measures that were tried with two amounts or more.

    The horizontal axis has the amounts in order, equally far apart; one panel a network.
    """
    found: dict[tuple[str, str, str], dict[float, float]] = {}
    for group in summary["groups"]:
        if (amount := group.get("amount")) and "+" not in group["countermeasure"]:
            name = group["countermeasure"].partition(":")[0]
            steps = found.setdefault((name, amount["of"], group["network"]), {})
            steps[amount["number"]] = max(group["accuracy"], steps.get(amount["number"], 0.0))  # the best with so many
    authorised = summary["authorised"]
    panels = []
    for (name, unit, network), steps in found.items():
        if len(steps) < 2:
            continue
        points = sorted(steps.items())
        drawn: dict[str, list[float]] = {"authorised": [authorised["accuracy"]]} if authorised else {}
        drawn["hacker"] = [accuracy for _, accuracy in points]
        top = axis_top(accuracy for values in drawn.values() for accuracy in values)
        told = "; ".join(f"{amount:g}: {percent(accuracy)} %" for amount, accuracy in points)
        panels.append(
            Panel(
                title=name,
                subtitle=network,
                lines=tuple(line(role, values, len(points) - 1, top) for role, values in drawn.items()),
                ticks=tick_marks(top),
                first=f"{points[0][0]:g} {unit}",
                last=f"{points[-1][0]:g}",
                description=f"{name}, {network}: accuracy with {unit} {told}.",
            )
        )
    return panels


def worths(summary: dict[str, Any]) -> list[Panel]:
    """Accuracy against the number of originals, and the level that the copy teaches; one panel a hacker with a curve.

    The horizontal axis has the sizes in order, equally far apart.
    """
    panels = []
    for worth in summary.get("worth") or []:
        sizes, fitted = ([point[name] for point in worth["curve"]] for name in ("originals", "fitted"))
        top = axis_top([*fitted, worth["accuracy"]])
        told = "; ".join(f"{size:,}: {percent(accuracy)} %" for size, accuracy in zip(sizes, fitted, strict=True))
        told += f". The copy teaches {percent(worth['accuracy'])} %"
        panels.append(
            Panel(
                title=worth["network"],
                subtitle=f"{countermeasure_label(worth['countermeasure'])}: {originals(worth['originals'], worth)}"
                f" originals{interval_of(worth)}",
                lines=(line("clean", fitted, len(sizes) - 1, top), line("hacker", [worth["accuracy"]], 1, top)),
                ticks=tick_marks(top),
                first="0 originals",
                last=f"{sizes[-1]:,}",
                description=f"{hacker_label(worth)}: accuracy by the number of originals, {told}.",
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
    return "data:image/png;base64," + base64.b64encode(_png(picture_of(image))).decode()


def comparison_picture(originals: Tensor, copies: Tensor) -> bytes:
    """Originals above their copies above the differences, as one PNG of 800 pixels at most, for a README.

    Args:
        originals: uint8 [N, C, H, W]; as many are shown as fit beside each other, seven of 32x32.
        copies: uint8, same shape.

    Returns:
        The bytes of the PNG. Small images are enlarged by whole factors, large ones are reduced.
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = amplification(int((originals.int() - copies.int()).abs().max()))
    rows = {"original": originals, "copy": copies, f"difference\ntimes {factor}": amplified(originals, copies, factor)}
    size = _shown_size(*originals.shape[2:])
    count = min(len(originals), (800 - MARGIN) // (size[0] + GAP))
    sheet = Image.new("RGB", (MARGIN + count * (size[0] + GAP), len(rows) * (size[1] + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, (title, images) in enumerate(rows.items()):
        top = row * (size[1] + GAP)
        draw.text((6, top + size[1] // 2), title, fill="black", font=font, anchor="lm")
        for column, image in enumerate(images[:count]):
            larger = size[0] > image.shape[2]
            shown = picture_of(image).resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)
            sheet.paste(shown, (MARGIN + column * (size[0] + GAP), top))
    return _png(sheet)


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of an image in a comparison picture: the largest whole factor, or reduced to a tile."""
    scale = TILE / max(height, width)
    scale = int(scale) if scale >= 1 else scale
    return max(1, round(scale * width)), max(1, round(scale * height))


def _png(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
