"""Plots from records, as SVG written here: the same bytes on every machine, so that stale ones are found."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.tables.leaderboard import GONE
from benchmarks.tables.sealed import HEADLINE, classes_of, places
from benchmarks.tables.text import Row, short
from uge.audit.metrics import counts, summarise
from uge.report.leaderboard import results_of

LABELS, WIDTH, LINE, TOP = 260, 720, 20, 34  # pixels: where the axis begins, the picture, a row, what is above it
STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#333}.axis{stroke:#8884}.chance{stroke:#888;stroke-dasharray:3 3}
.span{stroke:#8888;stroke-width:2}.first{fill:#c2410c}.second{fill:#fff;stroke:#1d4ed8;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#ddd}.first{fill:#fb923c}.second{fill:#111;stroke:#93c5fd}}
</style>"""
Dots = tuple[str, float, float | None]  # a label, and two values in percent


def dots(rows: Sequence[Dots], names: tuple[str, str], chance: float, title: str) -> str:
    """A row a label: a full dot at its first value, a ring at its second, both on an axis from 0 to 100 percent."""
    bottom = TOP + LINE * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 24}" role="img"'
        f' aria-label="{escape(title)}">{STYLE}',
        f'<circle class="first" cx="{LABELS}" cy="12" r="5"/><text x="{LABELS + 12}" y="16">{escape(names[0])}</text>',
        f'<circle class="second" cx="{LABELS + 170}" cy="12" r="4"/>'
        f'<text x="{LABELS + 182}" y="16">{escape(names[1])}</text>',
        *(_upright("axis", share, bottom) + _number(share, bottom) for share in range(0, 101, 20)),
        _upright("chance", chance, bottom),
        *(_row(label, first, second, TOP + LINE * place) for place, (label, first, second) in enumerate(rows)),
    ]
    return "\n".join([*parts, "</svg>\n"])


def _across(percent: float) -> float:
    return round(LABELS + percent / 100 * (WIDTH - LABELS - 20), 1)


def _upright(role: str, percent: float, bottom: int) -> str:
    x = _across(percent)
    return f'<line class="{role}" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}"/>'


def _number(percent: float, bottom: int) -> str:
    return f'<text x="{_across(percent)}" y="{bottom + 16}" text-anchor="middle">{percent:g} %</text>'


def _row(label: str, first: float, second: float | None, top: int) -> str:
    middle = top + LINE // 2
    text = f'<text x="{LABELS - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>'
    dot = f'<circle class="first" cx="{_across(first)}" cy="{middle}" r="5"/>'
    if second is None:
        return text + dot
    span = f'<line class="span" x1="{_across(first)}" x2="{_across(second)}" y1="{middle}" y2="{middle}"/>'
    return f'{text}{span}<circle class="second" cx="{_across(second)}" cy="{middle}" r="4"/>{dot}'


def hackers_plot(rows: Sequence[Row]) -> str:
    """The recipient, then every hacker of the default copy, the strongest last."""
    trainings = places(rows).get(HEADLINE, [])
    if not trainings:
        return dots([], ("on the copy", "on the originals"), 0, "not measured yet")
    summary = summarise(trainings, classes_of(HEADLINE[0]))
    user = summary["authorised"]
    first: list[Dots] = [("recipient", user["accuracy"], user["locked_clean_accuracy"])] if user else []
    hackers = sorted(filter(counts, summary["groups"]), key=lambda group: group["accuracy"])
    lines = [(_named(group), group["accuracy"], group["clean_accuracy"]) for group in hackers]
    return dots([*first, *lines], ("on the copy", "on the originals"), summary["chance"], "Accuracy of every hacker")


def _named(group: Row) -> str:
    how = group["countermeasure"]
    how = how if len(how) < 40 else how.partition(":")[0]
    network = short(group["network"])
    if how in ("none", "other-init"):
        return network
    return how if network in how else f"{network}, {how}"


def leaderboard_plot(rows: Sequence[Row]) -> str:
    """A row a protection: what plain training learns, and what the strongest hacker does."""
    results = [each for group in results_of(rows).values() for each in group if each["name"] not in GONE]
    lines = [(each["name"], each["naive"]["accuracy"], each["worst"]["accuracy"]) for each in results]
    chance = results[0]["chance"] if results else 0
    return dots(lines, ("plain hacker", "strongest hacker"), chance, "What hackers learn from each protection")
