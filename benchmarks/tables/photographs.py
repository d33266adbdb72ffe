"""Photographs at their own sizes (`quality/photographs.py`): who learns what, at the protected size and at others.

A row is a training, as an audit writes it, with `dataset`, `side` (pixels that the copy was protected at) and
`train_size` (pixels that networks saw); or `"kind": "copy"`, the facts of one copy. Rows with `trial`, which
names settings that are not the default, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from benchmarks.tables.text import Row, Run, run_of, short, shown, table

Place = tuple[str, int, int, int]  # data, images, side, size that networks saw

NAMES = {"none": "", "other-init": ", the recipient's", "pool:2": ", halved and back"}


def photograph_table(rows: Sequence[Row]) -> str:
    """A column a copy and training size; a line for the recipient and each hacker, in brackets on the originals."""
    trainings = [row for row in rows if row["kind"] != "copy" and "trial" not in row]
    found: dict[Run, dict[Place, list[Row]]] = {}
    for row in sorted(trainings, key=lambda row: row["kind"]):
        found.setdefault(run_of(row), {}).setdefault(_place(row), []).append(row)
    places = sorted(set(map(_place, trainings)))
    header = [f"{images:,} of {data}, protected at {side}, trained at {size}" for data, images, side, size in places]
    body = [[_who(run), *(_both(here, place) for place in places)] for run, here in found.items()]
    return table(["who trains", *header], body)


def _place(row: Row) -> Place:
    return row["dataset"], row["images"], row["side"], row["train_size"]


def _who(run: Run) -> str:
    kind, network, countermeasure = run
    if kind == "authorised":
        return "**recipient**"
    return short(network) + NAMES.get(countermeasure, f", {countermeasure}")


def _both(found: dict[Place, list[Row]], place: Place) -> str:
    """On the copy, and in brackets the mean on the originals, which know of no size that a copy was protected at."""
    alike = [row for other, rows in found.items() if other[:2] + other[3:] == place[:2] + place[3:] for row in rows]
    own = [row["accuracy"] for row in found.get(place, []) if row["trained_on"] == "published"]
    ceiling = [row["accuracy"] for row in alike if row["trained_on"] == "clean"]
    return shown(own) + (f" ({fmean(ceiling):.1f})" if own and ceiling else "")
