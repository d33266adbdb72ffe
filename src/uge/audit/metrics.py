"""What the records of one audit say together: the summary that every table and page starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from uge.attack import amount_of, encoder_of, has_copy_alone, needs_clean, on_originals, sees_copy, without
from uge.audit.plan import Row
from uge.audit.worth import worth
from uge.records import asks

OTHER = "other-init"  # the authorised architecture in a hacker's hands
ENOUGH_SEEDS = 3
ENOUGH_BUDGET = 0.95  # of the accuracy that twice the budget reaches on clean data
# Two-sided 95% quantiles of Student's t by degrees of freedom, from 2.
T95 = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(values: Sequence[float]) -> list[float] | None:
    """The 95% interval of a mean by Student's t, [low, high]; None for fewer than three, of whom it says little."""
    if len(values) < ENOUGH_SEEDS:
        return None
    degrees = len(values) - 1
    z = 1.96
    series = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)  # Abramowitz, 26.7.5
    t = T95[degrees - 2] if degrees <= len(T95) + 1 else series
    half = t * stdev(values) / math.sqrt(len(values))
    return [round(fmean(values) - half, 3), round(fmean(values) + half, 3)]


def recovered(accuracy: float, ceiling: float | None, chance: float) -> float | None:
    """The share of what a hacker could learn that he does learn: (attacked - chance) / (ceiling - chance).

    None without a ceiling, or where the ceiling itself is guessing (within a point of chance).
    """
    if ceiling is None or ceiling < chance + 1:
        return None
    return round((accuracy - chance) / (ceiling - chance), 4)


def summarise(rows: Sequence[Row], classes: int, reason: str = "") -> dict[str, Any]:
    """Headline figures in percent: what the authorised user and the hackers learnt.

    `worst` is the strongest single run of a hacker; `margin` is the authorised accuracy less that of the strongest run
    of one who does not query the authorised network. Failed trainings count nowhere, but are told of. A hacker who was
    given up after a part of his epochs counts where he had learnt more by then than all who were trained in full. A
    stolen key is a control, and who learns from clean images alone a level to compare with: neither is worst or makes
    the margin. `reason` says why these rows are no evidence whatever they show, if so.

    Returns:
        The content of `summary.json`. Where there are no originals or no key, the figures that need them are None.
    """
    chance = round(100 / classes, 3)
    failed = sum("error" in row for row in rows)
    rows = [row for row in rows if "error" not in row]
    parts = [row for row in rows if row.get("originals")]  # of a curve
    rows = [row for row in rows if not row.get("originals")]
    whole = [row for row in rows if _budget(row) == 1]
    published = [row for row in whole if row["trained_on"] == "published"]
    ahead = _ahead(rows)
    published += ahead
    ceilings = _Ceilings([row for row in whole if row["trained_on"] == "clean"])
    told = ("network", "countermeasure", "seed", "accuracy", "peak_accuracy", "knows")
    hackers = [
        {name: row[name] for name in told} | {"clean_accuracy": ceilings.of(row)}
        for row in published
        if row["kind"] == "hacker"
    ]
    authorised = _authorised([row for row in published if row["kind"] == "authorised"], ceilings)
    groups = _groups(hackers, rows, chance)
    counted = sorted(filter(counts, hackers), key=lambda each: -each["accuracy"])
    worst = next(iter(counted), None)
    ahead_of = next((each for each in counted if not asks(each)), None)
    worths = _worth(published, [*parts, *ceilings.rows], chance)
    why = _doubts(authorised, groups, worst, failed, reason) + _unasked(worths, filter(_tries, rows))
    if ahead:
        why.append(
            f"{len(ahead)} of the strongest hackers had a part of their epochs only, and would learn more with all."
        )
    return {
        "chance": chance,
        "authorised": authorised,
        "hackers": hackers,
        "groups": groups,
        "margin": round(authorised["accuracy"] - ahead_of["accuracy"], 3) if authorised and ahead_of else None,
        "worst": worst,
        "worth": worths,
        "evidence": not why,
        "why_no_evidence": why,
    }


def _ahead(rows: Sequence[Row]) -> list[Row]:
    """Hackers in a part of their epochs, the longest training of each, who beat all of their kind in full."""
    tried = sorted(filter(_tries, rows), key=_budget)
    longest, most = {_who(row): row for row in tried}, _most(tried)
    return [row for row in longest.values() if _budget(row) < 1 and row["accuracy"] > most[asks(row)]]


def stronger(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Of other trainings of hackers on the same copy those in full who learnt more than these of their kind."""
    cells, most = {row["cell"] for row in rows}, _most(rows)
    new = (row for row in others if row["cell"] not in cells and _tries(row) and _budget(row) == 1)
    return [row for row in new if row["accuracy"] > most[asks(row)]]


def _tries(row: Row) -> bool:
    """Whether this is the finished training of a hacker on the copy who counts."""
    hacker = row["kind"] == "hacker" and row["trained_on"] == "published" and "error" not in row
    return hacker and counts(row)


def _budget(row: Row) -> float:
    return float(row.get("budget", 1.0))


def _most(rows: Sequence[Row]) -> dict[bool, float]:
    """What the best hacker in full learnt, of those who ask and of those who do not; below zero where there is none."""
    whole = [row for row in rows if _tries(row) and _budget(row) == 1]
    return {kind: max((row["accuracy"] for row in whole if asks(row) == kind), default=-1.0) for kind in (False, True)}


class _Ceilings:
    """Accuracies of the same training on the originals."""

    def __init__(self, clean: Sequence[Row]) -> None:
        self.exact = {(*_who(row), row["seed"]): row["accuracy"] for row in clean}
        self.rows = clean

    def of(self, row: Row) -> float | None:
        """Of the same seed; for one who trains on a part of the originals, that of training on all of them."""
        names = _names(without(on_originals(_text(row["countermeasure"])), "clean-only"))
        found = (self.exact.get((*_who(row | {"countermeasure": how}), row["seed"])) for how in names)
        return next((float(accuracy) for accuracy in found if accuracy is not None), None)


def _worth(published: Sequence[Row], clean: Sequence[Row], chance: float) -> list[dict[str, Any]]:
    """What the copy is worth to the hackers with a curve, the strongest first."""
    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in clean:
        if row["kind"] == "hacker":
            sizes = curves.setdefault((row["network"], _text(row["countermeasure"])), {})
            sizes.setdefault(row.get("originals", 0), []).append(row["accuracy"])
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in published:
        if row["kind"] == "hacker" and has_copy_alone(_text(row["countermeasure"])):
            runs.setdefault((row["network"], row["countermeasure"]), []).append(row)
    found = []
    for (network, how), own in runs.items():
        sizes = curves.get((network, on_originals(_text(how))), {})
        if len(sizes) < 2 or 0 not in sizes:
            continue
        accuracies = [row["accuracy"] for row in own]
        count = max(row["images"] for row in clean if not row.get("originals"))  # of all of them
        curve = {size or count: reached for size, reached in sizes.items()}
        facts = {"network": network, "countermeasure": how, "accuracy": round(fmean(accuracies), 3)}
        facts |= {"copies": own[0]["images"], "pretrained": bool(encoder_of(_text(how)))}
        found.append(facts | worth(accuracies, curve, chance, own[0]["test_images"]))
    return sorted(found, key=lambda each: -each["accuracy"])


def _unasked(worths: Sequence[dict[str, Any]], tried: Iterable[Row]) -> list[str]:
    """Who learnt more from the copy than those of his kind to whom its worth is told, one sentence each."""
    reached: dict[tuple[str, str, float], list[float]] = {}
    for row in tried:
        if has_copy_alone(_text(row["countermeasure"])):
            reached.setdefault((row["network"], row["countermeasure"], _budget(row)), []).append(row["accuracy"])
    found = []
    for kind in (False, True):
        told = [each["accuracy"] for each in worths if each["pretrained"] == kind]
        learnt = {who: round(fmean(own), 3) for who, own in reached.items() if bool(encoder_of(_text(who[1]))) == kind}
        if told and max(learnt.values(), default=0.0) > max(told):
            network, how, budget = max(learnt, key=learnt.__getitem__)
            name = network if how == "none" else f"{network}, {how}"
            part = " in a part of the epochs" if budget < 1 else ""
            most = learnt[network, how, budget]
            found.append(f"The copy is worth more to {name} than is told: it learnt {most:.1f} %{part}.")
    return found


def counts(hacker: Row) -> bool:
    """Whether a hacker speaks of the protection: who has the key is a control, who has no copy a level to compare."""
    return hacker["knows"] != "key" and sees_copy(_text(hacker["countermeasure"]))


def holds_originals(hacker: Row) -> bool:
    """Whether a hacker has some of the originals, whatever else he knows."""
    return needs_clean(_text(hacker["countermeasure"]))


def _who(row: Row) -> tuple[str, str, str]:
    return row["kind"], row["network"], row["countermeasure"]


def _text(countermeasure: str) -> str:
    return "none" if countermeasure == OTHER else countermeasure


def _names(countermeasure: str) -> tuple[str, ...]:
    """How records may call it: plain training of the authorised architecture has a name of its own."""
    return ("none", OTHER) if countermeasure == "none" else (countermeasure,)


def _authorised(rows: Sequence[Row], ceilings: _Ceilings) -> dict[str, Any] | None:
    if not rows:
        return None
    on_originals = {row["seed"]: row["accuracy"] for row in ceilings.rows if row["kind"] == "authorised"}
    paired = [on_originals[row["seed"]] for row in rows if row["seed"] in on_originals]
    return {
        "network": rows[0]["network"],
        **_over_seeds(rows),
        "locked_clean_accuracy": round(fmean(paired), 3) if paired else None,
        "locked": bool(rows[0].get("locked")),  # a key of initial weights alone has no view of its own
        "seeds": sorted(row["seed"] for row in rows),
    }


def _over_seeds(runs: Sequence[Row]) -> dict[str, Any]:
    """What runs that differ in their seed alone reach together."""
    accuracies = [run["accuracy"] for run in runs]
    return {
        "accuracy": round(fmean(accuracies), 3),
        "interval": interval(accuracies),
        "peak_accuracy": round(fmean(run["peak_accuracy"] for run in runs), 3),
    }


def _groups(hackers: Sequence[dict[str, Any]], rows: Sequence[Row], chance: float) -> list[dict[str, Any]]:
    """Hackers who differ in their seed alone, together."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for hacker in hackers:
        found.setdefault((hacker["network"], hacker["countermeasure"], hacker["knows"]), []).append(hacker)
    groups = []
    for (network, countermeasure, knows), runs in found.items():
        paired = [run for run in runs if run["clean_accuracy"] is not None]
        ceiling = round(fmean(run["clean_accuracy"] for run in paired), 3) if paired else None
        amount = amount_of(_text(countermeasure))
        groups.append(
            {
                "network": network,
                "countermeasure": countermeasure,
                "knows": knows,
                "seeds": len(runs),
                **_over_seeds(runs),
                "clean_accuracy": ceiling,
                "recovered": recovered(fmean(run["accuracy"] for run in paired or runs), ceiling, chance),
                "undertrained": _undertrained(network, countermeasure, rows),
                "counts": counts(runs[0]),
            }
            | ({"amount": amount} if amount else {})
        )
    return groups


def _undertrained(network: str, countermeasure: str, rows: Sequence[Row]) -> bool | None:
    """Whether twice the budget reaches clearly more on clean data; None where nobody looked."""
    names = _names(on_originals(_text(countermeasure)))
    clean = {
        (row["seed"], _budget(row)): row["accuracy"]
        for row in rows
        if (row["kind"], row["network"], row["trained_on"]) == ("hacker", network, "clean")
        and row["countermeasure"] in names
    }
    checks = [
        clean[seed, 1.0] < ENOUGH_BUDGET * accuracy
        for (seed, budget), accuracy in clean.items()
        if budget == 2.0 and (seed, 1.0) in clean
    ]
    return any(checks) if checks else None


def _doubts(
    authorised: dict[str, Any] | None,
    groups: Sequence[dict[str, Any]],
    worst: dict[str, Any] | None,
    failed: int,
    reason: str,
) -> list[str]:
    """Why the figures are no evidence of protection, one sentence each."""
    why = [f"{reason}."] if reason else []
    if failed:
        why.append(f"{failed} {'training failed and is' if failed == 1 else 'trainings failed and are'} missing here.")
    counted = [group for group in groups if group["counts"]]
    if not counted:
        return [*why, "No hacker was trained."]
    strongest = max(counted, key=lambda group: group["accuracy"])
    seeds = min([strongest["seeds"]] + ([len(authorised["seeds"])] if authorised else []))
    if seeds < ENOUGH_SEEDS:
        why.append(f"The strongest hacker or the recipient has {seeds} of {ENOUGH_SEEDS} seeds.")
    if authorised and worst and authorised["interval"]:
        least = authorised["interval"][0]
        if least <= worst["accuracy"] < authorised["accuracy"]:
            why.append(f"The 95% interval of the recipient begins at {least:.1f} %, below the strongest hacker.")
    late = sum(group["undertrained"] is True for group in counted)
    if late:
        why.append(
            f"Of {len(counted)} hackers {late} are undertrained: twice the epochs would teach them clearly more."
        )
    unknown = sum(group["undertrained"] is None for group in counted)
    if unknown:
        why.append(f"For {unknown} of {len(counted)} hackers nobody checked whether their epochs were enough.")
    return why
