"""A command that is killed at any change of a file, and given again, ends as if nothing had happened; nothing stays."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from uge.copy import write_images
from uge.data.images import ImageSet
from uge.keys import SealedKey, save_key

from .copy.copies import published_sealed
from .plans import one_training_each

KILLED = """
import os, sys
at, here, seen = int(sys.argv[1]), os.getcwd(), 0
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod"}
def changed(event, args):
    global seen
    if event == "open":
        if not isinstance(args[0], str) or not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in CHANGES:
        return
    if os.path.abspath(os.fsdecode(args[0])).startswith(here):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), 9)
sys.addaudithook(changed)
from uge.cli import main
sys.argv = ["uge", *sys.argv[2:]]
try:
    main()
finally:
    sys.stderr.write(f"CHANGES {seen}")
"""
PLAN = one_training_each("mlp:width=8")
SETTINGS = ("epochs=2", "batch_size=12", "references=mlp:width=8", "surrogates=mlp:width=8", "width=8")
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]
COMMANDS = {
    "key new": ("key", "new", "--no-passphrase", "--out", "OUT"),
    "protect": ("protect", "data", "--method", "random-noise", "--out", "OUT"),
    "protect with a key": ("protect", "data", "--key", "k.protector.uge", *SMALL, "--out", "OUT"),
    "open": ("open", "copy", "--key", "k.recipient.uge", "--out", "OUT"),
    "train": ("train", "copy", "--key", "k.recipient.uge", "--network", "mlp:width=8", "--epochs", "1", "--out", "OUT"),
    "audit": ("audit", "copy", "--test", "data", "--plan", "plan.toml", "--out", "OUT", "--runner", "local:workers=1"),
    "bench": ("bench", "bench.toml", "--data", "data", "--out", "OUT", "--runner", "local:workers=1"),
}
SAMPLED = 1  # kill of each command; all of them in the slow test
ELSEWHERE = {"protect with a key", "audit", "bench"}  # killed at random moments in tests/cli


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, eurosat: ImageSet) -> Path:
    """A folder with data, a key, a copy whose letters it opens, and plans."""
    folder, small = tmp_path_factory.mktemp("kills"), eurosat.subset(torch.arange(0, 3000, 125))
    write_images(small, folder / "data")
    shutil.copytree(folder / "data" / "train", folder / "data" / "test")
    key = SealedKey.draw()
    save_key(key, folder / "k")
    published_sealed(folder / "copy", small, key)
    (folder / "plan.toml").write_text(PLAN)
    (folder / "bench.toml").write_text(PLAN + '[[protections]]\nmethod = "random-noise"\n')
    return folder


def run(folder: Path, command: str, out: str, at: int = 0) -> tuple[int, str]:
    """Exit code and stderr of a command, killed at its change number `at`."""
    words = [word.replace("OUT", out) for word in COMMANDS[command]]
    how = {"cwd": folder, "timeout": 300, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    done = subprocess.run([sys.executable, "-c", KILLED, str(at), *words], capture_output=True, text=True, **how)
    return done.returncode, done.stderr


def left(folder: Path, out: str) -> Iterator[str]:
    """Every path that has to do with a result, named as if that were called OUT; checkpoints of other runs apart."""
    for path in folder.rglob("*"):
        if out in str(path.relative_to(folder)):
            yield str(path.relative_to(folder)).replace(out, "OUT")


@pytest.mark.parametrize(
    ("command", "most"),
    [
        *((command, SAMPLED) for command in COMMANDS if command not in ELSEWHERE),
        *(pytest.param(command, 10**6, marks=pytest.mark.slow) for command in COMMANDS),
    ],
)
def test_a_kill_anywhere_costs_nothing(place: Path, command: str, most: int, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(place, folder)
    code, error = run(folder, command, "whole")
    assert code == 0, error
    whole, changes = set(left(folder, "whole")), int(re.findall(r"CHANGES (\d+)", error)[0])
    for at in sorted(random.Random(command).sample(range(1, changes + 1), min(most, changes))):
        out = f"killed{at}x"
        assert run(folder, command, out, at)[0] == -signal.SIGKILL
        code, error = run(folder, command, out)
        assert code == 0 or "is whole: a run that was killed had just finished it" in error, (at, changes, error)
        assert set(left(folder, out)) == whole, (at, changes)
