"""What every table is made of: numbers as text, Markdown rows, where something was trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from uge.audit.metrics import interval
from uge.report.tables import plus_minus

NOT_MEASURED = "not measured yet\n"

Row = dict[str, Any]
Run = tuple[str, str, str]  # kind, network, counter-measure


def shown(values: Sequence[float], digits: int = 1) -> str:
    """As "28.7", "28.7 (28.1 to 29.3)" of two, or "28.7 ± 1.2" with the half-width of the 95% interval; "-" of none."""
    if not values:
        return "-"
    if len(values) == 2:  # the interval of two is all there may be
        low, high = (f"{value:.{digits}f}" for value in sorted(values))
        return low if low == high else f"{fmean(values):.{digits}f} ({low} to {high})"
    return f"{fmean(values):.{digits}f}{plus_minus(interval(values), digits)}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers. Without rows: not measured yet."""
    rows = list(rows)
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines) if rows else NOT_MEASURED


def figure(value: float) -> str:
    """Three digits that count, and never an exponent for a large number: "0.0123", "12.3", "12,345"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def numbered(values: Iterable[int]) -> str:
    return ", ".join(f"{value:,}" for value in sorted(set(values)))


def trained_at(trainings: Iterable[Row]) -> str:
    """Data, sizes, epochs, seeds and, where it was not all on processors, the machines."""
    rows = list(trainings)
    epochs = {row["recipe"]["epochs"] for row in rows} - {0}  # a probe trains no network
    machines = sorted({row.get("environment", {}).get("device", "cpu") for row in rows} - {"cpu"})
    return (
        f"{', '.join(sorted({row['dataset'] for row in rows}))}; {numbered(row['images'] for row in rows)} training"
        f" images, {numbered(row['test_images'] for row in rows)} test images,"
        f" {numbered(epochs)} epochs; seeds {numbered(row['seed'] for row in rows)}"
        + (f"; trained on processors and on {' and '.join(machines)}" if machines else "")
    )


def run_of(row: Row) -> Run:
    return row["kind"], row["network"], row["countermeasure"]


def short(network: str) -> str:
    """A network without its options."""
    return network.partition("(")[0]


def run_label(run: Run) -> str:
    kind, network, countermeasure = run
    if kind == "authorised":
        return f"authorised: {network}"
    if countermeasure == "other-init":
        return f"same architecture, other init: {network}"
    return network if countermeasure == "none" else f"{network}, {countermeasure}"
