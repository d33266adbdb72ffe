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
from uge.report.verdict import judge

from .conftest import ENVIRONMENT, INSTALLED, Run, bytes_of, role

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
def arguments(published: Path, toy: Path, key: Path, plan: Path) -> tuple[object, ...]:
    given = ("--test", toy, "--clean", toy, "--key", role(key, "recipient"), "--plan", plan)
    return ("audit", published, *given, "--runner", "local:workers=1")


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def test_killed_ten_times_at_random_it_ends_with_the_records_of_an_undisturbed_run(
    run: Run, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    started = time.perf_counter()
    done = run(*arguments, "--out", tmp_path / "calm")
    seconds = time.perf_counter() - started
    assert done.code == 0, done
    draw = random.Random(5)
    killed = 0
    while killed < 10:
        ended = run(*arguments, "--out", tmp_path / "rough", kill_after=draw.uniform(0, seconds / 3))
        if ended.code == 0:  # it was finished before the kill: begin again
            shutil.rmtree(tmp_path / "rough")
        else:
            assert ended.code == -9, ended
            killed += 1
    done = run(*arguments, "--out", tmp_path / "rough")
    assert done.code == 0, done
    assert rows(tmp_path / "rough") == rows(tmp_path / "calm")
    assert len(rows(tmp_path / "calm")) == 2 * 7
    calm, rough = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("calm", "rough"))
    assert calm == rough
    assert not (tmp_path / "rough" / "job").exists()


def test_it_tells_what_there_is_to_do_and_ends_with_a_table(
    run: Run, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    done = run(*arguments, "--out", tmp_path / "audit")
    assert done.code == 0, done
    assert "14 trainings, about" in done.stdout
    assert "left out: authorised, grayscale" not in done.stdout
    assert "Margin against hackers who do not query the recipient's network: " in done.stdout
    assert "distillation (soft)" in done.stdout
    summary = json.loads((tmp_path / "audit" / "summary.json").read_text())
    verdict = judge(summary)
    assert f"\n{verdict.heading}.\n" in done.stdout and all(caution in done.stdout for caution in verdict.cautions)
    before = bytes_of(tmp_path / "audit" / "authorised")
    again = run(*arguments, "--out", tmp_path / "audit")
    assert again.code == 0 and bytes_of(tmp_path / "audit" / "authorised") == before


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
    run: Run, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    plan = tmp_path / "search.toml"
    plan.write_text(SEARCH)
    command = (*arguments, "--plan", plan, "--out", tmp_path / "audit")
    first = run(*command, "--budget", "1s")
    assert first.code == 0, first
    whole = [row for row in rows(tmp_path / "audit") if row["budget"] == 1.0]
    assert {(row["kind"], row["countermeasure"]) for row in whole} >= {("authorised", "none"), ("hacker", "none")}
    second = run(*command)
    assert second.code == 0 and "go on with" not in second.stdout, second
    after = rows(tmp_path / "audit")
    assert {row["cell"] for row in whole} < {row["cell"] for row in after}
    assert {row["countermeasure"] for row in after if row["budget"] < 1} == {"none", "blur:1", "clean-mixed:12"}
    assert run(*command).code == 0 and rows(tmp_path / "audit") == after


def test_a_folder_of_another_program_is_audited_without_key_or_originals(
    run: Run, toy: Path, plan: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(toy / "train", foreign)
    (foreign / "sea" / "notes.png").write_text("no image")
    arguments = ("audit", foreign, "--test", toy, "--plan", plan, "--runner", "local:workers=1")
    assert "notes.png" in run(*arguments, "--out", tmp_path / "audit").error
    done = run(*arguments, "--skip-bad", "--out", tmp_path / "audit")
    assert done.code == 0 and "notes.png" in done.stderr, done
    for who in ("authorised (needs --key)", "mlp:width=8, clean-mixed:12 (needs --clean)"):
        assert f"left out: {who}" in done.stdout
    assert [(row["countermeasure"], row["trained_on"]) for row in rows(tmp_path / "audit")] == [
        ("none", "published"),
        ("blur:1", "published"),
    ]
    told = run("report", tmp_path / "audit", "--public")
    assert told.code == 0 and "public.html" in told.stdout
    assert "croissant" not in told.stdout, "the card describes folders with a manifest"


def test_many_who_are_left_out_for_one_reason_share_a_line() -> None:
    few = [{"what": name, "why": "needs --clean"} for name in "ab"]
    many = [{"what": str(number), "why": "needs --key"} for number in range(40)]
    assert left_out([*few, *many]) == [
        "left out: a (needs --clean)",
        "left out: b (needs --clean)",
        "left out: 40 hackers (needs --key)",
    ]


def test_nothing_secret_is_left_behind_by_a_kill_but_what_is_private(
    arguments: tuple[object, ...], tmp_path: Path
) -> None:
    """The workers' copy of the key lies in a folder that its owner alone can open."""
    out = tmp_path / "audit"
    command = [str(INSTALLED), *map(str, arguments), "--out", str(out)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (left := list(out.glob("job/*.safetensors"))) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert left, "the audit ended before a kill hit the time in which the workers' file exists"
    assert out.stat().st_mode & 0o077 == 0 and left[0].stat().st_mode & 0o077 == 0


def test_workers_end_with_the_audit_that_started_them(
    arguments: tuple[object, ...], plan: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.toml"
    long.write_text(PLAN.replace("epochs = 1", "epochs = 100000"))
    command = [str(part) for part in arguments[: arguments.index("--plan")]]
    out = tmp_path / "audit"
    options = ["--plan", str(long), "--out", str(out), "--runner", "local:workers=2"]
    process = subprocess.Popen(
        [str(INSTALLED), *command, *options], env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    )

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
        (("--budget", "1h"), "trains every hacker it names; --budget is for worst-case"),
        (("--plan", "worst-case", "--budget", "soon"), "'soon' is no length of time, as in 90s, 30m or 2h"),
        (("--runner", "lokal"), "unknown runner 'lokal'; did you mean 'local'?"),
        (("--key", "nowhere.uge"), "nowhere.uge"),
        (("--test", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_trains_nothing(
    run: Run, arguments: tuple[object, ...], tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    done = run(*arguments, "--out", tmp_path / "audit", *change)
    assert message in done.error
    assert not (tmp_path / "audit").exists()


def test_an_occupied_folder_is_refused(run: Run, arguments: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert "is not empty and holds no audit" in run(*arguments, "--out", tmp_path).error
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]
