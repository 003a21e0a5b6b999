"""Intervals against published tables and against their own definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2

from napari_bloodcells.core.statistics.intervals import clopper_pearson, goodman, whole_percents

# Rümke's table: 95 % limits in whole percents for k % found among n cells.
RUMKE = [
    (0, 100, 0, 4), (5, 100, 1, 12), (10, 100, 4, 18), (50, 100, 39, 61), (0, 200, 0, 2), (5, 200, 2, 9),
    (10, 200, 6, 15), (50, 200, 42, 58), (5, 500, 3, 8), (50, 500, 45, 55), (10, 1000, 8, 13),
]  # fmt: skip


@pytest.mark.parametrize(("percent", "cells", "low", "high"), RUMKE)
def test_the_exact_interval_is_that_of_the_rumke_table(percent: int, cells: int, low: int, high: int) -> None:
    below, above = clopper_pearson(percent * cells // 100, cells)
    assert int(100 * below + 1e-9) in (low, low - 1)  # the table rounds limits down and up in print
    assert abs(100 * float(above) - high) < 1


def test_five_percent_of_200_is_2_4_to_9_0() -> None:
    low, high = clopper_pearson(10, 200)
    assert (round(100 * float(low), 1), round(100 * float(high), 1)) == (2.4, 9.0)


@pytest.mark.parametrize("p", [0.005, 0.05, 0.3, 0.6])
def test_the_exact_interval_never_covers_less_than_it_says(p: float) -> None:
    n = 200
    low, high = clopper_pearson(np.arange(n + 1), n)
    held = (low <= p) & (p <= high)
    assert binom.pmf(np.arange(n + 1), n, p)[held].sum() >= 0.95


def test_the_exact_limits_leave_two_and_a_half_percent_in_each_tail() -> None:
    n = 20
    k = np.arange(n + 1)
    low, high = clopper_pearson(k, n)
    assert binom.sf(k[1:] - 1, n, low[1:]) == pytest.approx(0.025)
    assert binom.cdf(k[:-1], n, high[:-1]) == pytest.approx(0.025)
    assert (low[0], high[-1]) == (0, 1)


def test_nothing_counted_means_nothing_known() -> None:
    low, high = clopper_pearson(0, 0)
    assert (float(low), float(high)) == (0.0, 1.0)


def test_more_cells_of_a_class_than_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and their total"):
        clopper_pearson(3, 2)


def test_simultaneous_intervals_hold_all_classes_at_once() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.6, 0.28, 0.07, 0.04, 0.01])
    held = 0
    for counts in rng.multinomial(200, p, 1000):
        low, high = goodman(counts)
        held += bool(((low <= p) & (p <= high)).all())
    assert held >= 940  # n = 1,000 draws; the nominal 950 less twice their standard error


@pytest.mark.parametrize("counts", [[120, 60, 12, 6, 2], [3, 0, 0], [1, 1]])
def test_simultaneous_limits_solve_the_equation_of_goodman(counts: list[int]) -> None:
    n, b = sum(counts), chi2.isf(0.05 / len(counts), 1)
    for limit in goodman(counts):
        assert (np.array(counts) / n - limit) ** 2 == pytest.approx(b * limit * (1 - limit) / n)


def test_simultaneous_limits_are_two_for_each_class_even_where_nothing_was_counted() -> None:
    assert [limit.tolist() for limit in goodman([0, 0, 0])] == [[0, 0, 0], [1, 1, 1]]


def test_simultaneous_intervals_are_wider_than_single_ones() -> None:
    counts = np.array([120, 60, 12, 6, 2])
    single, joint = clopper_pearson(counts, 200), goodman(counts)
    assert (joint[1] - joint[0] > single[1] - single[0]).all()


@pytest.mark.parametrize(
    ("counts", "whole"),
    [([1, 1, 1], [34, 33, 33]), ([0, 0], [0, 0]), ([199, 1], [100, 0]), ([5, 3, 1], [56, 33, 11])],
)
def test_whole_percents_follow_the_largest_remainder(counts: list[int], whole: list[int]) -> None:
    assert whole_percents(counts).tolist() == whole


def test_whole_percents_always_add_up_to_100() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        counts = rng.integers(0, 300, rng.integers(1, 9))
        counts[0] += 1
        whole = whole_percents(counts)
        assert whole.sum() == 100
        assert (np.abs(whole - 100 * counts / counts.sum()) < 1).all()
