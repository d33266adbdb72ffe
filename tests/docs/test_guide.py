"""The pages for researchers run from top to bottom, on a copy of the program with the files and lines they tell of."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from uge.data.images import ImageSet

from ..extended import ROOT, add_lines, copied, run_steps
from ..images import save_splits

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
    run_steps(steps, tmp_path)
    for name in PAGES:
        assert (tmp_path / name / "copy" / "manifest.json").exists()
    assert "stripes" in (tmp_path / "own-protection/copy/manifest.json").read_text()
    assert "shuffled" in (tmp_path / "own-attack/audit/records.jsonl").read_text()


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
