"""The pages for researchers run from top to bottom, on a copy of the program with the files and lines they tell of."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from uge.data.images import ImageSet

from ..images import save_splits

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PAGES = ("own-data", "own-protection", "own-attack")
SETTINGS = ("steps=16", "width=4", "reference_epochs=1", "references=mlp:width=8", "surrogates=mlp:width=8")
TINY = {  # what the commands of a page get besides, so that they take seconds
    "protect": tuple(part for setting in SETTINGS for part in ("--set", setting)),
    "attack": ("--epochs", "1", "--hacker", "mlp:width=8"),
    "audit": ("--runner", "local:workers=1"),
}
TINY_PLAN = (("epochs = 30", "epochs = 1\nsubsets = 0"), ("[0, 1, 2]", "[0]"))
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


def tiny_file(text: str) -> str:
    """A plan with few epochs and a small network."""
    for old, new in TINY_PLAN:
        text = text.replace(old, new)
    return re.sub(r"^networks = .*$", 'networks = ["mlp:width=8"]', text, flags=re.MULTILINE)


def tiny_command(line: str, data: Path) -> list[str]:
    """A command with small settings, on some of the embedded images."""
    name, *arguments = shlex.split(line, comments=True)
    assert name == "uge", line
    more = () if "--method" in arguments else TINY.get(arguments[0], ())  # the settings are the default method's
    return [*(str(data) if part == "eurosat" else part for part in arguments), *more]


def steps_of(page: Path, folder: Path, data: Path) -> Iterator[tuple[str, object]]:
    """What a page runs, in order; the program's new files and lines are written at once."""
    for language, title, text in FENCE.findall(page.read_text()):
        if language == "diff":
            add_lines(folder / title, text)
        elif title.startswith("src/"):
            (folder / title).write_text(text)
        elif title:
            yield "python", f"open({title!r}, 'w').write({tiny_file(text)!r})"
        elif language == "python":
            yield "python", text
        else:
            yield from (("uge", tiny_command(line, data)) for line in text.splitlines())


@pytest.fixture
def some_images(eurosat: ImageSet, tmp_path: Path) -> Path:
    """Every twentieth, as DATA."""
    some = eurosat.subset(torch.arange(0, len(eurosat), 20))
    return Path(save_splits(tmp_path / "some.npz", train=some, test=some))


def test_the_pages_for_researchers_run_as_they_are_printed(some_images: Path, tmp_path: Path) -> None:
    copied("src", tmp_path)
    steps: list[tuple[str, object]] = []
    for name in PAGES:
        steps += [("page", str(tmp_path / name)), *steps_of(GUIDE / f"{name}.md", tmp_path, some_images)]
    listed = run_steps([*steps, ("uge", ["list"])], tmp_path)
    assert "\n  stripes " in listed and "\n  shuffled " in listed
    made = {name: json.loads((tmp_path / name / "copy" / "manifest.json").read_text()) for name in PAGES}
    assert made["own-protection"]["method"] == "stripes" and made["own-protection"]["settings"]["patch"] == 4
    assert "shuffled" in (tmp_path / "own-attack" / "audit" / "records.jsonl").read_text()


@pytest.mark.slow
def test_what_the_pages_add_keeps_the_contracts(tmp_path: Path) -> None:
    for name in ("src", "tests"):
        copied(name, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in PAGES:
        assert [*steps_of(GUIDE / f"{name}.md", tmp_path, tmp_path / "some.npz")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/contracts", "-k", "stripes or shuffled"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout
