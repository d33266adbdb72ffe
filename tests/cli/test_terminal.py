"""What comes out of files is shown to a terminal, never obeyed by it; every terminal can show what is said."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from uge.cli.terminal import LONGEST_LINE, one_line

from .conftest import ENVIRONMENT, INSTALLED, Options, Run

RED, BELL, FAKE = "\x1b[31mred", "\x07bell", "0.png\nproblem: none\u202e"


def test_a_line_is_cut_in_the_middle_of_its_longest_words_so_that_what_to_do_stays() -> None:
    assert one_line(f"a\n {RED}\u202e  é 図") == r"a \x1b[31mred\u202e é 図"
    path = "/home/" + "folder/" * 60 + "photo.png"
    line = one_line(f"{path} is no picture, and {path} is none; remove both")
    assert len(line) <= LONGEST_LINE and line.startswith("/home/folder/") and line.count("photo.png") == 2
    assert "..." in line and line.endswith("is none; remove both")
    assert len(one_line("word " * 200)) <= LONGEST_LINE and len(one_line("x" * 5000)) <= LONGEST_LINE


def test_nobody_reading_what_is_said_does_not_end_the_work(toy: Path, tmp_path: Path) -> None:
    (Path(shutil.copytree(toy, tmp_path / "toy")) / "note.txt").touch()  # which is told of on stderr
    command = f"{INSTALLED} protect {tmp_path / 'toy'} --method random-noise --out {tmp_path / 'C'}"
    for reader in ("2>&1 | true", "> /dev/full 2>&1"):
        shell = ["bash", "-o", "pipefail", "-c", f"{command} {reader}"]
        done = subprocess.run(shell, capture_output=True, env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (0, b""), done
        assert (tmp_path / "C" / "manifest.json").exists()
        shutil.rmtree(tmp_path / "C")


def test_no_command_passes_on_what_a_copy_says_to_the_terminal(
    run: Run, toy: Path, mine: Options, published: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "copy"))
    data = json.loads((copy / "manifest.json").read_text())
    data["class_names"][0] = RED
    data |= {"method": RED, "uge": BELL}
    data["images"][1]["file"] = f"train/forest/{RED}.png"
    (copy / "manifest.json").write_text(json.dumps(data))
    for name in (f"{RED}.png", BELL, FAKE):
        (copy / "train" / "forest" / name).write_text("no picture")
    (tmp_path / RED).mkdir()
    test, out = ("--test", toy), ("--out", tmp_path / "o")
    for call in (
        ("verify", copy),
        ("verify", copy, *mine),
        ("verify", copy, "--clean", toy),
        ("open", copy, *mine, *out),
        ("open", copy / "train", *mine, *out),
        ("train", copy, *out),
        ("attack", copy, *test, *out),
        ("audit", copy, *test, *out),
        ("verify", tmp_path / RED),
        ("train", tmp_path / RED, *out),
    ):
        done = run(*call)
        assert done.code in (1, 2), done
        assert not any(mark in done.stdout + done.stderr for mark in ("\x1b", "\x07", "\u202e", "\nproblem: none"))
    assert r"train/forest/\x1b[31mred.png' is not train/" in run("verify", copy).error
    shutil.copy(published / "manifest.json", copy)
    done = run("verify", copy)
    assert r"train/forest/\x1b[31mred" in done.stdout and r"\x0aproblem: none" in done.stdout, done
    assert not any(line.startswith("problem: none") for line in done.stdout.splitlines())


def test_a_terminal_that_lacks_a_letter_shows_its_number(toy: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy, tmp_path / "données"))
    command = [INSTALLED, "protect", str(data), "--method", "random-noise", "--out", str(tmp_path / "図")]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done
    assert b"\\u56f3: 48 images" in done.stdout and b"donn\\xe9es" in done.stdout
