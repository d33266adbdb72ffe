"""What a copy is worth: the curve is monotone, the number is read off it, and the cells are shared."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uge.audit.worth import isotonic, originals_at, sizes_of, worth

SIZES = [0, 50, 100, 200, 500, 1000]
CURVE = {
    50: [19.0, 20.0, 21.0],
    100: [28.0, 30.0, 32.0],
    200: [40.0, 40.0, 40.0],
    500: [39.0, 40.0, 41.0],
    1000: [60.0, 60.0, 60.0],
}
percents = st.lists(st.floats(0, 100), min_size=1, max_size=9)


def pooled(values: list[float], weights: list[float]) -> list[float]:
    """The slow oracle: neighbours that fall are pooled until none do."""
    blocks = [[value, weight, 1] for value, weight in zip(values, weights, strict=True)]
    while any(a[0] > b[0] for a, b in pairwise(blocks)):
        at = next(n for n in range(len(blocks) - 1) if blocks[n][0] > blocks[n + 1][0])
        (a, wa, na), (b, wb, nb) = blocks[at : at + 2]
        blocks[at : at + 2] = [[(a * wa + b * wb) / (wa + wb), wa + wb, na + nb]]
    return [value for value, _, count in blocks for _ in range(int(count))]


@given(percents, st.data())
def test_isotonic_regression_is_the_pooling_of_neighbours_that_fall(values: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(values), max_size=len(values)))
    found = isotonic(np.array([values, values[::-1]]), np.array(weights))
    assert found[0] == pytest.approx(pooled(values, weights), abs=1e-9)
    assert found[1] == pytest.approx(pooled(values[::-1], weights), abs=1e-9)


def test_sizes_are_one_two_five_and_end_below_all() -> None:
    assert sizes_of(1000) == [50, 100, 200, 500]
    assert sizes_of(1001) == [50, 100, 200, 500, 1000]
    assert sizes_of(50) == [] and sizes_of(51) == [50] and sizes_of(0) == []
    assert sizes_of(50_000)[-3:] == [5_000, 10_000, 20_000]


def test_a_number_of_originals_is_read_off_linearly_in_the_logarithm() -> None:
    curve = [10.0, 20.0, 30.0, 40.0, 40.0, 60.0]
    assert originals_at(30.0, SIZES, curve) == pytest.approx(100)
    assert originals_at(25.0, SIZES, curve) == pytest.approx(math.sqrt(51 * 101) - 1)
    assert originals_at(40.0, SIZES, curve) == pytest.approx(200)  # the fewest that reach it
    assert originals_at(10.0, SIZES, curve) == originals_at(3.0, SIZES, curve) == 0
    assert originals_at(60.0, SIZES, curve) == pytest.approx(1000)
    assert originals_at(60.1, SIZES, curve) == math.inf


def test_the_worth_of_hand_written_accuracies() -> None:
    found = worth([29.0, 31.0], CURVE, 10.0, 2000)
    assert [point["originals"] for point in found["curve"]] == SIZES
    assert [point["accuracy"] for point in found["curve"]] == [10, 20, 30, 40, 40, 60]
    assert found["originals"] == 100
    low, high = found["interval"]
    assert 70 < low < 100 < high < 140
    assert found == worth([29.0, 31.0], CURVE, 10.0, 2000)  # drawn from a seed


def test_who_learns_nothing_or_more_than_from_all_has_no_number_between() -> None:
    assert worth([9.0], CURVE, 10.0, 2000)["originals"] == 0
    nothing, everything = worth([5.0], CURVE, 10.0, 2000), worth([75.0], CURVE, 10.0, 2000)
    assert nothing["interval"] == [0, 0]
    assert everything["originals"] is None and everything["interval"] == [None, None]
    nearly = worth([59.5], CURVE, 10.0, 2000)
    assert nearly["originals"] < 1000 and nearly["interval"][1] is None


def test_fewer_than_three_subsets_of_a_size_have_no_interval() -> None:
    found = worth([29.0, 31.0], CURVE | {100: [28.0, 32.0]}, 10.0, 2000)
    assert found["interval"] is None and found["originals"] == 100


def test_fewer_test_images_make_the_interval_wider() -> None:
    (low, high), (lower, higher) = (worth([30.0], CURVE, 10.0, count)["interval"] for count in (10_000, 200))
    assert lower < low and high < higher


@given(st.lists(st.floats(5, 95), min_size=3, max_size=3), st.floats(0, 100), st.floats(0, 100))
def test_who_learns_more_from_a_copy_finds_it_worth_no_less(means: list[float], one: float, other: float) -> None:
    curve = {size: [mean, mean] for size, mean in zip((50, 100, 300), means, strict=True)}
    less, more = (worth([each], curve, 10.0, 500)["originals"] for each in sorted((one, other)))
    assert (math.inf if less is None else less) <= (math.inf if more is None else more)
