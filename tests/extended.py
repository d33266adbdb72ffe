"""A copy of the program with files and lines of its own, run in one process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = """
import json, os, sys
import uge.cli
names = {"__name__": "page"}
for kind, what in json.load(sys.stdin):
    if kind == "page":
        os.mkdir(what)
        os.chdir(what)
    elif kind == "python":
        exec(what, names)
    else:
        sys.argv = ["uge", *what]
        try:
            uge.cli.main()
        except SystemExit as stop:
            assert not stop.code, (what, stop.code)
"""


def copied(name: str, place: Path) -> None:
    """A folder of this repository, in `place`."""
    shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))


def add_lines(file: Path, lines: str) -> None:
    """An import goes before the first of its kind, an entry to the end of the dict that the file is about."""
    text = file.read_text()
    for line in re.findall(r"^\+(.*)$", lines, re.MULTILINE):
        before = r"^from uge\." if line.startswith("from ") else r"^\}$"
        text, count = re.subn(before, lambda found, line=line: f"{line}\n{found[0]}", text, count=1, flags=re.MULTILINE)
        assert count, line
    file.write_text(text)


def run_steps(steps: Sequence[tuple[str, object]], place: Path) -> str:
    """What the steps print, with the copy of the program that lies in `place`.

    A step is ("page", a folder to make and to go to), ("python", code) or ("uge", arguments).
    """
    environment = os.environ | {"PYTHONPATH": str(place / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, env=environment, input=json.dumps(steps), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
