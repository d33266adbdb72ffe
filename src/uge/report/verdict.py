"""What the numbers say, in sentences: computed from summary.json and the records, never flattering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uge.report.tables import Row, accuracy_table, countermeasure_label, counts, percent, points, who

CLEAR = 5.0  # points; a smaller gap is called small
BROKEN, DENTED = 0.6, 0.3  # the share recovered from which a protection is called broken, or partly broken
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Verdict:
    """The judgement at the top of a page.

    Attributes:
        heading: a few words.
        sentence: the numbers in one sentence.
        cautions: what weakens the result, one sentence each; empty if nothing found does.
    """

    heading: str
    sentence: str
    cautions: tuple[str, ...]


def name_of(network: str, countermeasure: str) -> str:
    """A hacker in a few words, without the counter-measure's options: "vgg, distillation"."""
    parts = [part.partition(":")[0] for part in countermeasure.split("+")]
    return f"{network}, {countermeasure_label('+'.join(parts))}"


def is_same_architecture(row: Row, summary: dict[str, Any]) -> bool:
    """Whether a hacker of the table uses the authorised architecture without its initial weights."""
    network = (summary.get("authorised") or {}).get("network")
    return row.knows != "key" and (row.network == network or row.countermeasure == "other-init")


def without_help(rows: Sequence[Row], summary: dict[str, Any]) -> list[Row]:
    """Those of them who have the architecture and the copy alone: no originals, and no answers of its network."""
    return [row for row in rows if is_same_architecture(row, summary) and row.knows == "architecture"]


def judge(summary: dict[str, Any]) -> Verdict:
    """Judge one run by its summary.json.

    The heading says the worst that holds: the protection fails, hardly protects, costs the authorised user too much,
    or leaves the strongest hacker where he would be on clean images. Only when none holds is the result called clear.
    """
    authorised, chance = summary.get("authorised"), summary["chance"]
    worst, margin = summary.get("worst"), summary.get("margin")
    strongest = f"the strongest hacker ({name_of(worst['network'], worst['countermeasure'])})" if worst else ""
    guess = f"chance is {percent(chance)} %"
    if not authorised:
        return judge_without_key(summary)
    accuracy, clean = authorised["accuracy"], authorised.get("clean_accuracy")
    own_clean = "" if clean is None else f" ({percent(clean)} % on clean images)"
    reached = f"the authorised network {authorised['network']} reaches {percent(accuracy)} %{own_clean}"
    if not worst or margin is None:
        sentence = f"Trained on the published copy, {reached}; {guess}, and nothing is known about hackers."
        return Verdict("No hacker was trained", sentence, ())

    sentence = (
        f"Trained on the published copy, {reached} and {strongest}"
        f" {percent(worst['accuracy'])} %: a margin of {points(margin)} points, where {guess}."
    )
    cost = 0.0 if clean is None else clean - accuracy
    harm = None if worst.get("clean_accuracy") is None else worst["clean_accuracy"] - worst["accuracy"]
    rows = [row for row in accuracy_table(summary) if row.role == "hacker" and row.published is not None]
    hackers = [row for row in rows if row.counts]
    twins = without_help(hackers, summary)  # strongest first, as in the table
    others = [row.published for row in hackers if not is_same_architecture(row, summary) and row.published is not None]
    other_margin = accuracy - max(others, default=accuracy)
    peak_margin = accuracy - max(_peaks(summary), default=accuracy - margin)

    cautions = []
    if margin < 0:
        cautions.append("A hacker learns more from the published copy than the authorised network does.")
    elif margin < CLEAR:
        cautions.append(f"The margin is below {CLEAR:.0f} points: too small to call these images protected.")
    if cost > CLEAR:
        cautions.append(
            f"The authorised network pays for the protection itself: {cost:.1f} points below its clean accuracy."
        )
    if accuracy < chance + CLEAR:
        cautions.append("The authorised network is close to guessing: the copy is of no use to anyone.")
    if twins and twins[0].published > accuracy - CLEAR:
        text = (
            f"The same architecture without the key reaches {percent(twins[0].published)} %"
            f" ({name_of(twins[0].network, twins[0].countermeasure)}):"
            + (
                " secret initial weights alone are a weak key."
                if not authorised.get("locked")
                else " nearly what the key gives."
            )
        )
        if others and margin < CLEAR <= other_margin:
            text += (
                f" Hackers of other architectures stay {other_margin:.1f} points or more below the authorised network."
            )
        cautions.append(text)
    if not twins:
        cautions.append("The hardest case for this key is missing: the same architecture with other initial weights.")
    if harm is not None and harm < CLEAR:
        loses = f"loses only {harm:.1f} points" if harm > 0 else "loses nothing"
        cautions.append(
            f"The strongest hacker {loses} against his own accuracy on clean images: he is hardly hindered."
        )
    if (
        harm is not None
        and margin >= CLEAR
        and clean is not None
        and margin - (clean - worst["clean_accuracy"]) < CLEAR
    ):
        gap = clean - worst["clean_accuracy"]
        cautions.append(
            f"{gap:.1f} points of the margin exist on clean images already: his network is simply the weaker one."
        )
    if peak_margin < CLEAR <= margin:
        cautions.append(
            f"Against the best epoch of every hacker, picked on test data, the margin is {points(peak_margin)} points."
        )

    best = _most_recovered(summary)
    broken = best if best and best["recovered"] >= BROKEN and margin >= CLEAR else None
    if broken:
        cautions.append(
            f"{name_of(broken['network'], broken['countermeasure'])} recovers {100 * broken['recovered']:.0f} % of what"
            f" it could learn ({percent(broken['accuracy'])} % on the copy, {percent(broken['clean_accuracy'])} %"
            " on the originals): to be ahead of it is not to keep it out."
        )
    cautions += _owe_nothing(summary)
    if margin >= CLEAR:
        cautions += no_evidence(summary)

    if margin < 0:
        heading = "The protection fails in this run"
    elif margin < CLEAR:
        heading = "Hardly any protection in this run"
    elif cost > CLEAR:
        heading = "Hackers learn less, and so does the authorised network"
    elif harm is not None and harm < CLEAR:
        heading = "The strongest hacker is hardly hindered"
    elif broken:
        heading = "Ahead of every hacker tried, but one recovers most of what he could learn"
    else:
        heading = "The authorised network learns more than every hacker tried"
    return Verdict(heading, sentence, tuple(cautions))


def judge_without_key(summary: dict[str, Any]) -> Verdict:
    """Judge a copy that nobody here is authorised to learn from, such as another program's: how much was recovered?"""
    guess = f"chance is {percent(summary['chance'])} %"
    groups = [group for group in summary["groups"] if counts(group)]
    if not groups:
        return Verdict("No hacker was trained", f"Nothing is known about this copy; {guess}.", ())
    known = [group for group in groups if group["recovered"] is not None]
    if not known:
        best = max(groups, key=lambda group: group["accuracy"])
        sentence = (
            f"The strongest hacker ({name_of(best['network'], best['countermeasure'])}) reaches"
            f" {percent(best['accuracy'])} %, where {guess}. Without originals nobody can say how much of what he could"
            " learn that is."
        )
        return Verdict("How far hackers get, without the originals to compare", sentence, tuple(no_evidence(summary)))
    best = _most_recovered(summary) or max(known, key=lambda group: group["recovered"])
    name = name_of(best["network"], best["countermeasure"])
    sentence = (
        f"The strongest hacker ({name}) reaches {percent(best['accuracy'])} % on the copy and"
        f" {percent(best['clean_accuracy'])} % on the originals, where {guess}: he recovers"
        f" {100 * best['recovered']:.0f} % of what he could learn."
    )
    plain = [group["recovered"] for group in known if group["countermeasure"] == "none"]
    if plain and best["countermeasure"] != "none":
        sentence += f" Plain training recovers at most {100 * max(plain):.0f} %."
    loudest = max(groups, key=lambda group: group["accuracy"])
    unknown = loudest["recovered"] is None and loudest["accuracy"] > best["accuracy"]
    if unknown:
        name = name_of(loudest["network"], loudest["countermeasure"])
        sentence += (
            f" Another ({name}) reaches {percent(loudest['accuracy'])} %, and nobody knows his level on originals."
        )
    if best["recovered"] >= BROKEN:
        return Verdict(f"Broken by {countermeasure_label(best['countermeasure'])}", sentence, _owe_nothing(summary))
    cautions, for_an_epoch = [*_owe_nothing(summary)], _recovered_at_peak(summary)
    on_the_way = any(best["recovered"] < bar <= for_an_epoch for bar in (DENTED, BROKEN))
    if on_the_way:
        cautions.append(
            f"In the best epoch of a single run, picked on test data, a hacker recovers {100 * for_an_epoch:.0f} %."
        )
    if best["recovered"] >= DENTED:
        return Verdict(f"Partly broken by {countermeasure_label(best['countermeasure'])}", sentence, tuple(cautions))
    heading = "How far hackers get, one without originals to compare" if unknown else "No hacker tried here gets far"
    if on_the_way and not unknown:
        heading = "No hacker tried here gets far in the end, but one does on the way"
    return Verdict(heading, sentence, (*cautions, *no_evidence(summary)))


def _most_recovered(summary: dict[str, Any]) -> dict[str, Any] | None:
    """Who recovers the largest share of what he could learn, among those whom the copy taught anything."""
    idle = _idle(summary)
    known = [each for each in summary["groups"] if counts(each) and each["recovered"] is not None and each not in idle]
    return max(known, key=lambda each: each["recovered"], default=None)


def owes_nothing(group: dict[str, Any], groups: Sequence[dict[str, Any]]) -> bool:
    """Whether the same originals without the copy teach as much as this hacker learns from both."""
    parts = [part.partition(":") for part in group["countermeasure"].split("+")]
    amounts = [tail.partition(",")[0] for name, _, tail in parts if name in ("clean-mixed", "refit")]
    alone = {f"clean-only:{amount}" if amount else "clean-only" for amount in amounts}
    return any(
        each["network"] == group["network"]
        and each["countermeasure"] in alone
        and each["accuracy"] >= group["accuracy"]
        for each in groups
    )


def _idle(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Hackers who count but owe nothing to the copy."""
    groups = summary["groups"]
    return [each for each in groups if counts(each) and owes_nothing(each, groups)]


def _owe_nothing(summary: dict[str, Any]) -> tuple[str, ...]:
    idle = _idle(summary)
    if not idle:
        return ()
    best = max(idle, key=lambda each: each["accuracy"])
    return (
        f"What {name_of(best['network'], best['countermeasure'])} learns ({percent(best['accuracy'])} %) owes nothing"
        " to the copy: the same originals alone teach as much.",
    )


def _peaks(summary: dict[str, Any]) -> list[float]:
    """The best epoch of every single run that counts; margins are taken from single runs, too."""
    return [hacker["peak_accuracy"] for hacker in _counted_runs(summary)]


def _counted_runs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    counted = {who(group) for group in summary["groups"] if counts(group)}
    return [hacker for hacker in summary["hackers"] if who(hacker) in counted]


def _recovered_at_peak(summary: dict[str, Any]) -> float:
    """The largest share that the best epoch of a single run recovers of what the same run learns from originals."""
    chance, idle = summary["chance"], {who(group) for group in _idle(summary)}
    shares = [
        (hacker["peak_accuracy"] - chance) / (hacker["clean_accuracy"] - chance)
        for hacker in _counted_runs(summary)
        if who(hacker) not in idle and (hacker["clean_accuracy"] or 0) >= chance + 1  # a ceiling that is no guessing
    ]
    return max(shares, default=0.0)


def no_evidence(summary: dict[str, Any]) -> list[str]:
    """One sentence, where a good result would be no evidence."""
    why = summary["why_no_evidence"]
    return [f"This is no evidence of protection yet. {' '.join(why)}"] if why else []


def limits(
    summary: dict[str, Any], records: list[dict[str, Any]], manifest: dict[str, Any], offered: Sequence[str] = ()
) -> list[str]:
    """What the numbers do and do not show, one paragraph an entry.

    Args:
        summary: summary.json.
        records: the rows of records.jsonl.
        manifest: the facts of `ReportInput.manifest`.
        offered: see `ReportInput.offered`.
    """
    authorised, hackers = summary.get("authorised"), summary["hackers"]
    height, width = manifest["image_size"]
    rows = [row for row in accuracy_table(summary) if row.role != "chance"]
    kinds = counted(sum(row.role == "hacker" for row in rows), "kind")
    networks = counted(len({hacker["network"] for hacker in hackers}), "architecture")
    scope = (
        "Every accuracy is the share of clean held-out images classified correctly after training on"
        f" {manifest['count']:,} images of {width} by {height} pixels in {manifest['classes']} classes."
        f" Tried: {kinds} of hacker with {networks}, all through the same training loop as the authorised user."
        " The numbers speak of these data, networks and recipes and of no others."
    )
    if why := summary["why_no_evidence"]:
        evidence = (
            f"These numbers are no evidence of protection. {' '.join(why)} Another seed moves such accuracies by a few"
            f" points; at least {ENOUGH_SEEDS} seeds and an interval are needed before a difference counts."
        )
    else:
        who_has = "The authorised network and the strongest hacker have" if authorised else "The strongest hacker has"
        evidence = (
            f"{who_has} three seeds or more, and every hacker was trained"
            " long enough: on clean data twice the epochs would have taught him hardly more."
        )
    peak = (
        "Peak is the best epoch picked on the test images. Nobody can pick it without them, so it favours the hacker."
        " The margin is the authorised accuracy minus that of the strongest single hacker run, after the last epoch."
    )
    twins = without_help([row for row in rows if row.role == "hacker"], summary)
    if not authorised:
        key = "No authorised network was trained, so nothing here says what a key is worth."
    elif authorised.get("locked"):
        key = (
            "The key brings a view of its own, which the perturbation does not change. So the authorised network"
            " learns from the copy exactly what it would learn from the original through the same view. The view itself"
            f" costs something: {percent(authorised['locked_clean_accuracy'])} % through it on the originals,"
            f" {percent(authorised['clean_accuracy'])} % without it."
        )
        if twins:
            key += f" A hacker with the same architecture and no key reaches {percent(twins[0].published)} %."
    elif twins:
        key = (
            "The key is a set of secret initial weights. A hacker who knows the architecture and draws other weights is"
            f" the hardest case for it, and must always be reported: here he reaches {percent(twins[0].published)} %,"
            f" the authorised network {percent(authorised['accuracy'])} %. Initial weights alone are a weak key;"
            " whoever guesses the architecture has to be expected to learn about as much."
        )
    else:
        key = (
            "No hacker with the authorised architecture and other initial weights was tried. Initial weights alone are"
            " a weak key, and that hacker is the hardest case for it: without him the margin says little."
        )
    return [scope, evidence, peak, key, not_tried(hackers, manifest, offered, records)]


def not_tried(
    hackers: list[dict[str, Any]],
    manifest: dict[str, Any],
    offered: Sequence[str],
    records: Sequence[dict[str, Any]],
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
        known += f"Screened with a part of the epochs and given up, for others taught more: {', '.join(given_up)}. "
    return (
        f"{known}A hacker is free to try more, with other settings, combined, or in ways that nobody has thought of."
        " A small accuracy of the hackers who were tried is no proof against the others."
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 seed", "4 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
