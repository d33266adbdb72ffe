"""Photographs at their own sizes (`quality/photographs.py`): who learns what, at the protected size and at others.

A row is a training, as an audit writes it, with `dataset`, `side` (pixels that the copy was protected at) and
`train_size` (pixels that networks saw); or `"kind": "copy"`, the facts of one copy. Rows with `trial`, which
names settings that are not the default, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, run_of, short, shown, table

NAMES = {"none": "", "other-init": ", the recipient's", "pool:2": ", halved and back"}


def photograph_table(rows: Sequence[Row]) -> str:
    """A column a copy and training size; a line for the recipient and each hacker, in brackets on the originals."""
    trainings = [row for row in rows if row["kind"] != "copy" and "trial" not in row]
    who = list(dict.fromkeys(run_of(row) for row in sorted(trainings, key=lambda row: row["kind"])))
    places = sorted({(row["dataset"], row["side"], row["train_size"]) for row in trainings})
    body = []
    for run in who:
        kind, network, countermeasure = run
        name = (
            "**recipient**"
            if kind == "authorised"
            else short(network) + NAMES.get(countermeasure, f", {countermeasure}")
        )
        cells = []
        for place in places:
            here = [row for row in trainings if (row["dataset"], row["side"], row["train_size"]) == place]
            cells.append(_both([row for row in here if run_of(row) == run]))
        body.append([name, *cells])
    header = [f"{data}, protected at {side}, trained at {size}" for data, side, size in places]
    return table(["who trains", *header], body)


def _both(rows: Sequence[Row]) -> str:
    """On the copy, and in brackets on the originals."""
    own, ceiling = ([row["accuracy"] for row in rows if row["trained_on"] == on] for on in ("published", "clean"))
    return shown(own) + (f" ({shown(ceiling)})" if ceiling else "")
