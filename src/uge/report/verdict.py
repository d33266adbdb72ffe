"""What the numbers say, in sentences: computed from summary.json and the records, never flattering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uge.records import asks, without_copy
from uge.report.tables import (
    AccuracyRow,
    accuracy_table,
    counted_runs,
    countermeasure_label,
    originals,
    percent,
    points,
    strongest,
    who,
    worth_to,
    worth_words,
)

CLEAR = 5.0  # points; a smaller gap is called small
HOLDS = 35.0  # points; from this margin a protection holds
BROKEN, DENTED = 0.6, 0.3  # the share recovered from which a protection is called broken, or partly broken


@dataclass(frozen=True)
class Verdict:
    """The judgement at the top of a page.

    Attributes:
        heading: a few words.
        sentence: what happened, with its number.
        details: the other numbers, in short sentences.
        cautions: what weakens the result, one entry each; empty if nothing found does.
    """

    heading: str
    sentence: str
    details: str
    cautions: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences but the cautions."""
        return _joined(self.sentence, self.details)


def name_of(network: str, countermeasure: str) -> str:
    """A hacker in a few words, without the counter-measure's options: "vgg, distillation"."""
    parts = [part.partition(":")[0] for part in countermeasure.split("+")]
    return f"{network}, {countermeasure_label('+'.join(parts))}"


def is_same_architecture(row: AccuracyRow, summary: dict[str, Any]) -> bool:
    """Whether a hacker of the table uses the recipient's architecture without his initial weights."""
    network = (summary.get("authorised") or {}).get("network")
    return row.knows != "key" and (row.network == network or row.countermeasure == "other-init")


def without_help(rows: Sequence[AccuracyRow], summary: dict[str, Any]) -> list[AccuracyRow]:
    """Those of them who have the architecture and the copy alone, the strongest first."""
    found = [row for row in rows if is_same_architecture(row, summary) and row.knows == "architecture"]
    return sorted(found, key=lambda row: row.published or 0.0, reverse=True)


def judge(summary: dict[str, Any]) -> Verdict:
    """Judge one run by its summary.json.

    The margin is that against every hacker who does not query the recipient's network; whoever does is told beside it.
    The heading says the worst that holds. Only where nothing bad is found does it say that the protection holds.
    """
    authorised = summary.get("authorised")
    if not authorised:
        return judge_without_key(summary)
    best, gap = strongest(summary, asking=False), summary["margin"]
    reached = f"The recipient reaches {percent(authorised['accuracy'])} %{_on_originals(authorised)}."
    guess = f"Guessing gives {percent(summary['chance'])} %."
    student = _student(summary)
    if best is None or gap is None:
        heading = "Only students of the recipient's network were tried" if student else "No hacker was trained"
        return Verdict(heading, reached, _joined(student, guess), _cautions_of_student(summary))
    ahead = (
        f"The recipient is {gap:.1f} points ahead of every hacker who does not query his network."
        if gap >= 0
        else f"A hacker who does not query the recipient's network is {-gap:.1f} points ahead of him."
    )
    strong = f"The strongest of these hackers reaches {percent(best['accuracy'])} % ({_name(best)})."
    details = _joined(student, reached, strong, guess, *worth_sentences(summary))
    return Verdict(_heading(summary, best, gap), ahead, details, tuple(_cautions(summary, best, gap)))


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _name(hacker: dict[str, Any]) -> str:
    return name_of(hacker["network"], hacker["countermeasure"])


def _on_originals(user: dict[str, Any]) -> str:
    clean = user.get("locked_clean_accuracy")
    return "" if clean is None else f", {percent(clean)} % on the originals"


def _student(summary: dict[str, Any]) -> str:
    """What the best hacker does who queries the recipient's network."""
    student = strongest(summary, asking=True)
    if student is None:
        return ""
    reached = f"A student of the recipient's network reaches {percent(student['accuracy'])} %"
    return reached + (": this protection does not stop him." if _share(student, summary) >= DENTED else ".")


def _share(hacker: dict[str, Any], summary: dict[str, Any]) -> float:
    """The part recovered of what a hacker could learn; without a ceiling, of what the recipient learnt."""
    ceiling = hacker["clean_accuracy"] or summary["authorised"]["accuracy"]
    return (hacker["accuracy"] - summary["chance"]) / max(1.0, ceiling - summary["chance"])


def _cost(summary: dict[str, Any]) -> float:
    """What the protection itself takes from the recipient, in points."""
    authorised = summary["authorised"]
    clean = authorised.get("locked_clean_accuracy")
    return 0.0 if clean is None else clean - authorised["accuracy"]


def _harm(hacker: dict[str, Any]) -> float | None:
    """What the protection takes from a hacker, in points."""
    return None if hacker.get("clean_accuracy") is None else hacker["clean_accuracy"] - hacker["accuracy"]


def _heading(summary: dict[str, Any], best: dict[str, Any], gap: float) -> str:
    harm, most = _harm(best), _most_recovered(summary, asking=False)
    if gap < 0:
        return "The protection fails in this run"
    if gap < CLEAR:
        return "Hardly any protection in this run"
    if _cost(summary) > CLEAR:
        return "Hackers learn less, and so does the recipient"
    if harm is not None and harm < CLEAR:
        return "The strongest hacker is hardly hindered"
    if most and most["recovered"] >= BROKEN:
        ahead = "The protection holds in this run" if gap >= HOLDS else "The recipient is ahead"
        return f"{ahead}, but one hacker recovers most of what he could learn"
    if gap >= HOLDS or (most and most["recovered"] < DENTED):
        return "The protection holds in this run"
    return "The recipient learns more than every hacker who does not query his network"


def _cautions(summary: dict[str, Any], best: dict[str, Any], gap: float) -> list[str]:
    authorised, cost, harm = summary["authorised"], _cost(summary), _harm(best)
    accuracy, clean = authorised["accuracy"], authorised.get("locked_clean_accuracy")
    found = no_evidence(summary) if gap >= CLEAR else []
    if gap < 0:
        found.append("A hacker learns more from the published copy than the recipient does.")
    elif gap < CLEAR:
        found.append(f"The margin is below {CLEAR:.0f} points: too small to call these images protected.")
    if cost > CLEAR:
        found.append(f"The recipient pays for the protection: {cost:.1f} points below his accuracy on the originals.")
    if accuracy < summary["chance"] + CLEAR:
        found.append("The recipient is close to guessing: the copy is of no use to anyone.")
    if not authorised.get("locked"):
        found += _cautions_of_weights(summary, gap)
    if harm is not None and harm < CLEAR:
        loses = f"loses only {harm:.1f} points" if harm > 0 else "loses nothing"
        found.append(f"The strongest hacker {loses} against his own training on the originals.")
    if harm is not None and clean is not None and gap >= CLEAR > gap - (clean - best["clean_accuracy"]):
        found.append(
            f"{clean - best['clean_accuracy']:.1f} points of the margin exist on the originals already:"
            " his network is simply the weaker one."
        )
    at_peak = accuracy - max(run["peak_accuracy"] for run in counted_runs(summary, asking=False))
    if at_peak < CLEAR <= gap:
        found.append(
            f"Against the best epoch of every hacker, picked on test data, the margin is {points(at_peak)} points."
        )
    most = _most_recovered(summary, asking=False)
    if most and most["recovered"] >= BROKEN and gap >= CLEAR:
        found.append(
            f"{_name(most)} recovers {100 * most['recovered']:.0f} % of what it could learn"
            f" ({percent(most['accuracy'])} % on the copy, {percent(most['clean_accuracy'])} % on the originals)."
            " To be ahead of it is not to keep it out."
        )
    if gap >= CLEAR:
        found += _cautions_of_untried(summary)
    return [*found, *_cautions_of_student(summary), *_owe_nothing(summary)]


def _cautions_of_untried(summary: dict[str, Any]) -> tuple[str, ...]:
    """Of the strongest hackers of our records those who were not trained in full here."""
    tried = [part for run in counted_runs(summary) for part in run["countermeasure"].split("+")]
    known = {"adversarial": "adversarial training", "pretrained": "beginning with a pretrained network"}
    missing = [words for name, words in known.items() if not any(part.startswith(name) for part in tried)]
    return (f"Not tried in full: {' and '.join(missing)}. Such hackers are among the strongest.",) if missing else ()


def _cautions_of_weights(summary: dict[str, Any], gap: float) -> list[str]:
    """The hardest hacker for a key of initial weights: the same architecture with others."""
    accuracy = summary["authorised"]["accuracy"]
    rows = [row for row in accuracy_table(summary) if row.role == "hacker" and row.counts and not row.asks]
    twins = without_help(rows, summary)
    if not twins:
        return ["The hardest case for this key is missing: the same architecture with other initial weights."]
    reached = twins[0].published or 0.0
    if reached <= accuracy - CLEAR:
        return []
    text = (
        f"The same architecture without the key reaches {percent(reached)} %"
        f" ({name_of(twins[0].network, twins[0].countermeasure)}): secret initial weights alone are a weak key."
    )
    others = [row.published or 0.0 for row in rows if not is_same_architecture(row, summary)]
    if others and gap < CLEAR <= accuracy - max(others):
        text += f" Hackers of other architectures stay {accuracy - max(others):.1f} points or more below the recipient."
    return [text]


def _cautions_of_student(summary: dict[str, Any]) -> tuple[str, ...]:
    student = strongest(summary, asking=True)
    if student is None:
        return ("No hacker who queries the recipient's network was tried.",)
    if _share(student, summary) < DENTED:
        return ()
    return ("Who lets others query the recipient's network gives away what it has learnt.",)


def judge_without_key(summary: dict[str, Any]) -> Verdict:
    """Judge a copy that nobody here is authorised to learn from, such as another program's: how much was recovered?"""
    guess = f"Guessing gives {percent(summary['chance'])} %."
    groups = [group for group in summary["groups"] if group["counts"]]
    if not groups:
        return Verdict("No hacker was trained", "Nothing is known about this copy.", guess, ())
    known = [group for group in groups if group["recovered"] is not None]
    if not known:
        best = max(groups, key=lambda group: group["accuracy"])
        sentence = f"The strongest hacker ({_name(best)}) reaches {percent(best['accuracy'])} %."
        why, heading = "Without originals", "How far hackers get, without the originals to compare"
        if any(group["clean_accuracy"] is not None for group in groups):
            why = "Where the originals teach so little"
            heading = "How far hackers get, where the originals teach them nothing"
        details = _joined(guess, f"{why} nobody can say how much of what he could learn that is.")
        return Verdict(heading, sentence, details, tuple(no_evidence(summary)))
    best = _most_recovered(summary, asking=None) or max(known, key=lambda group: group["recovered"])
    sentence = f"The strongest hacker ({_name(best)}) recovers {100 * best['recovered']:.0f} % of what he could learn."
    details = (
        f"He reaches {percent(best['accuracy'])} % on the copy, {percent(best['clean_accuracy'])} % on the originals."
        f" {guess}"
    )
    plain = [group["recovered"] for group in known if group["countermeasure"] == "none"]
    if plain and best["countermeasure"] != "none":
        details += f" Plain training recovers at most {100 * max(plain):.0f} %."
    loudest = max(groups, key=lambda group: group["accuracy"])
    unknown = loudest["recovered"] is None and loudest["accuracy"] > best["accuracy"]
    if unknown:
        details += (
            f" Another ({_name(loudest)}) reaches {percent(loudest['accuracy'])} %, and nobody knows his level on"
            " originals."
        )
    details = _joined(details, *worth_sentences(summary))
    how = countermeasure_label(best["countermeasure"])
    if best["recovered"] >= BROKEN:
        return Verdict(f"Broken by {how}", sentence, details, _owe_nothing(summary))
    cautions, for_an_epoch = [*_owe_nothing(summary)], _recovered_at_peak(summary)
    on_the_way = any(best["recovered"] < bar <= for_an_epoch for bar in (DENTED, BROKEN))
    if on_the_way:
        cautions.append(
            f"In the best epoch of a single run, picked on test data, a hacker recovers {100 * for_an_epoch:.0f} %."
        )
    if best["recovered"] >= DENTED:
        return Verdict(f"Partly broken by {how}", sentence, details, tuple(cautions))
    heading = "How far hackers get, one without originals to compare" if unknown else "No hacker tried here gets far"
    if on_the_way and not unknown:
        heading = "No hacker tried here gets far in the end, but one does on the way"
    return Verdict(heading, sentence, details, (*cautions, *no_evidence(summary)))


def worth_sentences(summary: dict[str, Any]) -> list[str]:
    """What the copy is worth, or why nobody knows."""
    alone, pretrained = (worth_to(summary, pretrained=each) for each in (False, True))
    first = alone or pretrained
    if first is None:
        return [why_no_worth(summary)]
    said = [f"{worth_words(first)} to {'the strongest hacker' if alone else 'one with a pretrained encoder'}."]
    if alone and pretrained:
        said.append(
            f"To one with a pretrained encoder they are worth {originals(pretrained['originals'], pretrained)}."
        )
    return said


def why_no_worth(summary: dict[str, Any]) -> str:
    """What a summary lacks that does not say what the copy is worth."""
    has_originals = any(hacker["clean_accuracy"] is not None for hacker in summary["hackers"])
    lacks = "training on parts of the originals" if has_originals else "originals (--clean) and time (--budget)"
    return f"What the copy is worth was not measured: that takes {lacks}."


def _most_recovered(summary: dict[str, Any], *, asking: bool | None) -> dict[str, Any] | None:
    """Who recovers the largest share of what he could learn, among those whom the copy taught anything.

    `asking` is as for `counted_runs`.
    """
    idle = _idle(summary)
    known = [
        each
        for each in summary["groups"]
        if each["counts"] and each["recovered"] is not None and each not in idle and asking in (None, asks(each))
    ]
    return max(known, key=lambda each: each["recovered"], default=None)


def taught_alone(group: dict[str, Any], groups: Sequence[dict[str, Any]]) -> float | None:
    """What the originals that a hacker has teach his network without the copy; None where nobody looked."""
    same = group["network"], without_copy(group.get("amount"))
    return max((each["accuracy"] for each in groups if (each["network"], each["countermeasure"]) == same), default=None)


def _idle(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Hackers who count but owe nothing to the copy: their originals alone teach as much as both."""
    alone = [(each, taught_alone(each, summary["groups"])) for each in summary["groups"] if each["counts"]]
    return [each for each, taught in alone if taught is not None and taught >= each["accuracy"]]


def _owe_nothing(summary: dict[str, Any]) -> tuple[str, ...]:
    idle = _idle(summary)
    if not idle:
        return ()
    best = max(idle, key=lambda each: each["accuracy"])
    return (
        f"What {_name(best)} learns ({percent(best['accuracy'])} %) owes nothing"
        " to the copy: the same originals alone teach as much.",
    )


def _recovered_at_peak(summary: dict[str, Any]) -> float:
    """The largest share that the best epoch of a single run recovers of what the same run learns from originals."""
    chance, idle = summary["chance"], {who(group) for group in _idle(summary)}
    shares = [
        (hacker["peak_accuracy"] - chance) / (hacker["clean_accuracy"] - chance)
        for hacker in counted_runs(summary)
        if who(hacker) not in idle and (hacker["clean_accuracy"] or 0) >= chance + 1  # a ceiling that is no guessing
    ]
    return max(shares, default=0.0)


def no_evidence(summary: dict[str, Any]) -> list[str]:
    """One sentence, where a good result would be no evidence."""
    why = summary["why_no_evidence"]
    return [f"This is no evidence of protection yet. {' '.join(why)}"] if why else []
