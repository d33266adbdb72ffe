"""Run records as JSON lines: one self-describing row a run, appended whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from uge.durable import append
from uge.errors import PublishError, told_as
from uge.outside import MOST_FACTS, open_file, parse_json, read_file, typed

RECORDS = "records.jsonl"  # in the folder of an audit or a comparison
RECORD_VERSION = 1
AUDIT_VERSION = 2  # of what else an audit writes into its folder
ASKS = "model outputs"  # what a hacker knows who queries the recipient's trained network
Percent = Annotated[float, Meta(ge=0, le=100)]


class Failed(Struct):
    """What summaries and pages go by in the row of any training."""

    cell: str
    kind: str
    network: str
    trained_on: str
    countermeasure: str
    knows: str
    seed: int
    budget: Annotated[float, Meta(ge=0, le=1000)] | None = None
    originals: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    recipe: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    data: str | None = None
    config_hash: str | None = None
    locked: bool | None = None


class Finished(Failed, kw_only=True):
    """And in that of a whole one."""

    accuracy: Percent
    peak_accuracy: Percent
    test_accuracy: list[Percent] | None = None
    seconds: Annotated[float, Meta(ge=0, le=1e12)] | None = None


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that name a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def append_record(path: Path, row: dict[str, Any]) -> None:
    """Append one row. The line reaches the disk before the call returns.

    Raises:
        PublishError: the disk is full or the file cannot be written.
    """
    append(path, line_of(row))


def line_of(row: dict[str, Any]) -> str:
    """The line of a row; numbers that are not finite, which JSON has not, become null."""
    named = {"record_version": RECORD_VERSION, **row}
    try:
        return json.dumps(named, sort_keys=True, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(named), parse_constant=lambda _: None), sort_keys=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All rows of a file. A line that is none, such as one that a killed run left torn, is passed over with a warning.

    Raises:
        PublishError: the file cannot be read.
    """
    if not os.path.lexists(path):
        return []
    with told_as(PublishError, f"cannot read {path}"), open_file(path) as file:
        rows = [_row(line) for line in file if line.strip()]
    found = [row for row in rows if row is not None]
    if lost := len(rows) - len(found):
        warnings.warn(f"{path}: {lost} of {len(rows)} lines are damaged and passed over", stacklevel=2)
    return found


def read_row(path: Path) -> dict[str, Any] | None:
    """The row that is all of a file; None where it holds none."""
    try:
        return _row(read_file(path, MOST_FACTS))
    except OSError:
        return None


def asks(hacker: dict[str, Any]) -> bool:
    """Whether a hacker queries the recipient's network: a margin is measured against the others."""
    return bool(hacker["knows"] == ASKS)


def without_copy(amount: dict[str, Any] | None) -> str:
    """Who has the same originals and no copies, "clean-only:500"; "" where the amount is one of anything else."""
    return f"clean-only:{amount['number']:.0f}" if amount and amount["of"] in ("clean images", "pairs") else ""


def is_training(row: dict[str, Any]) -> bool:
    """Whether a row is that of a training, whole or failed, with the parts that summaries and pages go by."""
    try:
        typed(row, Failed if "error" in row else Finished)
    except ValueError:
        return False
    return True


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
