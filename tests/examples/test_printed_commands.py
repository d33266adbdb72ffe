"""Every `uge` command that a page or an example prints is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from uge.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
COMMANDS = [
    pytest.param(line.strip(), id=f"{page.name}: {line.strip()}")
    for page in PAGES
    for line in re.findall(r"^ *(uge .*)$", page.read_text().replace("\\\n", " "), re.MULTILINE)
]


def test_there_are_some() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", COMMANDS)
def test_printed_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    context = None
    while hasattr(command, "commands"):  # uge -> key -> new
        command = command.commands[words.pop(0)]
    context = command.make_context(command.name, words)  # raises a usage error on an unknown option
    assert context.params
