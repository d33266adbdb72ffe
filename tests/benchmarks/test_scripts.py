"""The benchmark scripts still run with the code that there is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from benchmarks.quality.audit import keep
from benchmarks.quality.search import trainings_of
from benchmarks.ranking import FOLDERS
from uge.records import append_record, read_records

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SCRIPTS = [
    f"benchmarks.{file.parent.name}.{file.stem}"
    for folder in ("quality", "speed")
    for file in sorted((Path(__file__).parents[2] / "benchmarks" / folder).glob("*.py"))
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_the_search_is_replayed_on_what_the_records_have_of_hackers_that_still_exist() -> None:
    rows = [row for folder in FOLDERS for row in read_records(RESULTS / folder / "records.jsonl")]
    found = trainings_of(rows)
    assert len(found) > 10 and all("data=" not in how for hackers in found.values() for _, how in hackers)


def test_an_audit_is_kept_once_and_goes_on(tmp_path: Path) -> None:
    audit, results = tmp_path / "audit", tmp_path / "records.jsonl"
    row = {"kind": "hacker", "cell": "a", "network": "mlp", "countermeasure": "none", "knows": "nothing", "seed": 0}
    row |= {"trained_on": "published", "accuracy": 50.0, "peak_accuracy": 51.0}
    append_record(audit / "records.jsonl", row)
    append_record(audit / "records.jsonl", row | {"cell": "b", "error": "out of memory"})
    facts = {name: {} for name in ("manifest", "quality", "settings", "skipped", "environment")}
    (audit / "audit.json").write_text(json.dumps(facts | {"plan": {"name": "quick", "budget": 90.0}}))
    assert [keep(audit, "uge", "cifar10", results) for _ in range(2)] == [1, 0]
    append_record(audit / "records.jsonl", row | {"cell": "b"})
    assert keep(audit, "uge", "cifar10", results) == 1
    kept = read_records(results)
    assert [row.get("cell") for row in kept] == ["a", None, "b", None]
    assert {(row["name"], row["dataset"], row["plan"]) for row in kept} == {("uge", "cifar10", "quick")}


def test_letters_are_timed(eurosat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = importlib.import_module("benchmarks.speed.measure")
    monkeypatch.setattr(measure, "RECORDS", tmp_path / "records.jsonl")
    measure.measure_letters(eurosat.subset(torch.arange(0, 3000, 150)), repeats=1)
    rows = read_records(tmp_path / "records.jsonl")
    assert [row["measure"] for row in rows][:2] == ["sealing letters", "opening letters"] and len(rows) == 5
    assert all(row["value"] > 0 and row["table"] == "costs" and row["unit"] == "images/s" for row in rows)
