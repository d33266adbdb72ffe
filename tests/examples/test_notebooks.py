"""The notebooks run as scripts from top to bottom, with few images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ..images import save_splits

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, **constants: object) -> str:
    """What a notebook prints, with other values for its constants."""
    text = (EXAMPLES / name).read_text()
    for constant, value in constants.items():
        left = constant.replace("__", ", ")
        text, count = re.subn(rf"^{left} = .*$", f"{left} = {value!r}", text, flags=re.MULTILINE)
        assert count == 1, left
    (folder / name).write_text(text)
    return subprocess.run([sys.executable, name], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_recipient_trains_a_network_of_his_own_on_what_the_key_opens(sealed_copy, tmp_path) -> None:
    published, key, data = sealed_copy
    output = run("recipient.py", tmp_path, COPY__KEY=(published, key), TEST=data, EPOCHS=4)
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+) %", output)]
    assert len(accuracies) == 4 and accuracies[-1] > 80  # forest from industry; chance is 50


def test_a_hacker_says_what_he_learns_from_the_copy_from_gray_and_from_the_originals(
    sealed_copy, two_classes, tmp_path
) -> None:
    train, test = two_classes
    data = save_splits(tmp_path / "originals.npz", train=train, test=test)
    output = run("break_a_copy.py", tmp_path, COPY=sealed_copy[0], ORIGINALS=data, IMAGES__EPOCHS=(400, 6))
    assert output.startswith("400 copies of 2 classes; the largest change of a value is ")
    found = dict(re.findall(r"^(.+): ([\d.]+) %$", output, re.MULTILINE))
    assert [*found] == ["the copy", "the copy behind grayscale", "the originals"]
    assert float(found["the originals"]) > 80
