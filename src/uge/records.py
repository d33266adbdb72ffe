"""Run records as JSON lines: one self-describing row a run, appended whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from uge.errors import PublishError

RECORD_VERSION = 1


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that name a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def append_record(path: Path, row: dict[str, Any]) -> None:
    """Append one row. The line reaches the disk before the call returns.

    Raises:
        PublishError: the disk is full or the file cannot be written.
    """
    line = json.dumps({"record_version": RECORD_VERSION, **row}, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a torn line from a killed run: leave it on a line of its own
                    line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror or error}") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a file; a line that a killed run left torn is passed over."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
