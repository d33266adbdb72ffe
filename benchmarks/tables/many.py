"""Many images (`speed/many.py`): what a stage costs by number and size, by workers, and with kills on the way.

A row is {"table", "measure", "subject", "value", "unit", "environment"}. Those of "numbers", one a stage, have
`images`, `workers`, `core_seconds` and `megabytes` (the peak of all processes, without what lies in files); those of
"formats" have `write_ms` and `read_ms`. Of two rows of one measurement the later counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.tables.text import NOT_MEASURED, Row, figure, table

EACH = ("reading the originals", "making and writing the copies", "verifying every view", "opening to files")
TIMES = ("write_ms", "read_ms")
MANY = 10**8


def _latest(rows: Iterable[Row], name: str) -> list[Row]:
    return list({(row["subject"], row["measure"]): row for row in rows if row["table"] == name}.values())


def numbers_table(rows: Iterable[Row]) -> str:
    """A line a stage of each number of images."""
    lines = [
        [
            f"{row['subject']}: {row['measure']}",
            f"{row['workers']}",
            f"{figure(row['value'])} s",
            f"{figure(row['core_seconds'])} s",
            f"{figure(1000 * row['core_seconds'] / row['images'])} ms" if row["measure"] in EACH else "-",
            f"{row['megabytes']:,.0f} MiB",
        ]
        for row in _latest(rows, "numbers")
    ]
    return table(["images: stage", "processes", "time", "of cores", "of a core, an image", "peak memory"], lines)


def many_table(rows: Iterable[Row], name: str) -> str:
    """A line a figure."""
    lines = [[row["measure"], row["subject"], f"{figure(row['value'])} {row['unit']}"] for row in _latest(rows, name)]
    return table(["measure", "of", "value"], lines)


def formats_table(rows: Iterable[Row]) -> str:
    """A line a format and kind of image."""
    lines = [
        [row["subject"], row["measure"], f"{figure(row['value'])} kB", *(f"{figure(row[each])} ms" for each in TIMES)]
        for row in _latest(rows, "formats")
    ]
    return table(["files", "format", "an image", "to write", "to read"], lines)


def hundred_million(rows: Sequence[Row]) -> str:
    """What a hundred million images would take, in proportion to the largest number of small ones that was measured."""
    small = [row for row in _latest(rows, "numbers") if "32x32" in row["subject"] and row["measure"] in EACH]
    if not small:
        return NOT_MEASURED
    most = max(row["images"] for row in small)
    hours = {row["measure"]: row["core_seconds"] / most * MANY / 3600 for row in small if row["images"] == most}
    lines = [[stage, f"{figure(each)} hours", f"{figure(3.6 * each)} seconds"] for stage, each in hours.items()]
    return table([f"stage, from {most:,} images of 32x32", "one core", "1,000 cores"], lines)
