"""Sealed copies: what the recipient and every hacker learn (`quality/sealed.py`).

Every row has `dataset`, `copy` ("sealed", or the name of what stands beside it) and `epsilon_255`. It is

- a training, as an audit writes it; `seed` names the copy, its key and the training; or
- `"kind": "copy"`: `seed`, `psnr_db`, `ssim`, `epsilon_measured_255`, `protect_seconds`, `views_identical`, and
  `recognised`: network -> the share in percent of copies whose class it still says, having learnt from the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from benchmarks.tables.audit import BELOW, grid
from benchmarks.tables.text import NOT_MEASURED, Row, figure, short, shown, table, trained_at
from uge.attack import build_countermeasure
from uge.attack.filtered import Filtered
from uge.audit.metrics import counts, holds_originals, summarise
from uge.report.tables import plus_minus
from uge.report.verdict import taught_alone

HEADLINE = ("cifar10-12k", "sealed", 16)  # what the README shows: whole copies
CLASSES = {"cifar10-12k": 10, "cifar100-6k": 100, "tinyimagenet20-5k": 20, "eurosat-7k": 10}
DENOISERS = ("own-pairs", "candidates")

Place = tuple[str, str, int]  # data set, copy, epsilon


def classes_of(dataset: str) -> int:
    """Of a data set, or of a part of its images ("cifar10-12k, 3000 images")."""
    return CLASSES[dataset.partition(",")[0]]


def places(rows: Sequence[Row]) -> dict[Place, list[Row]]:
    """The trainings of each kind of copy; of two rows of one cell the later counts."""
    found: dict[Place, dict[str, Row]] = {}
    for row in rows:
        if row["kind"] != "copy":
            found.setdefault((row["dataset"], row["copy"], row["epsilon_255"]), {})[row["cell"]] = row
    return {place: list(found[place].values()) for place in sorted(found, key=lambda place: (place != HEADLINE, place))}


def copies(rows: Sequence[Row], place: Place) -> list[Row]:
    """What was measured of the copies of one kind, the latest of each seed."""
    whole = (place[0].partition(",")[0], *place[1:])  # a part of the images is a part of a whole copy
    found = {row["seed"]: row for row in rows if row["kind"] == "copy"
             and (row["dataset"], row["copy"], row["epsilon_255"]) == whole}  # fmt: skip
    return list(found.values())


def kind_of(hacker: Row) -> str:
    """What sort of hacker this is, for people."""
    how = hacker["countermeasure"]
    names = {part.partition(":")[0] for part in how.split("+")}
    if hacker["knows"] == "model outputs":
        return "asks the recipient's network"
    if holds_originals(hacker):
        return "has some originals"
    if any(name.startswith("pretrained") for name in names):
        return "begins with a network trained on ImageNet"
    if names & {*DENOISERS}:
        return "denoiser, learnt from images of his own"
    if how in ("none", "other-init"):
        return "the recipient's architecture" if hacker["knows"] == "architecture" else "another architecture"
    filters = all(isinstance(build_countermeasure(part), Filtered) for part in how.split("+"))
    return "filters the images first" if filters else "trains in another way"


def headline(rows: Sequence[Row]) -> str:
    """The recipient, then the strongest hacker of each kind, the one who wins at the end."""
    trainings = places(rows).get(HEADLINE, [])
    if not trainings:
        return NOT_MEASURED
    summary = summarise(trainings, classes_of(HEADLINE[0]))
    strongest: dict[str, Row] = {}
    for group in filter(counts, summary["groups"]):
        kind = kind_of(group)
        if kind not in strongest or group["accuracy"] > strongest[kind]["accuracy"]:
            strongest[kind] = group
    user, made = summary["authorised"], copies(rows, HEADLINE)
    body = [["**recipient**", user, user["locked_clean_accuracy"]]] if user else []
    for kind, group in sorted(strongest.items(), key=lambda item: item[1]["accuracy"]):
        text = group["countermeasure"]
        text = text if len(text) < 40 else text.partition(":")[0]  # docs/results/sealed.md has all of it
        how = "" if text in ("none", "other-init") else f", `{text}`"
        alone = taught_alone(group, summary["groups"])
        how += "" if alone is None else f"; these alone teach {alone:.1f}"
        body.append([f"{kind} ({short(group['network'])}{how})", group, group["clean_accuracy"]])
    looks = f", PSNR {fmean(row['psnr_db'] for row in made):.1f} dB" if made else ""
    own = [row for row in trainings if row["trained_on"] == "published"]
    return f"{trained_at(own)}. Epsilon {HEADLINE[2]}{looks}; guessing: {summary['chance']:.0f} %.\n\n" + table(
        ["who trains", "on the copy, %", "best epoch, %", "on the originals, %"],
        [
            [who, _with_spread(each), f"{each['peak_accuracy']:.1f}", "-" if clean is None else f"{clean:.1f}"]
            for who, each, clean in body
        ],
    )


def _with_spread(group: Row) -> str:
    """As "17.1 ± 2.3"; of fewer than three trainings "37.4, one seed" or "37.4, two seeds"."""
    seeds = group["seeds"] if isinstance(group["seeds"], int) else len(group["seeds"])
    few = "one seed" if seeds == 1 else "two seeds"
    return f"{group['accuracy']:.1f}" + (plus_minus(group["interval"]) or f", {few}")


def every_hacker(rows: Sequence[Row], *, default: bool = True) -> str:
    """A table a kind of copy that hackers tried: counter-measures down, networks across.

    They are copies as they are made without options, or what was tried beside them.
    """
    parts = [
        grid(f"{copy}, epsilon {epsilon}", trainings, classes_of(dataset))
        for (dataset, copy, epsilon), trainings in places(rows).items()
        if (copy == HEADLINE[1]) == default and any(row["trained_on"] == "published" for row in trainings)
    ]
    return "\n".join(parts) + BELOW if parts else NOT_MEASURED


def copy_table(rows: Sequence[Row]) -> str:
    """A line a kind of copy: how it looks, what is still recognised, recipient, strongest hackers, margin."""
    body = []
    for place, trainings in places(rows).items():
        dataset, copy, epsilon = place
        summary, made = summarise(trainings, classes_of(dataset)), copies(rows, place)
        plain = [
            group["accuracy"]
            for group in summary["groups"]
            if group["countermeasure"] in ("none", "other-init") and counts(group)
        ]
        user, worst = summary["authorised"], summary["worst"]
        ceiling = user and user["locked_clean_accuracy"]
        recognised = [share for row in made for share in row.get("recognised", {}).values()]
        body.append(
            [
                f"{copy}, {dataset}",
                str(epsilon),
                *(shown([row[name] for row in made], digits) for name, digits in (("psnr_db", 1), ("ssim", 3))),
                figure(max(recognised)) if recognised else "-",
                "-" if user is None else f"{user['accuracy']:.1f}" + (f" ({ceiling:.1f})" if ceiling else ""),
                f"{max(plain):.1f}" if plain else "-",
                f"{worst['accuracy']:.1f} ({short(worst['network'])}, {worst['countermeasure']})" if worst else "-",
                "-" if summary["margin"] is None else f"{summary['margin']:+.1f}",
                str(sum(group["counts"] for group in summary["groups"])),
            ]
        )
    header = ["copy", "epsilon", "PSNR, dB", "SSIM", "most recognised, %", "recipient (on the originals)"]
    return table([*header, "strongest plain hacker", "strongest of all", "margin", "hackers tried"], body)
