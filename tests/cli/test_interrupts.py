"""Ctrl-C and kill -9 lose at most one checkpoint interval, and leave no trace in what is published."""

from __future__ import annotations

import signal
import stat
import subprocess
import time
from pathlib import Path

import torch

from uge.runtime import exclusive

from .conftest import ENVIRONMENT, INSTALLED, Run, bytes_of, protect_arguments


def stop(arguments: tuple[object, ...], checkpoint: Path, how: signal.Signals, after: int) -> tuple[int, str, int, int]:
    """Start the command, signal it when its own checkpoint has reached a step; it stands still while we look.

    Returns:
        Exit code, stderr, the first step it saved, the last step it saved.
    """
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    command = ["nice", "-n", "19", INSTALLED, *map(str, arguments)]  # on a busy machine we look before it has finished
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        first, deadline = None, time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns > before:
                process.send_signal(signal.SIGSTOP)
                step = torch.load(checkpoint, weights_only=True)["step"]
                first = first or step
                if step >= after:
                    process.send_signal(how)
                process.send_signal(signal.SIGCONT)
                if step >= after:
                    break
            time.sleep(0.002)
        _, told = process.communicate(timeout=60)
    assert first is not None, told
    return process.returncode, told, first, torch.load(checkpoint, weights_only=True)["step"]


def test_a_stopped_run_goes_on_to_the_same_bytes(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "copy", tmp_path / "copy.partial" / "checkpoint.pt"
    arguments = (*protect_arguments(toy, key, out), "--checkpoint-seconds", 0)

    code, told, _, reached = stop(arguments, checkpoint, signal.SIGINT, after=6)
    assert code == 130 and told.startswith("interrupted;") and told.count("\n") == 1
    assert 6 <= reached < 24 and not out.exists()
    assert stat.S_IMODE(checkpoint.stat().st_mode) == 0o600

    before = bytes_of(checkpoint.parent)
    with exclusive(checkpoint.parent / ".lock", "nobody holds it"):
        assert "another run is at work in" in run(*arguments).error
    assert bytes_of(checkpoint.parent) == before and not out.exists()

    code, _, first, last = stop(arguments, checkpoint, signal.SIGKILL, after=reached + 3)
    assert code == -signal.SIGKILL and not out.exists()
    assert first > reached and last < 24  # it went on and did not begin again

    assert run(*arguments).code == 0
    assert bytes_of(out) == bytes_of(published)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
