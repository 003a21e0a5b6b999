"""Two counts compared: matching, agreement, kappa, McNemar, Bland-Altman, Passing-Bablok, Rümke."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.errors import OutputError, UsageError
from napari_bloodcells.core.statistics.compare import (
    LeftOut,
    bland_altman,
    compare,
    match_cells,
    passing_bablok,
)
from napari_bloodcells.core.statistics.compareplots import FILES, write_comparison
from napari_bloodcells.core.statistics.paired import cohen_kappa, holm, mcnemar

SCHEME = load_scheme("wbc5")


def _cells(labels: list[str], image: str = "s/1.jpg", shift: float = 0.0) -> pd.DataFrame:
    x = np.arange(len(labels)) * 100.0 + shift
    boxes = {"x_min": x, "y_min": 0.0, "x_max": x + 60, "y_max": 60.0}
    return pd.DataFrame({"image": image, "cell": range(1, len(labels) + 1), **boxes, "class": labels})


def test_cells_are_matched_by_overlap_whatever_their_order() -> None:
    a = _cells(["neutrophil", "monocyte", "lymphocyte"])
    b = _cells(["neutrophil", "monocyte", "lymphocyte"], shift=8).iloc[::-1].reset_index(drop=True)
    assert match_cells(a, b) == ([(0, 2), (1, 1), (2, 0)], 0, 0)


def test_a_cell_with_too_little_overlap_has_no_partner() -> None:
    pairs, only_a, only_b = match_cells(_cells(["neutrophil"]), _cells(["neutrophil"], shift=45))
    assert (pairs, only_a, only_b) == ([], 1, 1)


def test_each_cell_is_matched_once() -> None:
    a = _cells(["neutrophil"])
    b = pd.concat([_cells(["neutrophil"]), _cells(["monocyte"], shift=4)], ignore_index=True)
    assert match_cells(a, b) == ([(0, 0)], 0, 1)


def test_the_table_has_a_by_row_and_b_by_column() -> None:
    found = compare(_cells(["neutrophil", "neutrophil"]), _cells(["neutrophil", "monocyte"]), SCHEME)
    i, j = found.labels.index("neutrophil"), found.labels.index("monocyte")
    assert found.confusion[i, j] == 1
    assert found.confusion[j, i] == 0
    row = next(r for r in found.agreement if r.name == "neutrophil")
    assert (row.a, row.b, row.both) == (2, 1, 1)
    assert row.agreement == pytest.approx(2 / 3)
    assert row.low < row.agreement < row.high


def test_kappa_is_that_of_a_worked_example() -> None:
    # Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), table 18.1: kappa 0.676, se 0.088
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    found = cohen_kappa(table)
    assert found.value == pytest.approx(0.676, abs=0.001)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.088, abs=0.001)


def test_perfect_agreement_has_kappa_one_and_a_single_class_none() -> None:
    assert cohen_kappa(np.diag([5, 5])).value == 1.0
    assert math.isnan(cohen_kappa([[7]]).value)


@pytest.mark.parametrize(
    ("b", "within"),
    [(["neutrophil"] * 59 + ["monocyte"] * 41, True), (["neutrophil"] * 40 + ["monocyte"] * 60, False)],
)
def test_a_difference_is_judged_by_chance(b: list[str], within: bool) -> None:
    a = ["neutrophil"] * 65 + ["monocyte"] * 35
    found = compare(_cells(a), _cells(b), SCHEME)
    rows = {d.name: d for d in found.differences if d.sample == "all"}
    assert rows["neutrophil"].within is within
    assert rows["basophil"].within


def _chance(k: int, n: int, other: int, total: int) -> float:
    """Fisher's two-sided p by its definition: all tables with these margins that are no likelier than this one."""
    margin, whole = k + other, math.comb(n + total, k + other)
    ways = [math.comb(n, i) * math.comb(total, margin - i) for i in range(max(0, margin - total), min(n, margin) + 1)]
    seen = math.comb(n, k) * math.comb(total, other)
    return sum(w for w in ways if w <= seen) / whole


@pytest.mark.parametrize(
    ("a", "b", "cells", "within"),
    [(5, 13, 100, True), (5, 14, 100, True), (5, 15, 100, False), (10, 21, 200, True), (10, 22, 200, False)],
)
def test_the_rumke_limits_are_those_of_the_exact_test(a: int, b: int, cells: int, within: bool) -> None:
    first, second = (["eosinophil"] * k + ["neutrophil"] * (cells - k) for k in (a, b))
    found = compare(_cells(first), _cells(second), SCHEME)
    row = next(d for d in found.differences if d.sample == "all" and d.name == "eosinophil")
    assert row.p_value == pytest.approx(_chance(a, cells, b, cells), rel=1e-9)
    assert row.within is within


def _coin(only_a: int, only_b: int) -> float:
    """McNemar's exact p by its definition: as uneven or more, were it a fair coin for each of the disputed cells."""
    n = only_a + only_b
    return sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(only_a - only_b)) / 2**n


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 0), (0, 6), (5, 0), (3, 9), (7, 7), (20, 41)])
def test_the_test_of_the_same_cells_is_exact(only_a: int, only_b: int) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(_coin(only_a, only_b), rel=1e-9)


def test_where_nothing_is_disputed_nothing_is_unlikely() -> None:
    assert mcnemar(0, 0) == 1


def test_holm_multiplies_the_least_most_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_of_the_same_cells_a_bias_is_seen_that_lies_within_the_limits_of_different_ones() -> None:
    first = ["neutrophil"] * 120 + ["lymphocyte"] * 66 + ["monocyte"] * 14
    second = ["neutrophil"] * 120 + ["lymphocyte"] * 75 + ["monocyte"] * 5
    found = compare(_cells(first), _cells(second), SCHEME)
    rows = {row.name: row for row in found.agreement}
    assert next(d for d in found.differences if d.name == "monocyte").within
    assert rows["monocyte"].mcnemar_p == pytest.approx(_coin(9, 0))
    assert rows["lymphocyte"].mcnemar_p == pytest.approx(_coin(0, 9))
    assert rows["monocyte"].mcnemar_p_holm == pytest.approx(2 * _coin(9, 0)), "of the two classes that are disputed"
    assert (rows["neutrophil"].mcnemar_p, rows["neutrophil"].mcnemar_p_holm) == (1, 1)
    said = {row["name"]: row for row in json.loads(json.dumps(found.to_json()))["agreement"]}
    assert said["monocyte"]["mcnemar_p"] == rows["monocyte"].mcnemar_p


def test_cells_that_one_of_the_two_missed_are_not_disputed() -> None:
    found = compare(_cells(["neutrophil"] * 3 + ["monocyte"] * 30), _cells(["neutrophil"] * 3), SCHEME)
    assert {row.name: row.mcnemar_p for row in found.agreement} == {"neutrophil": 1}
    assert not next(d for d in found.differences if d.name == "monocyte").within


def test_where_one_of_the_two_classified_nothing_there_is_no_verdict(tmp_path: Path) -> None:
    a = pd.concat([_cells(["neutrophil"] * 9, image=f"{s}/1.jpg") for s in "st"], ignore_index=True)
    found = compare(a, _cells(["neutrophil"] * 9), SCHEME, images=(["s/1.jpg", "t/1.jpg"],) * 2)
    assert {d.within for d in found.differences if d.sample == "t"} == {None}
    assert {d.within for d in found.differences if d.sample == "s"} == {True}
    write_comparison(found, SCHEME, tmp_path, ("a", "b"))
    lines = (tmp_path / "differences.csv").read_text().splitlines()
    ends = {line.split(",")[0]: line.split(",")[-2:] for line in lines}
    assert (ends["t"], ends["s"]) == (["", ""], ["1.0", "True"])
    said = json.loads((tmp_path / "comparison.json").read_text())["differences"]
    assert {d["sample"]: d["within"] for d in said} == {"s": True, "t": None, "all": True}


# Bland and Altman, Lancet 1 (1986) 307, first table: peak flow by two meters, liters a minute; bias -2.1, sd 38.8
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_bias_and_limits_are_those_of_bland_and_altman() -> None:
    found = bland_altman("x", MINI, WRIGHT)
    assert found.n == 17
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert found.upper - found.bias == pytest.approx(1.96 * 38.8, abs=0.1)
    assert found.bias - found.lower == pytest.approx(found.upper - found.bias)


def test_one_sample_has_a_bias_and_no_limits() -> None:
    found = bland_altman("x", [10], [12])
    assert (found.bias, math.isnan(found.lower), math.isnan(found.upper)) == (2, True, True)


def test_passing_bablok_worked_by_hand() -> None:
    # the ten slopes are 0, .5, 1, 1, 1, 1, 1.25, 1.5, 2, 2, none below -1; M1 = round((10 - 1.96 sqrt(50 / 3)) / 2) = 1
    found = passing_bablok("x", [1, 2, 3, 4, 5], [1, 3, 4, 4, 6])
    assert (found.slope, found.slope_low, found.slope_high) == (1, 0, 2)
    assert (found.intercept, found.intercept_low, found.intercept_high) == (1, -2, 4)


def _by_the_paper(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Slope and its limits, step by step as Passing and Bablok (1983) count them, from 1."""
    slopes = []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if x[i] == x[j]:
                if y[i] != y[j]:
                    slopes.append(math.inf if y[j] > y[i] else -math.inf)
            elif (y[j] - y[i]) / (x[j] - x[i]) != -1:
                slopes.append((y[j] - y[i]) / (x[j] - x[i]))
    s, n = [math.nan, *sorted(slopes)], len(x)
    whole, below = len(slopes), sum(b < -1 for b in slopes)
    middle = (whole + 1) // 2
    slope = s[middle + below] if whole % 2 else (s[middle + below] + s[middle + below + 1]) / 2
    m1 = round((whole - 1.959964 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)) / 2)
    return slope, s[m1 + below], s[whole - m1 + 1 + below]


@pytest.mark.parametrize(("seed", "n", "scale"), [(0, 9, 1), (1, 12, 1), (2, 30, 0.4), (3, 31, -0.2), (4, 60, 1)])
def test_slopes_and_limits_are_counted_as_in_the_paper(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(5, 40, n).astype(float)  # whole percents: ties, and slopes of infinity and 0
    y = np.round(scale * x + rng.normal(0, 6, n))
    found = passing_bablok("x", x, y)
    expected = _by_the_paper(x.tolist(), y.tolist())
    assert (found.slope, found.slope_low, found.slope_high) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 4])
def test_so_few_samples_leave_a_limit_open(n: int) -> None:
    found = passing_bablok("x", range(n), [2 * i for i in range(n)])
    assert found.slope == 2
    assert math.isnan(found.slope_low) or math.isnan(found.slope_high)


def test_the_line_of_two_methods_is_found_in_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 80, 120)
    found = passing_bablok("x", truth + rng.normal(0, 1, 120), 3 + 0.9 * truth + rng.normal(0, 1, 120))
    assert found.slope_low < 0.9 < found.slope_high
    assert found.intercept_low < 3 < found.intercept_high
    assert found.slope == pytest.approx(0.9, abs=0.03)


def test_too_few_samples_have_no_line() -> None:
    assert math.isnan(passing_bablok("x", [1, 2], [1, 2]).slope)


def test_counts_of_other_images_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="no image in common"):
        compare(_cells(["neutrophil"]), _cells(["neutrophil"], image="other.jpg"), SCHEME)


def test_an_image_on_which_one_found_nothing_takes_part_and_one_that_only_one_counted_does_not() -> None:
    images = ["s/1.jpg", "s/2.jpg", "t/3.jpg"]
    a = pd.concat([_cells(["neutrophil", "monocyte"], image=name) for name in images], ignore_index=True)
    b = pd.concat([_cells(["neutrophil"], image=name) for name in ("s/1.jpg", "u/4.jpg")], ignore_index=True)
    found = compare(a, b, SCHEME, images=(images, ["s/1.jpg", "s/2.jpg", "u/4.jpg"]))
    assert (found.matched, found.only_a, found.only_b) == (1, 3, 0)
    totals = {d.sample: (d.total_a, d.total_b) for d in found.differences}
    assert totals == {"s": (4, 1), "all": (4, 1)}
    assert (found.left_out_a, found.left_out_b) == (LeftOut(("t/3.jpg",), 2), LeftOut(("u/4.jpg",), 1))


def test_a_sample_in_which_one_found_nothing_is_no_point_of_a_plot() -> None:
    a = pd.concat([_cells(["neutrophil"], image=f"{s}/1.jpg") for s in "st"], ignore_index=True)
    found = compare(a, _cells(["neutrophil"]), SCHEME, images=(["s/1.jpg", "t/1.jpg"],) * 2)
    assert {d.sample: d.total_b for d in found.differences} == {"s": 1, "t": 0, "all": 1}
    assert {fit.n for fit in found.bland_altman} == {1}


def test_without_lists_of_images_those_with_cells_in_both_take_part() -> None:
    a = pd.concat([_cells(["neutrophil"], image=f"s/{k}.jpg") for k in (1, 2)], ignore_index=True)
    found = compare(a, _cells(["neutrophil"]), SCHEME, images=(["s/1.jpg", "s/2.jpg", "s/3.jpg"], None))
    assert (found.matched, found.only_a, found.left_out_a.images) == (1, 0, ("s/2.jpg",))


def test_tables_and_plots_are_written_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = []
    for sample in range(4):
        labels = rng.choice(list(SCHEME.names), 60, p=[0.6, 0.05, 0.02, 0.25, 0.08]).tolist()
        parts.append(_cells(labels, image=f"=s{sample}/1.jpg"))
    a = pd.concat(parts, ignore_index=True)
    b = a.copy()
    b.loc[::15, "class"] = "monocyte"
    found = compare(a, b, SCHEME)
    files = write_comparison(found, SCHEME, tmp_path, ("a", "b $x"))
    assert [path.name for path in files] == list(FILES)
    assert all(path.stat().st_size > 100 for path in files)
    assert "'=s0" in (tmp_path / "differences.csv").read_text()
    with pytest.raises(OutputError, match="already"):
        write_comparison(found, SCHEME, tmp_path, ("a", "b"))
