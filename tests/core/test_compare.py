"""Two counts compared: matching, agreement, kappa, Bland-Altman, Passing-Bablok, Rümke."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.compare import bland_altman, cohen_kappa, compare, match_cells, passing_bablok
from napari_bloodcells.core.compareplots import FILES, write_comparison
from napari_bloodcells.core.errors import OutputError, UsageError

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


def test_bland_altman_gives_bias_and_limits() -> None:
    found = bland_altman("x", [10, 20, 30, 40], [12, 21, 33, 40])
    gaps = np.array([2, 1, 3, 0])
    assert found.bias == gaps.mean()
    assert found.upper == pytest.approx(gaps.mean() + 1.96 * gaps.std(ddof=1), abs=1e-3)


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
