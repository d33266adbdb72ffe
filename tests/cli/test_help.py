from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .conftest import ENVIRONMENT, INSTALLED, Run

COMMANDS = ("key new", "key show", "protect", "verify", "train", "attack", "audit", "demo", "list", "doctor")


def test_the_installed_command_helps_and_names_every_command() -> None:
    done = subprocess.run([INSTALLED, "--help"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0 and not done.stderr
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.code == 0 and not done.stderr
    assert f"uge {command}" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['uge', '--help']\n"
        "import uge.cli\n"
        "try: uge.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'datasets', 'kornia', 'matplotlib', 'PIL'} & {*sys.modules}\n"
        "print('\\nheavy:', heavy or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "heavy: none", done


def test_no_command_shows_the_help(run: Run) -> None:
    assert run().code == 2
    assert "protect" in run().stdout and not run().stderr


def test_version(run: Run) -> None:
    from uge import __version__

    assert run("--version").stdout == f"{__version__}\n"


def test_list_names_what_the_registries_hold(run: Run) -> None:
    from uge.attack import COUNTERMEASURES
    from uge.encoders import ENCODERS
    from uge.networks import NETWORKS

    shown = run("list").stdout
    assert all(name in shown for name in (*NETWORKS, *ENCODERS, *COUNTERMEASURES, "fashion-mini"))


def test_doctor_tells_versions(run: Run) -> None:
    done = run("doctor")
    assert done.code == 0 and "torch" in done.stdout and "cores" in done.stdout


def test_the_installed_command_fails_as_the_forked_one_does(run: Run) -> None:
    arguments = ["key", "show", "nowhere.uge"]
    done = subprocess.run([INSTALLED, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (2, run(*arguments).stderr)
    assert done.stderr == "error: cannot read key nowhere.uge: No such file or directory\n"


@pytest.mark.parametrize(("chosen", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_leave_their_core_to_others_unless_the_user_says_otherwise(
    chosen: str | None, expected: str
) -> None:
    program = """
import atexit, os, sys
from uge.cli import main
assert "torch" not in sys.modules
atexit.register(lambda: print(os.environ["OMP_WAIT_POLICY"]))
sys.argv = ["uge", "list"]
main()
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == expected
