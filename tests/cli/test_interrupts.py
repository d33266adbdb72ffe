"""Ctrl-C and kill -9 lose at most one checkpoint interval, and leave no trace in what is published."""

from __future__ import annotations

import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uge.data.sources import load
from uge.durable import claim
from uge.errors import PublishError
from uge.locks import held
from uge.pipeline import protect_and_publish
from uge.protect import PROTECTIONS, resolve_config

from .conftest import ENVIRONMENT, INSTALLED, KILLED, SMALL, UGE, Run, assert_all_open, bytes_of, role, uge_arguments

KILLED_AT_A_STEP = """
import os, sys
from pathlib import Path
import uge
from uge.protect import resolve_config
from uge.cli import options
step, data, key, out, *settings = sys.argv[1:]
config = resolve_config("uge", options.pairs(settings[1::2], "--set", "epochs=1"))
clean, key = uge.load(data, "train"), uge.load_key(key)
def look(row, steps):
    if "preparing" not in row:
        print(row["step"], flush=True)
        if row["step"] == int(step):
            os.kill(os.getpid(), 9)
uge.protect_and_publish(clean, [key], Path(out), "uge", config, checkpoint_seconds=0, on_step=look)
"""


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> None:
    """What a shell starts in the background is deaf to Ctrl-C, and so is all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_stopped_run_goes_on_to_the_same_bytes(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path, tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "copy", tmp_path / "copy.partial" / "checkpoint.pt"
    for steps in (range(1, 7), range(6, 10)):  # it goes on and does not begin again; the last step of 24 is far
        command = [sys.executable, "-c", KILLED_AT_A_STEP, str(steps[-1]), toy, role(weights, "protector"), out, *UGE]
        killed = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert killed.returncode == -signal.SIGKILL and not out.exists()
        assert [int(step) for step in killed.stdout.split()] == [*steps]
    assert stat.S_IMODE(checkpoint.stat().st_mode) == 0o600
    assert stat.S_IMODE(checkpoint.parent.stat().st_mode) == 0o700

    with held(checkpoint.parent):
        before = bytes_of(checkpoint.parent)
        assert "is in use by process" in run(*uge_arguments(toy, weights, out)).error
        assert bytes_of(checkpoint.parent) == before and not out.exists()

    run(*uge_arguments(toy, weights, out)).ok()
    assert bytes_of(out) == bytes_of(ungeneralizable)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "copy.png"]


def test_killed_at_random_protect_goes_on_with_the_key_that_it_drew(run: Run, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "C"
    arguments = ("protect", toy, "--no-passphrase", "--out", out, *SMALL)
    draw, drawn, killed = random.Random(7), {}, 0
    while killed < 8 and not (out.exists() and not (tmp_path / "C.partial").exists()):
        ended = run(*arguments, kill_after=draw.uniform(0, 2.5))
        files = {path.name: path.read_bytes() for path in tmp_path.glob("C.*.uge")}
        assert drawn.items() <= files.items(), "a key was drawn anew"
        drawn = files if len(files) == 2 else {}
        if ended.code == 0:
            break
        assert ended.code == KILLED, ended
        assert not out.exists() or len(bytes_of(out)) == 48 + 5
        killed += 1
    assert out.exists() or run(*arguments).code == 0
    assert_all_open(run, out, toy)
    assert all((tmp_path / name).read_bytes() == data for name, data in drawn.items())


def test_a_run_killed_before_it_tidied_up_ends_as_if_nothing_had_happened(toy: Path, tmp_path: Path) -> None:
    clean, config, out = load(str(toy), "train"), resolve_config("random-noise"), tmp_path / "C"
    published = protect_and_publish(clean, [], out, "random-noise", config, seed=1)
    before = bytes_of(out)
    claim(tmp_path / "C.partial", *PROTECTIONS["random-noise"](clean, [], config, seed=1).mark())
    assert protect_and_publish(clean, [], out, "random-noise", config, seed=1) == published
    assert bytes_of(out) == before and [path.name for path in tmp_path.iterdir()] == ["C"]
    with pytest.raises(PublishError, match="is not empty"):
        protect_and_publish(clean, [], out, "random-noise", config, seed=1)


def test_ctrl_c_is_one_line(toy: Path, tmp_path: Path) -> None:
    command = [INSTALLED, "protect", str(toy), "--no-passphrase", "--out", str(tmp_path / "C"), "--set", "epochs=40"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        while not (tmp_path / "C.partial" / "run").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told == "interrupted; the same command goes on where it stopped\n"
    assert not (tmp_path / "C").exists()


@pytest.mark.parametrize(
    ("library", "words"), [("typer", ("report", "audit")), ("torch", ("train", "C", "--out", "o"))]
)
def test_ctrl_c_while_a_library_is_loaded_is_one_line(library: str, words: tuple[str, ...]) -> None:
    """The library may make another error of it, as torch does. What begins anew does not say that it goes on."""
    script = (
        "import sys\nclass Finder:\n  def find_spec(name, *_):\n"
        f"    if name == '{library}':\n      raise RuntimeError from KeyboardInterrupt()\n"
        "sys.meta_path.insert(0, Finder)\nfrom uge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
