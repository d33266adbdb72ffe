"""Photographs at their own sizes (`quality/photographs.py`): who learns what, at the protected size and at others.

A row is a training, as an audit writes it, with `dataset`, `side` (pixels that the copy was protected at) and
`train_size` (pixels that networks saw); or `"kind": "copy"`, the facts of one copy. Rows with `trial`, which
names settings that are not the default, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, shown, table

NAMES = {"none": "vgg", "other-init": "the recipient's network", "pool:2": "halved and back"}


def photograph_table(rows: Sequence[Row]) -> str:
    """A line a copy and training size: the recipient and each hacker, in brackets on the originals."""
    trainings = [row for row in rows if row["kind"] != "copy" and "trial" not in row]
    hackers = list(dict.fromkeys(row["countermeasure"] for row in trainings if row["kind"] == "hacker"))
    places = dict.fromkeys((row["dataset"], row["side"], row["train_size"]) for row in trainings)
    body = []
    for place in sorted(places):
        here = [row for row in trainings if (row["dataset"], row["side"], row["train_size"]) == place]
        cells = [_both(here, "authorised", "none"), *(_both(here, "hacker", hacker) for hacker in hackers)]
        body.append([place[0], f"{place[1]} x {place[1]}", f"{place[2]} x {place[2]}", *cells])
    header = ["data", "protected at", "trained at", "recipient", *(NAMES.get(name, name) for name in hackers)]
    return table(header, body)


def _both(rows: Sequence[Row], kind: str, countermeasure: str) -> str:
    """On the copy, and in brackets on the originals."""
    own, ceiling = (
        [
            row["accuracy"]
            for row in rows
            if (row["kind"], row["countermeasure"], row["trained_on"]) == (kind, countermeasure, trained_on)
        ]
        for trained_on in ("published", "clean")
    )
    return shown(own) + (f" ({shown(ceiling)})" if ceiling else "")
