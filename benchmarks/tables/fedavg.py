"""Federated averaging beside central training on the same copy (`examples/federated.py --record`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tables.text import Row, table


def still_made(rows: Iterable[Row]) -> list[Row]:
    """Those of methods that this version has."""
    return [row for row in rows if row["method"] != "null-space"]


def fedavg_table(rows: Iterable[Row]) -> str:
    lines = [
        [
            f"{row['dataset']}, {row['images']} images",
            f"{row['method']}, epsilon {row['epsilon_255']}",
            row["network"],
            str(row["clients"]),
            f"{row['rounds']} x {row['local_epochs']}",
            str(row["local_batch_size"]),
            str(row["seed"]),
            f"{row['accuracy']:.1f}",
            f"{row['central_accuracy']:.1f}",
            f"{row['accuracy'] - row['central_accuracy']:+.1f}",
        ]
        for row in still_made(rows)
    ]
    header = ["data", "copy", "the recipient's network", "clients", "rounds x local epochs", "local batch", "seed"]
    return table([*header, "federated", "central", "difference"], lines)
