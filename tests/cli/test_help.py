from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest
import typer

from uge import cli
from uge.cli import app

from .conftest import ENVIRONMENT, INSTALLED, Run

COMMANDS = (
    *("key new", "key show", "protect", "open", "verify", "train", "attack", "audit", "report", "bench", "demo"),
    *("serve", "list", "doctor"),
)


def texts() -> Iterator[tuple[str, str]]:
    """Every help text of every command, with the command's name."""

    def of(command: typer.core.TyperCommand, name: str) -> Iterator[tuple[str, str]]:
        yield name, command.help or ""
        for parameter in command.params:
            yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
        for sub, each in getattr(command, "commands", {}).items():
            yield from of(each, f"{name} {sub}")

    yield from of(typer.main.get_command(app), "uge")


def test_help_says_the_result_first_in_sentences_of_at_most_20_words() -> None:
    found = dict(texts())
    assert len(found) > 80
    for name, text in found.items():
        assert text, f"{name} has no help"
        for sentence in re.split(r"[.:;]\s|\n\n", text):
            assert len(sentence.split()) <= 20, (name, sentence)


def test_the_options_of_the_three_commands_of_a_protector_are_counted() -> None:
    def options(*path: str) -> int:
        command = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]
        return sum(isinstance(each, typer.core.TyperOption) for each in command.params)

    assert (options("key", "new"), options("protect"), options("audit")) == (8, 11, 11)


def test_the_installed_command_helps_and_names_every_command() -> None:
    done = subprocess.run([INSTALLED, "--help"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0 and not done.stderr
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(run: Run, command: str) -> None:
    done = run(*command.split(), "--help").ok()
    assert not done.stderr
    assert f"uge {command}" in done.stdout


def test_no_command_shows_the_help(run: Run) -> None:
    assert run().code == 2
    assert "protect" in run().stdout and not run().stderr


def test_version(run: Run) -> None:
    from uge import __version__

    assert run("--version").stdout == f"{__version__}\n"


def test_list_says_in_a_line_each_what_the_registries_hold(run: Run) -> None:
    from uge.attack import COUNTERMEASURES
    from uge.encoders import ENCODERS
    from uge.networks import NETWORKS
    from uge.protect import PROTECTIONS

    shown = run("list").stdout
    assert all(name in shown for name in (*ENCODERS, "eurosat"))
    told = {line.split()[0]: line[22:] for line in shown.splitlines() if line.startswith("  ")}
    assert [*told] == [*NETWORKS, "timm:NAME", *PROTECTIONS, *COUNTERMEASURES]
    assert all(len(words) > 10 and words[-1] in ".)s" for words in told.values()), told
    assert told["high-pass"] != told["low-pass"] != told["jpeg"]


def test_doctor_tells_versions(run: Run) -> None:
    done = run("doctor").ok()
    assert "torch" in done.stdout and "pyrage" in done.stdout and "cores" in done.stdout


def test_the_installed_command_fails_as_the_forked_one_does(run: Run) -> None:
    arguments = ["key", "show", "nowhere.uge"]
    done = subprocess.run([INSTALLED, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (2, run(*arguments).stderr)
    assert done.stderr == "error: cannot read key nowhere.uge: No such file or directory\n"


@pytest.mark.parametrize(("chosen", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_leave_their_core_to_others_unless_the_user_says_otherwise(
    chosen: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(os, "environ", chosen)
    monkeypatch.setattr(cli, "app", lambda **_: found.append(os.environ["OMP_WAIT_POLICY"]))
    with pytest.raises(SystemExit):
        cli.main()
    assert found == [expected]
