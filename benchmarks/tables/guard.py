"""The recipient's guarded service (`quality/guard.py`): what it refuses, and what its students learn.

A row is a training, as an audit writes it, with `dataset`; or `"kind": "guard"`, the facts of one guard:
`false_alarms`, `accuracy` and `accuracy_guarded` in percent of all test images, and `refused` and
`refused_clean`, percent by how images were made of published ones, or of test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from benchmarks.tables.text import NOT_MEASURED, Row, short, shown, table, trained_at

NAMES = {
    "none": "plain hacker, who asks nobody",
    "distillation:soft": "asks the network without a guard",
    "guarded": "tries disguises for a day",
    "guarded:accounts=100": "tries disguises, 100 days of accounts",
    "guarded:accounts=560": "tries disguises, 560 days of accounts",
    "guarded:accounts=10000": "tries disguises, 10,000 days of accounts",
    "purify+guarded": "denoises first (`purify`), for a day",
    "own images": "asks about {images:,} images of his own",
    "own images averaged with copies": "averages these with copies",
}


def guard_table(rows: Sequence[Row]) -> str:
    """What the guard costs whoever asks honestly, and a line a student."""
    facts, trainings = [row for row in rows if row["kind"] == "guard"], [row for row in rows if row["kind"] != "guard"]
    if not facts:
        return NOT_MEASURED
    false_alarms, accuracy, guarded = (
        shown([row[name] for row in facts], 2) for name in ("false_alarms", "accuracy", "accuracy_guarded")
    )
    told = (
        f"{trained_at(trainings)}. Clean test images refused: {false_alarms} %."
        f" The network's accuracy: {accuracy}, behind the guard {guarded}, where a refusal counts as wrong.\n\n"
    )
    hackers = [row for row in trainings if row["kind"] == "hacker"]
    body = []
    for how in dict.fromkeys(row["countermeasure"] for row in hackers):
        mine = [row for row in hackers if row["countermeasure"] == how]
        answered = [row["findings"]["answered"] for row in mine if "findings" in row]
        name = NAMES.get(how, how).format(images=mine[0]["test_images"])
        count = f"{fmean(answered):,.0f}" if answered else "all" if how.startswith("distillation") else "-"
        body.append([name, count, shown([row["accuracy"] for row in mine])])
    return told + table([f"student ({short(hackers[0]['network'])})", "answers he had", "accuracy, %"], body)


def refused_table(rows: Sequence[Row]) -> str:
    """What the guard refuses, by how it was made of published images, or of clean ones that nobody published."""
    facts = [row for row in rows if row["kind"] == "guard"]
    ways = dict.fromkeys(way for row in facts for way in row["refused"])
    body = [[way, *(shown([row[of][way] for row in facts]) for of in ("refused", "refused_clean"))] for way in ways]
    return table(["made of images", "published ones: refused, %", "clean test images: refused, %"], body)
