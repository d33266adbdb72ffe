from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uge.copy import chunks
from uge.copy.chunks import cut, work_through
from uge.errors import PublishError
from uge.runners import Local


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 80))
def test_every_image_is_in_one_chunk_and_a_chunk_has_a_bound(values, most):
    found = cut(values, most)
    assert [number for chunk in found for number in chunk] == list(range(len(values)))
    assert all(len(chunk) == 1 or sum(values[number] for number in chunk) <= most for chunk in found)
    for one, two in pairwise(found):
        assert sum(values[number] for number in one) + values[two.start] > most, "two chunks that might be one"


def squared(log: Path, number: int) -> dict[str, int]:
    with log.open("a") as file:
        file.write(f"{number}\n")
    return {"square": number**2}


def refusing(number: int) -> dict[str, int]:
    raise PublishError("not this one")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_killed_run_has_done_is_not_done_again_and_results_come_in_order(workers, tmp_path):
    (tmp_path / "kept").mkdir()
    for number in (0, 4):
        (tmp_path / "kept" / f"{number}.json").write_text('{"square": -1}')
    told = []
    do = partial(squared, tmp_path / "log")
    run = partial(
        work_through, 10, lambda number: number, do, tmp_path / "kept", on_done=lambda *each: told.append(each)
    )
    assert [row["square"] for row in run(runner=Local(workers))] == [-1, 1, 4, 9, -1, 25, 36, 49, 64, 81]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == [1, 2, 3, 5, 6, 7, 8, 9]
    assert told == [(done, 10) for done in range(3, 11)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_refuses_is_raised_here(workers, tmp_path):
    with pytest.raises(PublishError, match="not this one"):
        list(work_through(10, lambda number: number, refusing, tmp_path, Local(workers)))


def test_no_more_chunks_are_made_than_are_worked_on(tmp_path, monkeypatch):
    """Memory has a bound: the next chunk is made when one is done."""
    monkeypatch.setattr(chunks, "AT_ONCE", 3)
    made, done = [], []

    class Greedy(Local):
        def run(self, do, more, lost, folder):
            items = more(1000)
            while items:
                assert len(made) - len(done) <= 3
                done.append(do(items[0]))
                yield done[-1]
                items = [*items[1:], *more(1000)]

    do = partial(squared, tmp_path / "log")
    assert len(list(work_through(20, lambda number: made.append(number) or number, do, tmp_path, Greedy()))) == 20


def test_few_chunks_start_no_process(tmp_path):
    class Watched(Local):
        def run(self, do, more, lost, folder):
            self.context = None  # a pool would fail
            return super().run(do, more, lost, folder)

    do = partial(squared, tmp_path / "log")
    assert len(list(work_through(7, lambda number: number, do, tmp_path, Watched(2)))) == 7
