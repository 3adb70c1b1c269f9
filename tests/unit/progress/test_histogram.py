"""Percentiles from buckets against percentiles from a sorted list."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.progress.histogram import Histogram

LOWEST, HIGHEST = 1e-4, 3 * 86400
durations = st.lists(st.floats(LOWEST, HIGHEST), min_size=1, max_size=60)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(durations, st.integers(0, 100))
def test_a_percentile_is_within_a_hundredth_of_the_one_at_its_rank(values: list[float], p: int) -> None:
    exact = sorted(values)[max(1, math.ceil(p * len(values) / 100)) - 1]
    assert filled(values).percentile(p) == pytest.approx(exact, rel=0.01)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=30))
def test_the_ends_the_sum_and_the_mean_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.percentile(0) == histogram.min == min(values)
    assert histogram.percentile(100) == histogram.max == max(values)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(math.fsum(values))
    assert histogram.mean == pytest.approx(math.fsum(values) / len(values))


@given(st.lists(st.floats(-1, math.inf), min_size=1, max_size=30))
def test_what_no_bucket_was_made_for_is_counted_all_the_same(values: list[float]) -> None:
    histogram = filled(values)
    assert sum(number for _, _, number in histogram.coarse(10)) == histogram.count == len(values)
    middle = histogram.percentile(50)
    assert middle is not None
    assert min(values) <= middle <= max(values)


@given(durations, st.integers(1, 50))
def test_bars_adjoin_cover_everything_and_are_no_more_than_asked_for(values: list[float], n: int) -> None:
    bars = filled(values).coarse(n)
    assert 1 <= len(bars) <= n
    assert sum(number for _, _, number in bars) == len(values)
    assert all(left[1] == pytest.approx(right[0]) for left, right in pairwise(bars))
    assert bars[0][0] <= min(values) * 1.0001
    assert bars[-1][1] >= max(values) * 0.9999
    assert bars[0][2] > 0
    for low, high, number in bars:
        inside = sum(low * 1.0001 < value < high * 0.9999 for value in values)
        around = sum(low * 0.9999 <= value <= high * 1.0001 for value in values)
        assert inside <= number <= around


def test_nothing_has_no_percentiles_and_no_bars() -> None:
    empty = Histogram()
    assert (empty.percentile(50), empty.mean, empty.coarse(10), empty.count) == (None, None, [], 0)


def test_percentiles_of_whole_hundreds_are_not_off_by_a_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    for p in range(1, 101):  # 7 / 100 * 100 is a little more than 7
        assert filled(values).percentile(p) == pytest.approx(p, rel=0.01)


def test_memory_does_not_grow() -> None:
    histogram = filled([1e-9, 1.0, 1e9])
    size = len(histogram._counts)
    for number in range(10_000):
        histogram.add(number / 7)
    assert len(histogram._counts) == size < 1200
