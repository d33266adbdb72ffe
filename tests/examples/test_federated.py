"""The example of federated averaging, at toy size."""

from __future__ import annotations

import pytest
import torch

from examples import federated
from uge.records import read_records


def test_clients_together_learn_what_one_learns(sealed_copy, tmp_path, capsys) -> None:
    published, key, data = sealed_copy
    records = tmp_path / "records.jsonl"
    federated.main(
        [published, key, "--test", data, "--network", "convnet:width=16", "--rounds", "4", "--record", str(records)]
    )
    (row,) = read_records(records)
    assert row["central_accuracy"] > 90  # forest from industry; chance is 50
    assert row["accuracy"] > 90
    assert (row["clients"], row["images"], row["dataset"], row["method"]) == (5, 400, "held-out", "sealed")
    assert len(row["round_accuracy"]) == 4 and len(row["central_test_accuracy"]) == 4
    assert str(tmp_path.parent) not in records.read_text()
    assert f"5 clients: {row['accuracy']:.1f} %" in capsys.readouterr().out


def test_shares_are_a_partition(two_classes) -> None:
    train, _ = two_classes
    parts = federated.shares(train, 7, seed=3)
    assert sorted(map(len, parts)) == [57, 57, 57, 57, 57, 57, 58]
    assert sorted(name for part in parts for name in part.names) == sorted(train.names)


def test_average_by_hand() -> None:
    states = [
        {"w": torch.tensor([1.0, 5.0]), "steps": torch.tensor(7)},
        {"w": torch.tensor([5.0, 1.0]), "steps": torch.tensor(9)},
    ]
    mean = federated.average(states, [3, 1])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert int(mean["steps"]) == 7


@pytest.mark.parametrize("wrong", [["--clients", "0"], ["--rounds", "0"], ["--clients", "401"]])
def test_a_wrong_number_is_one_line(sealed_copy, capsys, wrong) -> None:
    published, key, data = sealed_copy
    with pytest.raises(SystemExit) as stop:
        federated.main([published, key, "--test", data, *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err.splitlines()[-1]
