"""Before and after at three epsilons (`quality/gallery.py`): how copies look, and who learns what from them.

A row is a training, as an audit writes it, with `dataset` and `epsilon_255`; or `"kind": "copy"`, with `psnr_db` and
`ssim`.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, shown, table

HACKERS = {"none": "vgg", "grayscale": "vgg behind grayscale", "jpeg:10": "vgg behind JPEG 10"}


def gallery_table(rows: Sequence[Row]) -> str:
    """A line an epsilon, and one for the originals; who learns what only where somebody was trained."""
    trainings = [row for row in rows if row["kind"] != "copy"]
    header, lines = ["copy", "PSNR, dB", "SSIM"], []
    for copy in sorted((row for row in rows if row["kind"] == "copy"), key=lambda row: row["epsilon_255"]):
        own = [row for row in trainings if row["epsilon_255"] == copy["epsilon_255"]]
        looks = [f"epsilon {copy['epsilon_255']}", f"{copy['psnr_db']:.1f}", f"{copy['ssim']:.3f}"]
        lines.append([*looks, *_learnt(own, "published")] if trainings else looks)
    if trainings:
        header += ["recipient, %", *(f"{name}, %" for name in HACKERS.values())]
        once = {(row["kind"], row["countermeasure"]): row for row in trainings if row["trained_on"] == "clean"}
        lines.append(["the originals", "-", "-", *_learnt([*once.values()], "clean")])
    return table(header, lines)


def _learnt(rows: Sequence[Row], source: str) -> list[str]:
    """What the recipient and each hacker reach on the copy or on the originals."""
    found = []
    for kind, how in (("authorised", "none"), *(("hacker", how) for how in HACKERS)):
        whose = kind, how, source
        found.append(
            [row["accuracy"] for row in rows if (row["kind"], row["countermeasure"], row["trained_on"]) == whose]
        )
    return [shown(values) for values in found]
