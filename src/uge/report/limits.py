"""What the numbers of an audit do and do not show: the last paragraphs of its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uge.report.tables import AccuracyRow, accuracy_table, percent, pixels
from uge.report.verdict import without_help


def limits(
    summary: dict[str, Any], records: list[dict[str, Any]], manifest: dict[str, Any], offered: Sequence[str] = ()
) -> list[str]:
    """What the numbers do and do not show, one paragraph an entry; the arguments are parts of a `ReportInput`."""
    authorised, hackers = summary.get("authorised"), summary["hackers"]
    rows = [row for row in accuracy_table(summary) if row.role == "hacker"]
    scope = (
        "Every accuracy is the share of clean held-out images that is classified correctly."
        f" Training used {manifest['count']:,} images of {pixels(manifest)}"
        f" in {manifest['classes']} classes. Tried: {counted(len(rows), 'kind')} of hacker with"
        f" {counted(len({hacker['network'] for hacker in hackers}), 'architecture')}."
        " All train through the same loop as the recipient."
        " The numbers speak of these data, networks and recipes and of no others."
    )
    if why := summary["why_no_evidence"]:
        evidence = (
            f"These numbers are no evidence of protection. {' '.join(why)}"
            " Another seed moves such accuracies by a few points."
            " A difference counts from three seeds on, with its interval."
        )
    else:
        who_has = "The recipient and the strongest hacker have" if authorised else "The strongest hacker has"
        evidence = (
            f"{who_has} three seeds or more. Every hacker was trained long enough:"
            " on clean data twice the epochs would have taught him hardly more."
        )
    measure = (
        "The margin is the recipient's accuracy less that of the strongest single run, after the last epoch."
        " It counts every hacker who does not query the recipient's network."
        " Peak is the best epoch picked on the test images. Nobody can pick it without them: it favours the hacker."
    )
    return [scope, evidence, measure, _worth_of_key(summary, rows), not_tried(hackers, manifest, offered, records)]


def _worth_of_key(summary: dict[str, Any], rows: Sequence[AccuracyRow]) -> str:
    """What the key does here, and how a hacker with the same architecture fares without it."""
    authorised, twins = summary.get("authorised"), without_help(rows, summary)
    clean = (authorised or {}).get("locked_clean_accuracy")
    if not authorised:
        return "Nobody trained with a key, so nothing here says what a key is worth."
    if authorised.get("locked"):
        text = (
            "The key opens the letter in each copy. So the recipient sees his originals, but for the lowest bit of each"
            f" value. That teaches him {percent(authorised['accuracy'])} %"
        )
        text += "." if clean is None else f"; training on the same view of the originals, {percent(clean)} %."
        return text + (f" The same network without the key reaches {percent(twins[0].published)} %." if twins else "")
    if twins:
        return (
            "The key is a set of secret initial weights. Who knows the architecture and draws other weights is the"
            f" hardest case for it. Here he reaches {percent(twins[0].published)} %, the recipient"
            f" {percent(authorised['accuracy'])} %. Initial weights alone are a weak key."
        )
    return (
        "No hacker with the recipient's architecture and other initial weights was tried. He is the hardest case for"
        " this key. Without him the margin says little."
    )


def not_tried(
    hackers: list[dict[str, Any]], manifest: dict[str, Any], offered: Sequence[str], records: Sequence[dict[str, Any]]
) -> str:
    """Which counter-measures were left aside, or given up after a screening, and that nobody need stop at those."""

    def parts(rows: Sequence[dict[str, Any]]) -> set[str]:
        return {part.partition(":")[0] for row in rows for part in row["countermeasure"].split("+")}

    tried = parts(hackers)
    tried |= {"grayscale"} if manifest.get("channels") == 1 else set()  # it would change nothing
    screened = parts([row for row in records if "error" not in row and row.get("budget", 1) < 1]) - tried
    missing = [name for name in offered if name not in tried | screened]
    given_up = [name for name in offered if name in screened]
    known = f"Not tried in this run, though uge attack offers them: {', '.join(missing)}. " if missing else ""
    if given_up:
        known += "Screened with a part of the epochs and given up, for time ran out or others taught more: "
        known += f"{', '.join(given_up)}. "
    return (
        f"{known}A hacker is free to try more: other settings, combinations, ways that nobody has thought of."
        " What those who were tried do not learn is no proof against the others."
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 seed", "4 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
