"""Whole audits of a small copy: the same plan gives the same records on every runner and after every interruption."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from uge.audit.conduct import Watcher, conduct
from uge.audit.folder import claimed_for_audit
from uge.audit.plan import AUTHORISED, Cell, Hackers, Plan, Row
from uge.audit.run import Audit, read_finished
from uge.audit.trainer import Trainer
from uge.audit.worker import CELLS, load_job, save_job, train_cell, train_cells
from uge.errors import ConfigError, PublishError
from uge.keys.weights import WeightsKey
from uge.records import RECORD_VERSION, read_records, read_row
from uge.report.audit import read_audit
from uge.runners import Local, build_runner
from uge.training import recommended_recipe

from .conftest import Images, Rows, timeless

Given = dict[str, Any]
PLAN = Plan(
    "small",
    (Hackers((AUTHORISED, "mlp:width=8")), Hackers(("mlp:width=8",), ("blur:1", "distillation:soft", "clean-only:20"))),
    epochs=2,
    budget_check=True,
    strongest=1,
    more_seeds=(1,),
    subsets=1,
)


@pytest.fixture
def whole(images: Images, key: WeightsKey) -> Given:
    """What a whole audit is given, by one process."""
    return {**images, "key": key, "plan": PLAN, "runner": Local(1)}


@pytest.fixture
def bare(images: Images) -> Given:
    """The same for one plain hacker, without key and originals."""
    plan = replace(PLAN, hackers=(Hackers(("mlp:width=8",)),), strongest=0, budget_check=False)
    return {"published": images["published"], "test": images["test"], "plan": plan, "runner": Local(1)}


def records(folder: Path) -> Rows:
    return timeless(read_records(folder / "records.jsonl"))


@pytest.fixture(scope="module")
def undisturbed(images: Images, key: WeightsKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audits") / "undisturbed"
    conduct(**images, key=key, out=folder, plan=PLAN, runner=Local(1))
    return folder


class Heard(Watcher):
    def __init__(self) -> None:
        self.facts: tuple[Any, ...] = ()
        self.missing: list[int] = []
        self.rows: Rows = []
        self.seconds: list[float] = []

    def planned(self, *facts: Any) -> None:
        self.facts = facts

    def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
        assert 0 <= seconds_done < seconds_all
        self.missing.append(missing)

    def trained(self, row: dict[str, Any], seconds: float) -> None:
        assert seconds > 0
        self.rows.append(row)
        self.seconds.append(seconds)


def test_an_audit_trains_its_plan_and_leaves_what_the_contract_says(undisturbed: Path) -> None:
    rows = records(undisturbed)
    facts, summary = (json.loads((undisturbed / name).read_text()) for name in ("audit.json", "summary.json"))
    assert facts["cells"] == [row["cell"] for row in rows] and len(set(facts["cells"])) == len(rows)
    assert facts["plan"]["name"] == "small" and facts["manifest"]["method"] == "unknown" and facts["skipped"] == []
    assert facts["quality"]["l_inf_255"] == 16
    assert {file.name for file in undisturbed.iterdir()} == {
        "records.jsonl", "data.json", "audit.json", "summary.json", "examples.npz", "authorised", ".lock"
    }  # fmt: skip
    assert undisturbed.stat().st_mode & 0o077 == 0
    groups = {(group["network"], group["countermeasure"]): group for group in summary["groups"]}
    assert len(groups) == 5 and sum(group["seeds"] == 2 for group in groups.values()) == 1
    assert all(isinstance(group["undertrained"], bool) for group in groups.values())
    plain, alone = groups["mlp(width=8)", "none"], groups["mlp(width=8)", "clean-only:20"]
    assert alone["clean_accuracy"] is not None and plain["clean_accuracy"] is not None
    assert summary["authorised"]["seeds"] == [0, 1] and not summary["evidence"]
    assert {worth["copies"] for worth in summary["worth"]} == {96}
    assert {tuple(point["originals"] for point in worth["curve"]) for worth in summary["worth"]} == {(0, 50, 96)}


def test_an_audit_says_beforehand_how_much_there_is_to_do_and_a_finished_one_trains_nothing(
    whole: Given, undisturbed: Path
) -> None:
    heard = Heard()
    before = (undisturbed / "records.jsonl").read_bytes()
    conduct(**whole, out=undisturbed, watcher=heard)
    trainings, seconds, skipped = heard.facts
    assert len(records(undisturbed)) - trainings in (0, 1)  # one curve more where the strongest is no plain hacker
    assert seconds > 0 and skipped == []
    assert heard.missing == [] and heard.rows == []
    assert (undisturbed / "records.jsonl").read_bytes() == before


def test_a_plan_caps_the_epochs_of_a_keys_network(images: Images, key: WeightsKey, tmp_path: Path) -> None:
    patient = replace(key, own_recipe=replace(key.own_recipe, epochs=50))
    plan = replace(PLAN, hackers=(Hackers((AUTHORISED, "mlp:width=8")),), budget_check=False, strongest=0)
    for key_epochs, epochs in ((3, 3), (80, 50)):
        audit = Audit(**images, key=patient, folder=tmp_path, recipe=recommended_recipe, key_epochs=key_epochs)
        assert audit.recipe_of(Cell(AUTHORISED)).epochs == epochs
    conduct(**images, key=patient, out=tmp_path / "audit", plan=replace(plan, key_epochs=1), runner=Local(1))
    trained = {(row["kind"], row["network"].partition("(")[0]): row["recipe"] for row in records(tmp_path / "audit")}
    assert {who: recipe["epochs"] for who, recipe in trained.items()} == {
        ("authorised", "convnet"): 1,
        ("hacker", "convnet"): 1,
        ("hacker", "mlp"): 2,
    }
    assert trained["authorised", "convnet"]["batch_size"] == key.own_recipe.batch_size


@pytest.mark.parametrize(
    ("text", "package", "more", "trainings"),
    [
        ("local:workers=2", "", {}, 3 * 2 + 1),  # authorised, other-init, student; ceilings; a curve
        ("ray:workers=2", "ray", {"ceilings": False, "subsets": 0}, 3),
        ("slurm:cluster=local", "submitit", {"ceilings": False, "subsets": 0}, 3),
    ],
)
def test_the_same_plan_gives_the_same_records_on_each_runner(
    whole: Given, undisturbed: Path, tmp_path: Path, text: str, package: str, more: Given, trainings: int
) -> None:
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    plan = replace(
        PLAN, budget_check=False, strongest=0, hackers=(Hackers((AUTHORISED,), ("none", "distillation:soft")),), **more
    )
    conduct(**whole | {"plan": plan, "runner": build_runner(text)}, out=tmp_path / "audit")
    expected = {row["cell"]: row for row in records(undisturbed)}
    rows = records(tmp_path / "audit")
    assert len(rows) == trainings and not any("error" in row for row in rows)
    for row in rows:
        if row["countermeasure"] != "distillation:soft" and "originals" not in row:  # else not in the other plan
            assert row == expected[row["cell"]]
        assert row["environment"]["threads"] == 1
    assert not (tmp_path / "audit" / "job").exists() and not (tmp_path / "audit" / "cells").exists()


def test_a_search_gives_the_same_records_however_many_train(images: Images, tmp_path: Path) -> None:
    block = Hackers(("mlp:width=8",), ("none", "blur:1", "cutmix"))
    plan = Plan("search", (block,), epochs=2, strongest=1, more_seeds=(1,), subsets=0, budget=3600)
    for workers in (1, 2):
        conduct(**images, out=tmp_path / str(workers), plan=plan, runner=Local(workers))
    one, two = (records(tmp_path / name) for name in ("1", "2"))
    assert one == two and any("+" in row["countermeasure"] for row in one)
    assert {row["budget"] for row in one} == {0.1, 0.3, 1.0, 2.0}


def test_a_training_that_fails_is_recorded_and_tried_again(
    bare: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(bare["plan"], hackers=(Hackers(("mlp:width=8",), ("none", "blur:1")),))
    real = Trainer.train

    def fail(self: Any, cell: Any, *more: Any) -> Any:
        if cell.countermeasure == "blur:1":
            raise MemoryError("no room\nfor this")
        return real(self, cell, *more)

    monkeypatch.setattr(Trainer, "train", fail)
    heard = Heard()
    start = partial(conduct, **bare | {"plan": plan}, out=tmp_path / "audit")
    summary = start(watcher=heard)
    assert [row.get("error") for row in heard.rows] == [None, "MemoryError: no room for this"]
    assert len(summary["groups"]) == 1 and len(records(tmp_path / "audit")) == 2
    monkeypatch.undo()
    again = Heard()
    assert len(start(watcher=again)["groups"]) == 2
    assert [row["countermeasure"] for row in again.rows] == ["blur:1"]
    assert ["error" in row for row in records(tmp_path / "audit")] == [False, False]


def test_an_audit_that_is_killed_leaves_what_the_one_before_found(bare: Given, tmp_path: Path) -> None:
    class Killed(Heard):
        def progress(self, *facts: Any) -> None:
            raise KeyboardInterrupt

    conduct(**bare, out=tmp_path / "audit")
    with pytest.raises(KeyboardInterrupt):
        conduct(**bare | {"plan": PLAN}, out=tmp_path / "audit", watcher=Killed())
    assert len(read_audit(tmp_path / "audit").records) == 1


def test_one_folder_holds_one_audit(bare: Given, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    start = partial(conduct, **bare)
    with pytest.raises(PublishError, match="is not empty and holds no audit"):
        start(out=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.json").write_text('{"of": "another program"}')
    with pytest.raises(PublishError, match="holds an audit with other images"):
        start(out=tmp_path / "other")
    with pytest.raises(PublishError, match="holds an audit with other images"):
        start(test=bare["test"].subset(torch.arange(20)), out=undisturbed)
    data = json.loads((undisturbed / "audit.json").read_text())["data"]
    with claimed_for_audit(undisturbed, data), pytest.raises(PublishError, match=f"is in use by process {os.getpid()}"):
        start(out=undisturbed)


def test_a_worker_has_the_audit_from_data_alone(images: Images, key: WeightsKey, tmp_path: Path) -> None:
    told = {"epsilon": 8}
    recipe = partial(recommended_recipe, epochs=3)
    audit = Audit(**images, folder=tmp_path, recipe=recipe, key=key, key_epochs=1, told=told, threads=1)
    job = save_job(audit, ["mlp:width=8", "vit"])
    again = load_job(job)
    assert job.stat().st_mode & 0o077 == job.parent.stat().st_mode & 0o077 == 0
    cells = [Cell(AUTHORISED), Cell("hacker", "vit"), Cell("hacker", "mlp:width=8", "clean-only:20", 1, "clean")]
    assert [again.cell_name(cell) for cell in cells] == [audit.cell_name(cell) for cell in cells]
    assert again.facts(cells[1]) == audit.facts(cells[1]) and again.test.names == audit.test.names
    assert again.key is not None and again.key.signing_key is None  # which no worker needs


def test_a_worker_keeps_a_training_whose_loss_is_no_number(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, cell = Audit(**images, folder=tmp_path, recipe=recommended_recipe), Cell("hacker", "mlp:width=8")
    row = audit.facts(cell) | {"accuracy": 50.0, "peak_accuracy": 50.0, "train_loss": [1.5, math.nan, math.inf]}
    monkeypatch.setattr(Trainer, "train", lambda *_: row)
    train_cell(save_job(audit, [cell.network]), cell)
    (kept,) = (tmp_path / CELLS).iterdir()
    assert read_row(kept) == row | {"train_loss": [1.5, None, None], "record_version": RECORD_VERSION}


@pytest.mark.parametrize("content", [pickle.dumps({"facts": 1}), b"", b"\xff" * 100])
def test_a_job_that_is_something_else_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "job.safetensors").write_bytes(content)
    with pytest.raises(PublishError, match="cannot read the job"):
        load_job(tmp_path / "job.safetensors")


def test_nothing_of_a_folder_is_private_before_the_folder_is(bare: Given, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir(mode=0o755)
    modes = set()

    class Looking(Heard):
        def planned(self, *facts: Any) -> None:
            modes.add(folder.stat().st_mode & 0o777)

        def trained(self, row: Row, seconds: float) -> None:
            modes.add(folder.stat().st_mode & 0o777)

    conduct(**bare, out=folder, watcher=Looking())
    assert modes == {0o700}


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("records.jsonl", lambda text: '5\n{"cell": []}\n{"cell": "x"}\n' + text, "are damaged"),  # lines of others
        ("audit.json", lambda text: '{"data": ', ""),
    ],
)
def test_a_damaged_folder_costs_no_training(
    whole: Given, undisturbed: Path, tmp_path: Path, name: str, change: Callable[[str], str], told: str
) -> None:
    folder = Path(shutil.copytree(undisturbed, tmp_path / "audit"))
    (folder / name).write_text(change((folder / name).read_text()))
    heard = Heard()
    with pytest.warns(UserWarning, match=told) if told else nullcontext():
        conduct(**whole, out=folder, watcher=heard)
    assert heard.rows == []
    assert (folder / "records.jsonl").read_text() == (undisturbed / "records.jsonl").read_text()


def test_a_job_that_dies_elsewhere_is_a_row_and_not_the_end(images: Images, tmp_path: Path) -> None:
    class Losing(Local):
        def run(self, do: Any, more: Any, lost: Any, folder: Path) -> Any:
            yield from (lost(cell, TimeoutError("job 17\n  ran out of\ttime")) for cell in more(1))

    audit = Audit(images["published"], images["test"], tmp_path, recipe=partial(recommended_recipe, epochs=1))
    cell = Cell("hacker", "mlp:width=8")
    (row,) = train_cells(Losing(1), save_job(audit, [cell.network]), lambda count: [cell])
    assert row["error"] == "TimeoutError: job 17 ran out of time" and row["cell"] == audit.cell_name(cell)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("locale", "unknown runner 'locale'; did you mean 'local'"),
        ("local:worker=2", "unknown option of runner 'local' 'worker'; did you mean 'workers'"),
        ("local:workers=two", "expected a whole number, got 'two'"),
        ("slurm:cluster=moon", "cluster is slurm or local"),
        ("slurm:at_once=0", "slurm: at_once must be at least 1"),
    ],
)
def test_a_runner_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    if text.startswith("slurm"):
        pytest.importorskip("submitit", reason="submitit is not installed")
    with pytest.raises(ConfigError, match=message):
        build_runner(text)


def test_random_order_of_finishing_changes_nothing(whole: Given, undisturbed: Path, tmp_path: Path) -> None:
    class Shuffled(Local):
        def run(self, do: Any, more: Any, *rest: Any) -> Any:
            waiting: list[Any] = []

            def shuffled(count: int) -> list[Any]:
                waiting.extend(more(1000))
                random.Random(3).shuffle(waiting)
                return [waiting.pop() for _ in range(min(count, len(waiting)))]

            yield from super().run(do, shuffled, *rest)

    conduct(**whole | {"runner": Shuffled(1)}, out=tmp_path / "audit")
    assert records(tmp_path / "audit") == records(undisturbed)


def test_teachers_begin_first_then_long_trainings(whole: Given, tmp_path: Path) -> None:
    heard = Heard()
    conduct(**whole, out=tmp_path / "audit", watcher=heard)
    assert sum(heard.missing) == len(heard.rows) and heard.missing[0] > 5
    for count in heard.missing:
        stage, heard.rows = heard.rows[:count], heard.rows[count:]
        lengths, heard.seconds = heard.seconds[:count], heard.seconds[count:]
        students = {(row["seed"], row["trained_on"]) for row in stage if row["countermeasure"] == "distillation:soft"}
        teachers = [
            row["kind"] == "authorised" and row["budget"] == 1 and (row["seed"], row["trained_on"]) in students
            for row in stage
        ]
        assert teachers == sorted(teachers, reverse=True) and sum(teachers) == len(students)
        rest = lengths[sum(teachers) :]
        assert rest == sorted(rest, reverse=True)


def test_students_wait_for_their_teachers_and_nobody_else(whole: Given, tmp_path: Path) -> None:
    """While the teacher of the copy is in training, everybody else is handed out but his students."""
    held: list[Any] = []

    class Holding(Local):
        def run(self, do: Any, more: Any, *rest: Any) -> Any:
            first, *others = more(1000)
            held.extend(others)
            waiting = [first, *others]

            def whole(count: int) -> list[Any]:
                waiting.extend(more(1000))
                return [waiting.pop(0) for _ in range(min(count, len(waiting)))]

            yield from super().run(do, whole, *rest)

    plan = replace(PLAN, strongest=0)
    conduct(**whole | {"plan": plan, "runner": Holding(1)}, out=tmp_path / "audit")
    names = {(cell.countermeasure, cell.trained_on) for cell in held}
    assert ("none", "clean") in names and not any(how.startswith("distillation") for how, _ in names)
    assert any(row["countermeasure"].startswith("distillation") for row in records(tmp_path / "audit"))


def test_ceilings_of_another_audit_of_the_same_originals_are_not_trained_again(
    whole: Given, undisturbed: Path, tmp_path: Path
) -> None:
    other = whole["published"].with_images(255 - whole["published"].images)
    given, heard = whole | {"published": other, "plan": replace(PLAN, strongest=0)}, Heard()
    conduct(**given, out=tmp_path / "audit", watcher=heard, known=read_finished(undisturbed))
    assert {row["trained_on"] for row in heard.rows if row["kind"] == "hacker"} == {"published"}
    rows = {row["cell"]: row for row in records(tmp_path / "audit")}
    shared = [
        row for row in records(undisturbed) if (row["kind"], row["trained_on"], row["seed"]) == ("hacker", "clean", 0)
    ]
    assert len(shared) > 10 and any("originals" in row for row in shared)
    assert all(rows[row["cell"]] == row for row in shared)
