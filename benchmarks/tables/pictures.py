"""Pictures without classes (`quality/pictures.py`): what a network that was not used to protect them sees in them.

A row has `dataset`, `class`, `images`, `seed` and `psnr_db`; and either `filter` with `cosine` (copy and original),
`cosine_between` (two originals) and `same` (percent); or `learnt_from` with `recall` (percent).
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.text import Row, shown, table

LEARNT = {"originals": "the originals", "copies": "their copies", "none": "none of them"}


def picture_table(rows: Sequence[Row]) -> str:
    """A line a filter."""
    seen, body = [row for row in rows if "filter" in row], []
    for name in dict.fromkeys(row["filter"] for row in seen):
        here = [row for row in seen if row["filter"] == name]
        cells = [shown([100 * row[what] for row in here], 0) for what in ("cosine", "cosine_between")]
        body.append([name, *cells, shown([row["same"] for row in here])])
    header = ["filter", "copy and original, cosine in %", "two originals", "the same class named, %"]
    return table(header, body)


def recall_table(rows: Sequence[Row]) -> str:
    """A line for what stands in the place of the pictures."""
    learnt = [row for row in rows if "learnt_from" in row]
    found = {name: [row["recall"] for row in learnt if row["learnt_from"] == who] for who, name in LEARNT.items()}
    body = [[name, shown(here)] for name, here in found.items() if here]
    kinds = " and ".join(
        dict.fromkeys(f"{row['images']} pictures of {row['class']}, {row['dataset']}" for row in learnt)
    )
    return table([f"learnt from ({kinds})", "found among clean test images, %"], body)
