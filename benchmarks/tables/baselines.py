"""Protections of other papers: our copies and hackers, and published figures (`quality/baselines.py`).

A row is a training, or `"kind": "measures"` a copy. Rows of `published` are figures that others published, with their
source.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from benchmarks.tables.text import NOT_MEASURED, Row, figure, shown, table, trained_at


def baseline_groups(rows: Iterable[Row]) -> dict[tuple[str, int, str, int, str], list[Row]]:
    """(data set, its images, hacker, epochs, precision) -> trainings on whatever data; the latest of each cell."""
    latest = {(row["method"], row["cell"]): row for row in rows if row["kind"] == "hacker"}
    found: dict[tuple[str, int, str, int, str], list[Row]] = {}
    for row in latest.values():
        recipe = row["recipe"]
        who = row["dataset"], row["images"], row["network"], recipe["epochs"], recipe["precision"]
        found.setdefault(who, []).append(row)
    return found


def baseline_table(rows: Iterable[Row]) -> str:
    """A table a hacker: protections down, counter-measures across, the ceilings first."""
    parts = []
    for (_, _, network, _, precision), trainings in baseline_groups(rows).items():
        hows = list(dict.fromkeys(row["countermeasure"] for row in trainings))
        plain = _accuracies(trainings, "clean", "none")
        body = [["on the originals", *(shown(_accuracies(trainings, "clean", how)) for how in hows), ""]]
        for method in dict.fromkeys(row["method"] for row in trainings if row["method"] != "clean"):
            naive = _accuracies(trainings, method, "none")
            drop = f"{fmean(plain) - fmean(naive):.1f}" if plain and naive else "-"
            body.append([f"`{method}`", *(shown(_accuracies(trainings, method, how)) for how in hows), drop])
        parts.append(
            f"Hacker {network}, {precision}; {trained_at(trainings)}.\n\n"
            + table(["protection", *hows, "plain: points below clean"], body)
        )
    return "\n".join(parts) if parts else NOT_MEASURED


def _accuracies(trainings: Iterable[Row], method: str, how: str) -> list[float]:
    return [row["accuracy"] for row in trainings if (row["method"], row["countermeasure"]) == (method, how)]


def baseline_copies(rows: Iterable[Row]) -> str:
    """What each copy of a baseline measures, and what it took to make."""
    latest = {(row["dataset"], row["cell"]): row for row in rows if row["kind"] == "measures"}
    body = [
        [
            f"`{row['method']}`",
            row["dataset"],
            str(row["config"].get("network", "none")),
            str(row["epsilon_measured_255"]),
            f"{row['psnr_db']:.1f}",
            f"{row['ssim']:.3f}",
            figure(row["protect_cpu_seconds"]) if "protect_cpu_seconds" in row else "-",
            figure(row["protect_seconds"]),
        ]
        for row in latest.values()
    ]
    header = ["protection", "data", "its own network", "largest change, /255", "PSNR, dB", "SSIM", "processor seconds"]
    return table([*header, "seconds"], body)


def field_table(rows: Iterable[Row], published: Iterable[Row]) -> str:
    """Published figures beside ours of the hacker who met most protections."""
    published = list(published)
    groups = baseline_groups(rows)
    if not published or not groups:
        return NOT_MEASURED
    (dataset, images, network, epochs, _), ours = max(groups.items(), key=lambda item: len(item[1]))
    hows = list(dict.fromkeys(row["countermeasure"] for row in published))
    options = {row["countermeasure"].partition(":")[0]: row["countermeasure"] for row in ours}
    same = {how: options.get(how, how) for how in hows}  # published "adversarial" gives no options
    theirs = {(row["method"], row["countermeasure"]): row["accuracy"] for row in published}
    body = []
    for method in dict.fromkeys(row["method"] for row in published):
        figures = [[theirs[method, how]] if (method, how) in theirs else [] for how in hows]
        cells = [
            f"{shown(public)} / {shown(_accuracies(ours, method, same[how]))}"
            for how, public in zip(hows, figures, strict=True)
        ]
        body.append([f"`{method}`", *cells])
    body.append(["on the originals", *(f"- / {shown(_accuracies(ours, 'clean', same[how]))}" for how in hows)])
    weaker = ", ".join(f"`{ours_how}` under {how}" for how, ours_how in same.items() if ours_how != how)
    first, *others = dict.fromkeys(row["source"] for row in published)
    about = "; ".join([f"{first} (all others)", *(f"{source} ({_of(source, published)})" for source in others)])
    return (
        f"Published: CIFAR-10, 50000 images, ResNet-18, from {about}. Ours: {dataset}, {images} images,"
        f" {network}, {epochs} epochs{f', {weaker}' if weaker else ''}. In each cell published / ours; - was not"
        " measured.\n\n" + table(["protection", *hows], body)
    )


def _of(source: str, published: Iterable[Row]) -> str:
    """What a source has figures of: one protection, or one counter-measure against several."""
    rows = [row for row in published if row["source"] == source]
    methods = {row["method"] for row in rows}
    return f"`{methods.pop()}`" if len(methods) == 1 else rows[0]["countermeasure"]
