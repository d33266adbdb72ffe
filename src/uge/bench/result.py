"""What the rows of one protection say together: its line of a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

from uge.audit.metrics import counts, holds_originals, summarise
from uge.audit.plan import Row
from uge.records import asks


def result_of(name: str, rows: Sequence[Row], about: Row, classes: int, reason: str = "") -> Row:
    """The leaderboard's line: what the rows of one protection say together.

    They are those of its copies, and of all trainings on them and on the originals. `about` is what all lines of a data
    set share: `dataset`, `images`, `test_images`, `image_size`, `epochs`; `reason` is as `summarise` takes it.

    Returns:
        A row of kind "result". `margin` is, as in an audit, the mean authorised accuracy less that of the strongest
        run on any copy of a hacker who does not query; `margin_at_peak` takes hackers in their best epochs.
    """
    copies = [row for row in rows if row["kind"] == "copy"]
    trainings = [row for row in rows if row["kind"] != "copy"]
    summary = summarise(trainings, classes, reason)
    counted = [group for group in summary["groups"] if group["counts"]]
    plain = [group for group in counted if (group["countermeasure"], group["knows"]) == ("none", "nothing")]
    costs = [row["cost"] for row in copies if row["cost"]]
    measures = ("seconds", "cpu_seconds", "trainings", "peak_memory_mb")
    spent = {measure: _mean([cost[measure] for cost in costs]) for measure in measures}
    worths = {each["pretrained"]: each for each in reversed(summary["worth"])}  # of the strongest
    user = summary["authorised"]
    peaks = [each["peak_accuracy"] for each in summary["hackers"] if counts(each) and not asks(each)]
    return {
        "kind": "result",
        "name": name,
        "method": copies[0]["method"],
        "seeds": [row["copy_seed"] for row in copies],
        **about,
        "chance": summary["chance"],
        "naive": _strongest(plain),
        "worst_without_clean": _strongest([group for group in counted if not holds_originals(group)]),
        "worst": _strongest(counted),
        "authorised": user,
        "margin": summary["margin"],
        "margin_at_peak": round(user["accuracy"] - max(peaks), 3) if user and peaks else None,
        "worth": worths.get(False),
        "worth_pretrained": worths.get(True),
        "hackers": len(counted),
        "quality": copies[0]["quality"],
        "epsilon_asked_255": copies[0]["epsilon_asked_255"],
        "cost": spent | {"parts": max(cost["parts"] for cost in costs)} if costs else None,
        "why_no_evidence": summary["why_no_evidence"],
    }


def _strongest(groups: Sequence[Row]) -> Row | None:
    return max(groups, key=lambda group: group["accuracy"], default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(f"{sum(known) / len(known):.4g}") if known else None
