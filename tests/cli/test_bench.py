"""`uge bench` as a person calls it: one leaderboard in four forms, killed at any time, one line for what is wrong."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from uge.locks import held

from .conftest import KILLED, Run

PLAN = """
epochs = 1
authorised = "convnet:width=8"
[[protections]]
method = "lsp"
[[protections]]
method = "learnability-lock"
name = "lock.v1"
settings = {network = "mlp:width=8", rounds = 1, network_steps = 1, passes = 1}
[[protections]]
method = "sealed"
settings = {epochs = 1, surrogates = ["mlp:width=8"], references = ["mlp:width=8"], width = 4}
[[hackers]]
networks = ["mlp:width=8", "authorised"]
countermeasures = ["none"]
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["blur:1", "clean-mixed:12"]
"""


TWICE = """
epochs = 1
seeds = [0, 1]
budget_check = false
subsets = 0
[[protections]]
method = "lsp"
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["none", "blur:1"]
"""


def rows_of(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [row for row in rows if kind in ("", row["kind"])]


@pytest.fixture(scope="module")
def compared(run: Run, toy: Path, published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three protections and of a folder that another program wrote."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "mine.toml").write_text(PLAN)
    shutil.copytree(published / "train", folder / "others")
    given = ("--folder", f"theirs={folder / 'others'}", "--runner", "local:workers=1")
    assert "sealed" in run("bench", folder / "mine.toml", "--data", toy, *given, "--out", folder / "out").ok().stdout
    return folder / "out"


def test_every_protection_is_measured_in_the_same_way(compared: Path) -> None:
    results = {row["name"]: row for row in rows_of(compared, "result")}
    assert set(results) == {"lsp", "lock.v1", "sealed", "theirs"}
    hackers = [row for row in rows_of(compared, "hacker") if row["trained_on"] == "published"]
    for name, result in results.items():
        own = {row["countermeasure"]: row["accuracy"] for row in hackers if row["name"] == name}
        free = [accuracy for how, accuracy in own.items() if how != "clean-mixed:12"]
        assert result["naive"]["accuracy"] == own["none"], name
        assert result["worst_without_clean"]["accuracy"] == max(free), name
        assert result["worst"]["accuracy"] == max(own.values()), name
        assert {"psnr_db", "ssim", "l_inf_255"} <= set(result["quality"]), name
    for name in ("lock.v1", "sealed"):  # who have a key
        result = results[name]
        users = [row for row in rows_of(compared, "authorised") if row["name"] == name]
        published = [row["accuracy"] for row in users if row["trained_on"] == "published"]
        assert result["authorised"]["accuracy"] == published[0]
        assert result["margin"] == pytest.approx(published[0] - result["worst"]["accuracy"], abs=1e-3)
    assert results["lsp"]["authorised"] is None and results["lsp"]["margin"] is None
    user = results["sealed"]["authorised"]
    assert user["locked_clean_accuracy"] == user["accuracy"], "the recipient trains on the originals, bit for bit"


def test_ceilings_are_trained_once_and_costs_are_compared_with_resnet_18(compared: Path) -> None:
    clean = [row["countermeasure"] for row in rows_of(compared, "hacker") if row["name"] == "clean"]
    assert sorted(clean) == ["blur:1", "clean-mixed:12", "none", "other-init"]
    (yardstick,) = rows_of(compared, "yardstick")
    costs = {row["name"]: row["cost"] for row in rows_of(compared, "copy")}
    assert costs["theirs"] is None
    for name in ("lsp", "lock.v1", "sealed"):
        trainings = costs[name]["cpu_seconds"] / yardstick["cpu_seconds"]
        assert costs[name]["trainings"] == pytest.approx(trainings, rel=0.01)
        assert 50 < costs[name]["peak_memory_mb"] < 4000
    assert costs["sealed"]["cpu_seconds"] > costs["lsp"]["cpu_seconds"]
    beside = {path.name for path in compared.glob("*/copies/*")}
    assert beside >= {"sealed-0.protector.uge", "sealed-0.recipient.uge", "lock.v1-0.lock"}


def test_markdown_and_csv_say_what_the_records_say(compared: Path) -> None:
    results = {row["name"]: row for row in rows_of(compared, "result")}
    lines = list(csv.DictReader((compared / "leaderboard.csv").read_text().splitlines()))
    assert {line["name"] for line in lines} == set(results)
    for line in lines:
        result = results[line["name"]]
        assert float(line["naive"]) == result["naive"]["accuracy"]
        assert float(line["worst"]) == result["worst"]["accuracy"]
        assert line["worst_countermeasure"] == result["worst"]["countermeasure"]
        assert line["margin"] == ("" if result["margin"] is None else str(result["margin"]))
        assert line["trainings"] == ("" if result["cost"] is None else str(result["cost"]["trainings"]))
        assert result["cost"] is None or result["cost"]["trainings"] > 0  # however little it took
    lines = (compared / "leaderboard.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]  # after head and rule
    shown = [results[row[0].split(" (")[0]] for row in table]
    assert len(shown) == len(results) and shown == sorted(shown, key=lambda result: result["worst"]["accuracy"])
    for row, result in zip(table, shown, strict=True):
        assert row[1].startswith(f"{result['naive']['accuracy']:.1f} ")
        assert row[3].startswith(f"{result['worst']['accuracy']:.1f} ")


def test_killed_at_random_it_ends_with_the_records_of_an_undisturbed_run(run: Run, toy: Path, tmp_path: Path) -> None:
    plan = tmp_path / "short.toml"
    plan.write_text(TWICE)
    arguments = ("bench", plan, "--data", toy, "--runner", "local:workers=1")

    def told(folder: Path) -> list[dict[str, Any]]:
        times = {"seconds", "cost", "cpu_seconds", "peak_memory_mb"}
        return [{name: value for name, value in row.items() if name not in times} for row in rows_of(folder)]

    run(*arguments, "--out", tmp_path / "calm").ok()
    ended = run(*arguments, "--out", tmp_path / "rough", kill_after=random.Random(3).uniform(0.2, 6))
    assert ended.code in (KILLED, 0), ended
    run(*arguments, "--out", tmp_path / "rough").ok()
    assert told(tmp_path / "rough") == told(tmp_path / "calm")
    (result,) = rows_of(tmp_path / "calm", "result")
    assert result["seeds"] == [0, 1] and result["naive"]["seeds"] == 2
    assert result["naive"]["interval"] is None  # of two seeds
    seconds = {row["copy_seed"] for row in rows_of(tmp_path / "calm", "hacker") if row["countermeasure"] == "blur:1"}
    assert seconds == {0}  # the second copy meets the plain hackers alone


@pytest.mark.parametrize(
    ("plan", "more", "said"),
    [
        ("nowhere.toml", [], "cannot read plan"),
        ("quik", [], "quick"),
        ("leaderboard", [], "names no data"),
        ("quick", ["--folder", "mine"], "is not NAME=DIR"),
        ("quick", ["--folder", "mine=nowhere"], "is no folder"),
        ("quick", ["--folder", "em={toy}"], "has the name of a protection"),
        ("quick", ["--folder", "m/e={toy}"], "names no protection"),
        ("quick", ["--folder", "mine={toy}"], "is no copy of these"),
        ("quick", ["--data", "{toy}", "--data", "{toy}"], "the same name"),
    ],
)
def test_bad_input_is_one_line(run: Run, toy: Path, tmp_path: Path, plan: str, more: list[str], said: str) -> None:
    filled = [text.format(toy=toy) for text in more]
    assert said in run("bench", plan, *filled, "--out", tmp_path / "out").error
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_one_comparison(run: Run, compared: Path, toy: Path) -> None:
    others = run("bench", "quick", "--data", toy, "--out", compared)
    assert "holds a comparison with other data or settings" in others.error
    given = ("--folder", f"theirs={compared.parent / 'others'}", "--runner", "local:workers=1")
    with held(compared):
        error = run("bench", compared.parent / "mine.toml", "--data", toy, *given, "--out", compared).error
    assert "is in use by process" in error
