from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.records import RECORD_VERSION, append_record, config_hash, is_training, read_records

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=3))
def test_rows_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    for row in rows:
        append_record(path, row)
    assert read_records(path) == [{"record_version": RECORD_VERSION, **row} for row in rows]


@pytest.mark.parametrize("kept", [1, 10, 30])
def test_a_torn_line_costs_that_row_only(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, {"cell": 0})
    whole = path.read_bytes()
    append_record(path, {"cell": 1})
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    with pytest.warns(UserWarning, match="1 of 2 lines are damaged"):
        assert [row["cell"] for row in read_records(path)] == [0]
    append_record(path, {"cell": 2})
    with pytest.warns(UserWarning, match="1 of 3 lines are damaged"):
        assert [row["cell"] for row in read_records(path)] == [0, 2]


@pytest.mark.parametrize("line", [b"5", b"\xff\xfe", b"[]", b"null", b'{"a": NaN}', b"[" * 10_000, b"{"])
def test_a_line_that_is_no_row_is_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(line + b"\n")
    append_record(path, {"cell": 1})
    with pytest.warns(UserWarning, match="1 of 2 lines are damaged"):
        assert [row["cell"] for row in read_records(path)] == [1]


def test_a_training_is_told_from_other_rows() -> None:
    row = dict.fromkeys(("cell", "kind", "network", "trained_on", "countermeasure", "knows"), "x") | {"seed": 0}
    done = row | {"accuracy": 10.0, "peak_accuracy": 20}
    assert is_training(done) and is_training(row | {"error": "x"}) and not is_training(row)
    for name, value in (
        ("accuracy", "x"),
        ("accuracy", None),
        ("accuracy", 101),
        ("cell", []),
        ("test_accuracy", [[]]),
    ):
        assert not is_training(done | {name: value})
    for name in row:
        assert not is_training({key: value for key, value in done.items() if key != name})


def test_a_configuration_has_one_hash_whatever_the_order_of_its_keys() -> None:
    assert config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1}) == "ae8a9a505246"
    assert config_hash({"a": 1}) != config_hash({"a": 2})
