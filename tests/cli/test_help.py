from __future__ import annotations

import os
import re

import pytest
import typer

from uge import __version__, cli
from uge.cli.app import app

from .conftest import Run

COMMANDS = (
    *("key new", "key show", "protect", "open", "verify", "train", "attack", "audit", "report", "bench", "demo"),
    *("serve", "list", "doctor"),
)


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by its whole name, "uge key new"."""
    found, left = {}, {"uge": typer.main.get_command(app)}
    while left:
        name, command = left.popitem()
        found[name] = command
        left |= {f"{name} {sub}": each for sub, each in getattr(command, "commands", {}).items()}
    return found


def test_help_says_the_result_first_in_sentences_of_at_most_20_words() -> None:
    texts = {name: command.help for name, command in commands().items()}
    texts |= {f"{name} {each.name}": each.help for name, command in commands().items() for each in command.params}
    assert len(texts) > 80
    for name, text in texts.items():
        assert text, f"{name} has no help"
        for sentence in re.split(r"[.:;]\s|\n\n", text):
            assert len(sentence.split()) <= 20, (name, sentence)


@pytest.mark.parametrize(("command", "options"), [("uge key new", 8), ("uge protect", 11), ("uge audit", 11)])
def test_the_options_of_the_three_commands_of_a_protector_are_counted(command: str, options: int) -> None:
    assert sum(isinstance(each, typer.core.TyperOption) for each in commands()[command].params) == options


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(run: Run, command: str) -> None:
    done = run(*command.split(), "--help").ok()
    assert not done.stderr
    assert f"uge {command}" in done.stdout


def test_no_command_shows_the_help_which_names_every_command(run: Run) -> None:
    done = run()
    assert done.code == 2 and not done.stderr
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


def test_version(run: Run) -> None:
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


@pytest.mark.parametrize(("chosen", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_leave_their_core_to_others_unless_the_user_says_otherwise(
    chosen: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(os, "environ", chosen)
    monkeypatch.setattr("uge.cli.app.app", lambda **_: found.append(os.environ["OMP_WAIT_POLICY"]))
    with pytest.raises(SystemExit):
        cli.main()
    assert found == [expected]
