"""`uge audit` as a person calls it: any folder, killed at any time, one line for what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from uge.cli.audit import left_out
from uge.records import read_records
from uge.report.verdict import judge

from ..audit.conftest import timeless
from .conftest import ENVIRONMENT, INSTALLED, KILLED, Options, Run, bytes_of

PLAN = """
epochs = 1
authorised = "convnet:width=4"
[[hackers]]
networks = ["authorised", "mlp:width=8"]
countermeasures = ["none", "blur:1"]
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["distillation:soft", "clean-mixed:12"]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plans") / "mine.toml"
    file.write_text(PLAN)
    return file


@pytest.fixture
def arguments(published: Path, toy: Path, mine: Options, plan: Path) -> Options:
    given = ("--test", toy, "--clean", toy, *mine, "--plan", plan)
    return ("audit", published, *given, "--runner", "local:workers=1")


def rows(folder: Path) -> list[dict[str, Any]]:
    return timeless(read_records(folder / "records.jsonl"))


def test_killed_ten_times_at_random_it_ends_with_the_records_of_an_undisturbed_run(
    run: Run, arguments: Options, tmp_path: Path
) -> None:
    started = time.perf_counter()
    run(*arguments, "--out", tmp_path / "calm").ok()
    seconds = time.perf_counter() - started
    draw = random.Random(5)
    killed = 0
    while killed < 10:
        ended = run(*arguments, "--out", tmp_path / "rough", kill_after=draw.uniform(0, seconds / 3))
        if ended.code == 0:  # it was finished before the kill: begin again
            shutil.rmtree(tmp_path / "rough")
        else:
            assert ended.code == KILLED, ended
            killed += 1
    run(*arguments, "--out", tmp_path / "rough").ok()
    assert rows(tmp_path / "rough") == rows(tmp_path / "calm")
    assert len(rows(tmp_path / "calm")) == 2 * 7
    calm, rough = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("calm", "rough"))
    assert calm == rough
    assert not (tmp_path / "rough" / "job").exists()


def test_it_tells_what_is_to_do_and_ends_with_a_table(run: Run, arguments: Options, tmp_path: Path) -> None:
    done = run(*arguments, "--out", tmp_path / "audit").ok()
    assert "14 trainings, about" in done.stdout
    assert "left out: authorised, grayscale" not in done.stdout
    assert "Margin against hackers who do not query the recipient's network: " in done.stdout
    assert "distillation (soft)" in done.stdout
    summary = json.loads((tmp_path / "audit" / "summary.json").read_text())
    verdict = judge(summary)
    assert f"\n{verdict.heading}.\n" in done.stdout and all(caution in done.stdout for caution in verdict.cautions)
    before = bytes_of(tmp_path / "audit" / "authorised")
    run(*arguments, "--out", tmp_path / "audit").ok()
    assert bytes_of(tmp_path / "audit" / "authorised") == before


SEARCH = """
epochs = 2
authorised = "mlp:width=4"
budget = 3600
strongest = 1
more_seeds = [1]
subsets = 1
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["none", "blur:1", "clean-mixed:12"]
"""


def test_a_search_stops_at_its_budget_and_goes_on_with_a_larger_one(
    run: Run, arguments: Options, tmp_path: Path
) -> None:
    plan = tmp_path / "search.toml"
    plan.write_text(SEARCH)
    command = (*arguments, "--plan", plan, "--out", tmp_path / "audit")
    run(*command, "--budget", "1s").ok()
    whole = [row for row in rows(tmp_path / "audit") if row["budget"] == 1.0]
    assert {(row["kind"], row["countermeasure"]) for row in whole} >= {("authorised", "none"), ("hacker", "none")}
    assert "go on with" not in run(*command).ok().stdout
    after = rows(tmp_path / "audit")
    assert {row["cell"] for row in whole} < {row["cell"] for row in after}
    assert {row["countermeasure"] for row in after if row["budget"] < 1} == {"none", "blur:1", "clean-mixed:12"}
    assert run(*command).code == 0 and rows(tmp_path / "audit") == after


def test_a_folder_of_another_program_is_audited_without_a_key(run: Run, toy: Path, plan: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(toy / "train", foreign)
    (foreign / "sea" / "notes.png").write_text("no image")
    arguments = ("audit", foreign, "--test", toy, "--plan", plan, "--runner", "local:workers=1")
    assert "notes.png" in run(*arguments, "--out", tmp_path / "audit").error
    done = run(*arguments, "--skip-bad", "--out", tmp_path / "audit").ok()
    assert "notes.png" in done.stderr
    for who in ("authorised (needs --key)", "mlp:width=8, clean-mixed:12 (needs --clean)"):
        assert f"left out: {who}" in done.stdout
    assert [(row["countermeasure"], row["trained_on"]) for row in rows(tmp_path / "audit")] == [
        ("none", "published"),
        ("blur:1", "published"),
    ]
    told = run("report", tmp_path / "audit", "--public").ok()
    assert "public.html" in told.stdout
    assert "croissant" not in told.stdout, "the card describes folders with a manifest"


def test_many_who_are_left_out_for_one_reason_share_a_line() -> None:
    few = [{"what": name, "why": "needs --clean"} for name in "ab"]
    many = [{"what": str(number), "why": "needs --key"} for number in range(40)]
    assert left_out([*few, *many]) == [
        "left out: a (needs --clean)",
        "left out: b (needs --clean)",
        "left out: 40 hackers (needs --key)",
    ]


def test_workers_end_with_their_audit(arguments: Options, tmp_path: Path) -> None:
    long = tmp_path / "long.toml"
    long.write_text(PLAN.replace("epochs = 1", "epochs = 100000"))
    others = ("--plan", long, "--out", tmp_path / "audit", "--runner", "local:workers=2")
    command = [INSTALLED, *map(str, (*arguments, *others))]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)

    def started() -> list[str]:
        asked = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True)
        return [pid for pid in asked.stdout.split() if pid != str(process.pid)]

    try:
        deadline = time.monotonic() + 180
        while len(started()) < 4 and time.monotonic() < deadline:  # two workers, what forks them, a resource tracker
            time.sleep(0.2)
        assert len(started()) >= 4
        process.kill()
        process.wait()
        while started() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not started()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--plan", "ful"), "unknown plan 'ful'; did you mean 'full'?"),
        (("--plan", "nowhere.toml"), "cannot read plan nowhere.toml"),
        (("--budget", "1h"), "trains every hacker it names; --budget is for worst-case"),
        (("--plan", "worst-case", "--budget", "soon"), "'soon' is no length of time, as in 90s, 30m or 2h"),
        (("--runner", "lokal"), "unknown runner 'lokal'; did you mean 'local'?"),
        (("--key", "nowhere.uge"), "nowhere.uge"),
        (("--test", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_trains_nothing(
    run: Run, arguments: Options, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    done = run(*arguments, "--out", tmp_path / "audit", *change)
    assert message in done.error
    assert not (tmp_path / "audit").exists()
