"""An audit's folder from elsewhere: whatever stands in it, a page is written or one line says what is wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uge.errors import PublishError
from uge.report.audit import write_reports
from uge.report.page import ReportInput

VALUES = [None, True, -1, 0, 2**31, 2**62, 1e300, -5.5, "", "x" * 300, "<b>"]
VALUES += [[], [[]], [1], {}, {"a": {}}, [{}], [None]]
MISSING = object()
HOSTILE = "<script>alert(1)</script>[ok](https://evil.example)|`x`\x1b[2J\u202e\n# signature: valid"


@pytest.fixture
def files(report_input: ReportInput, tmp_path: Path) -> dict[str, Any]:
    """The JSON of a whole audit's folder, by file; `examples.npz` is there already."""
    rows = [
        {"cell": str(number), "accuracy": 50.0, "peak_accuracy": 60.0, "seed": 0, **row}
        for number, row in enumerate(report_input.records)
    ]
    pair = {"copies": np.zeros((2, 3, 8, 8), np.uint8), "labels": np.array([0, 1])}
    np.savez(tmp_path / "examples.npz", class_names=["a", "b"], **pair)
    facts = {
        "format_version": 2,
        "cells": [row["cell"] for row in rows],
        "manifest": report_input.manifest
        | {"image_size": [32, 32], "channels": 3, "class_names": ["a", "b"], "sha256": "0" * 64},
        "settings": report_input.settings,
        "quality": report_input.quality,
        "skipped": report_input.skipped or [{"what": "vgg", "why": "needs --key"}],
        "offered": list(report_input.offered),
        "environment": report_input.environment,
        "plan": report_input.plan,
    }
    return {"audit.json": facts, "summary.json": report_input.summary, "records.jsonl": rows}


def write(folder: Path, files: dict[str, Any]) -> None:
    for name in ("audit.json", "summary.json"):
        (folder / name).write_text(json.dumps(files[name]))
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in files["records.jsonl"]))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of nested data."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(files: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    files = copy.deepcopy(files)
    inner: Any = files
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return files


def shown(folder: Path, what: str, public: bool = False) -> bool:
    """Whether the reports are written; where not, one line names the folder, and nothing else is raised."""
    try:
        return bool(write_reports(folder, public=public))
    except PublishError as error:
        assert str(folder) in str(error) and len(str(error).splitlines()) == 1, what
        return False
    except Exception as error:
        raise AssertionError(what) from error


@pytest.mark.filterwarnings("ignore:.*are damaged and passed over")
def test_an_audit_of_others_is_shown_or_refused_in_one_line(files: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, files)
    assert len(write_reports(tmp_path)) == 2
    rng = random.Random(0)
    every = [path for path in places(files) if len(path) > 1]
    refused = 0
    for _ in range(300):
        path, value = rng.choice(every), rng.choice(VALUES)
        write(tmp_path, changed(files, path, value))
        refused += not shown(tmp_path, f"{path} = {value!r}", public=rng.random() < 0.3)
    assert 30 < refused < 300
    for path in every:
        if isinstance(path[-1], str):
            write(tmp_path, changed(files, path, MISSING))
            shown(tmp_path, f"{path} is missing")


def test_class_names_that_are_no_text_are_one_line(files: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, files)
    content = dict(np.load(tmp_path / "examples.npz"))
    names = np.frombuffer(np.array([2**31 + 7, 65], np.uint32).tobytes(), "<U1")
    np.savez(tmp_path / "examples.npz", **(content | {"class_names": names}))
    with pytest.raises(PublishError, match=r"examples\.npz"):
        write_reports(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"\x93NUMPY", b"\x00" * 100])
def test_examples_that_are_none_are_one_line(files: dict[str, Any], tmp_path: Path, content: bytes | None) -> None:
    write(tmp_path, files)
    whole = (tmp_path / "examples.npz").read_bytes()
    (tmp_path / "examples.npz").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(PublishError, match=r"examples\.npz"):
        write_reports(tmp_path)


def test_no_page_passes_on_what_an_audit_of_others_says(files: dict[str, Any], tmp_path: Path) -> None:
    for path in [path for path in places(files) if len(path) > 1]:
        inner: Any = files
        for key in path:
            inner = inner[key]
        if (
            isinstance(inner, str)
            and path[-1] not in ("cell", "kind", "trained_on", "knows", "role")
            and path[1] != "cells"
        ):
            files = changed(files, path, HOSTILE if path[-1] != "countermeasure" or inner != "none" else inner)
    write(tmp_path, files)
    pages = {file.name: file.read_text() for public in (False, True) for file in write_reports(tmp_path, public=public)}
    for name, text in pages.items():
        assert "\x1b" not in text and "\u202e" not in text and "\n# signature: valid" not in text, name
        assert name.endswith(".json") or "<script>alert" not in text, name
        assert not name.endswith(".md") or ("](http" not in text and "`" not in text), name
