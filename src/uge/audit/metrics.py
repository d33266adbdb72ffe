"""What the records of one audit say together: the summary that every table and page starts from."""

from __future__ import annotations

from statistics import fmean
from typing import Any

OTHER = "other-init"  # the authorised architecture in a hacker's hands


def summarise(rows: list[dict[str, Any]], classes: int) -> dict[str, Any]:
    """Headline figures in percent: `margin` is the authorised accuracy less the best hacker's.

    Args:
        rows: the rows of `records.jsonl`.
        classes: number of classes, for chance.

    Returns:
        The content of `summary.json`. Where there are no originals or no key, the figures that need them are None.
    """
    clean = {
        (row["kind"], row["network"], row["countermeasure"], row["seed"]): row["accuracy"]
        for row in rows
        if row["trained_on"] == "clean"
    }
    published = [row for row in rows if row["trained_on"] == "published"]
    hackers = [
        {
            "network": row["network"],
            "countermeasure": row["countermeasure"],
            "seed": row["seed"],
            "accuracy": row["accuracy"],
            "peak_accuracy": row["peak_accuracy"],
            "clean_accuracy": clean.get(("hacker", row["network"], row["countermeasure"], row["seed"])),
            "knows": row["knows"],
        }
        for row in published
        if row["kind"] == "hacker"
    ]
    authorised_rows = [row for row in published if row["kind"] == "authorised"]
    authorised = None
    if authorised_rows:
        network = authorised_rows[0]["network"]
        ceilings = [accuracy for (kind, *_), accuracy in clean.items() if kind == "authorised"]
        ceiling = round(fmean(ceilings), 3) if ceilings else None
        plain = ceiling
        if authorised_rows[0].get("locked"):  # then the ceiling saw the originals through the view, a hacker without
            free = [a for (kind, name, how, _), a in clean.items() if (kind, name, how) == ("hacker", network, OTHER)]
            plain = round(fmean(free), 3) if free else None
        authorised = {
            "network": network,
            "accuracy": round(fmean(row["accuracy"] for row in authorised_rows), 3),
            "peak_accuracy": round(fmean(row["peak_accuracy"] for row in authorised_rows), 3),
            "clean_accuracy": plain,
            "locked_clean_accuracy": ceiling,  # a key of initial weights alone has no view of its own
            "seeds": sorted(row["seed"] for row in authorised_rows),
        }
    worst = max(hackers, key=lambda hacker: hacker["accuracy"], default=None)
    return {
        "chance": round(100 / classes, 3),
        "authorised": authorised,
        "hackers": hackers,
        "margin": round(authorised["accuracy"] - worst["accuracy"], 3) if authorised and worst else None,
        "worst": worst,
    }
