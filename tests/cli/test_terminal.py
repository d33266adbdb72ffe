"""What comes out of files is shown to a terminal, never obeyed by it; every terminal can show what is said."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from uge.cli.terminal import plain

from .conftest import ENVIRONMENT, INSTALLED, Run, role

RED, BELL, FAKE = "\x1b[31mred", "\x07bell", "0.png\nproblem: none\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (RED, r"\x1b[31mred"),
        ("a\nb", r"a\nb"),
        ("é 図", "é 図"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_its_number(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_no_command_passes_on_what_a_copy_says_to_the_terminal(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "copy"))
    data = json.loads((copy / "manifest.json").read_text())
    data["class_names"][0] = RED
    data |= {"method": RED, "uge": BELL}
    data["images"][1]["file"] = f"train/forest/{RED}.png"
    (copy / "manifest.json").write_text(json.dumps(data))
    for name in (f"{RED}.png", BELL, FAKE):
        (copy / "train" / "forest" / name).write_text("no picture")
    test, out, mine = ("--test", toy), ("--out", tmp_path / "o"), ("--key", role(key, "recipient"))
    calls = [
        ("verify", copy),
        ("verify", copy, *mine),
        ("verify", copy, "--clean", toy),
        ("open", copy, *mine, *out),
        ("open", copy / "train", *mine, *out),
        ("train", copy, *out),
        ("attack", copy, *test, *out),
        ("audit", copy, *test, *out),
    ]
    (copy.parent / RED).mkdir()
    calls += [("verify", copy.parent / RED), ("train", copy.parent / RED, *out)]
    for call in calls:
        done = run(*call)
        assert done.code in (1, 2), done
        assert not any(mark in done.stdout + done.stderr for mark in ("\x1b", "\x07", "\u202e", "\nproblem: none")), (
            done
        )
    assert r"train/forest/\x1b[31mred" in run("verify", copy).stdout
    assert r"\nproblem: none" in run("verify", copy).stdout


def test_a_terminal_that_lacks_a_letter_shows_its_number(toy: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy, tmp_path / "données"))
    command = [INSTALLED, "protect", str(data), "--method", "random-noise", "--out", str(tmp_path / "図")]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done
    assert b"\\u56f3: 48 images" in done.stdout and b"donn\\xe9es" in done.stdout
