"""The example of one's own training loop, run as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_training_loop.py"


def test_it_trains_a_network_of_its_own_on_what_the_key_opens(sealed_copy) -> None:
    published, key, data = sealed_copy
    command = [sys.executable, str(EXAMPLE), published, key, "--test", data, "--epochs", "4"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+) %", output)]
    assert len(accuracies) == 4 and accuracies[-1] > 80  # forest from industry; chance is 50
