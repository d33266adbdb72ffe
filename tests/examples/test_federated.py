"""The example of federated averaging, at toy size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uge
from uge.data.images import normalisation_of
from uge.publish import publish
from uge.records import read_records

EXAMPLE = Path(__file__).parents[2] / "examples" / "federated.py"


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("uge_example_federated", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


federated = _module()


@pytest.fixture(scope="module")
def toy(trousers_and_boots, tmp_path_factory) -> tuple[Path, Path, Path]:
    """A published folder of 600 images in two classes, its recipient's key, and test images as DATA."""
    train, test = trousers_and_boots
    folder = tmp_path_factory.mktemp("federated")
    noise = torch.randint(-8, 9, train.images.shape, generator=torch.Generator().manual_seed(0))
    copy = (train.images.int() + noise).clamp(0, 255).to(torch.uint8)
    spec = uge.NetworkSpec("convnet", 1, (28, 28), 2, {"width": 8})
    recipe = uge.Recipe(batch_size=32)
    key = uge.new_key(spec, train.class_names, *normalisation_of(train.images), recipe)
    _, recipient = uge.save_key(key, folder / "mine")
    publish(train, copy, folder / "published", method="noise", settings={}, epsilon_255=8, signers=[key])
    np.savez(
        folder / "boots.npz",
        x_train=train.images[:2, 0].numpy(), y_train=train.labels[:2].numpy(),
        x_test=test.images[:, 0].numpy(), y_test=test.labels.numpy(),
        class_names=np.array(train.class_names),
    )  # fmt: skip
    return folder / "published", recipient, folder / "boots.npz"


def test_clients_together_learn_what_one_learns(toy, tmp_path, capsys) -> None:
    published, key, data = map(str, toy)
    records = tmp_path / "records.jsonl"
    federated.main([published, key, "--test", data, "--rounds", "4", "--record", str(records)])
    (row,) = read_records(records)
    assert row["central_accuracy"] > 90  # trousers from boots; chance is 50
    assert row["accuracy"] > 90
    assert (row["clients"], row["images"], row["dataset"], row["method"]) == (5, 600, "boots", "noise")
    assert len(row["round_accuracy"]) == 4 and len(row["central_test_accuracy"]) == 4
    assert str(tmp_path.parent) not in records.read_text()
    assert f"5 clients: {row['accuracy']:.1f} %" in capsys.readouterr().out


def test_shares_are_a_partition(trousers_and_boots) -> None:
    train, _ = trousers_and_boots
    parts = federated.shares(train, 7, seed=3)
    assert sorted(map(len, parts)) == [85, 85, 86, 86, 86, 86, 86]
    assert sorted(name for part in parts for name in part.names) == sorted(train.names)


def test_average_by_hand() -> None:
    states = [
        {"w": torch.tensor([1.0, 5.0]), "steps": torch.tensor(7)},
        {"w": torch.tensor([5.0, 1.0]), "steps": torch.tensor(9)},
    ]
    mean = federated.average(states, [3, 1])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert int(mean["steps"]) == 7


@pytest.mark.parametrize("wrong", [["--clients", "0"], ["--rounds", "0"], ["--clients", "601"]])
def test_a_wrong_number_is_one_line(toy, capsys, wrong) -> None:
    published, key, data = map(str, toy)
    with pytest.raises(SystemExit) as stop:
        federated.main([published, key, "--test", data, *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err.splitlines()[-1]
