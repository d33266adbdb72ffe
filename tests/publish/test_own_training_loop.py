"""The example of one's own training loop, run as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

from published_folders import perturbed

from uge.data.images import normalisation_of
from uge.keys import new_key, save_key
from uge.networks import NetworkSpec
from uge.publish import publish
from uge.training import Recipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_training_loop.py"


def test_the_example_trains_the_authorised_network(fashion, tmp_path):
    spec = NetworkSpec("convnet", 1, (28, 28), 10, {"width": 16})
    key = new_key(spec, fashion.class_names, *normalisation_of(fashion.images), Recipe())
    _, recipient = save_key(key, tmp_path / "mine")
    copy, out = perturbed(fashion.images), tmp_path / "published"
    publish(fashion, copy, out, method="noise", settings={}, epsilon_255=8, signers=[key])
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "published"), str(recipient), "--quick"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+) %", output)]
    assert len(accuracies) == 2
    assert accuracies[-1] > 60  # sign noise does not protect; chance is 10
