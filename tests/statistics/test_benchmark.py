"""The coverage benchmark writes the page by itself, and what it simulates is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.statistics.__main__ import BEGIN, END, PAGE, into_page, main
from benchmarks.statistics.cells import UNIDENTIFIED, Calls, read_calls, write_calls
from benchmarks.statistics.slides import ALL, Simulation, simulate

NAMES = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")


@pytest.fixture(scope="module")
def calls() -> Calls:
    """Held-out cells of three sources, one in ten wrong, one in twenty unidentified."""
    rng = np.random.default_rng(0)
    n = 1200
    truth = rng.integers(0, 5, n)
    called = np.where(rng.random(n) < 0.1, rng.integers(0, 5, n), truth)
    called[rng.random(n) < 0.05] = UNIDENTIFIED
    source = rng.choice(["pbc", "bccd", "chula"], n)
    return Calls(source, rng.choice(["validation", "test"], n), np.arange(n), truth, called)


def test_calls_are_read_as_they_were_written(calls: Calls, tmp_path: Path) -> None:
    write_calls(calls, tmp_path / "calls.csv")
    again = read_calls(tmp_path / "calls.csv")
    for name in ("source", "part", "group", "truth", "called"):
        np.testing.assert_array_equal(getattr(again, name), getattr(calls, name))


def test_the_matrix_counts_every_cell_once_and_the_unidentified_apart(calls: Calls) -> None:
    table = calls.matrix(5)
    assert table.sum() == len(calls.truth)
    assert table[:, 5].sum() == (calls.called == UNIDENTIFIED).sum()
    assert calls.at_most(20).matrix(5).sum() <= 20 * 5 * 3


def test_a_perfect_model_is_held_by_both_intervals() -> None:
    cells = np.hstack([np.diag([5000] * 5), np.zeros((5, 1), int)])
    whole = simulate("perfect", NAMES, cells[:, :5], cells, Simulation(60, 200))[-1]
    assert whole.name == ALL
    assert whole.intervals == 300
    assert whole.naive >= 0.93
    assert whole.corrected >= 0.9
    assert abs(whole.corrected_bias) < 0.01


def test_errors_that_the_naive_interval_misses_are_held_by_the_corrected_one() -> None:
    cells = np.hstack([np.diag([900] * 5), np.zeros((5, 1), int)])
    cells[0, 4] = 100  # one neutrophil of ten is called a monocyte
    lines = {c.name: c for c in simulate("errs", NAMES, cells[:, :5], cells, Simulation(60, 200))}
    assert lines["monocyte"].naive < 0.6
    assert lines["monocyte"].corrected > 0.85
    assert lines["monocyte"].naive_bias > 4


def test_the_page_is_written_between_its_markers(calls: Calls, tmp_path: Path) -> None:
    assert into_page(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    assert PAGE.read_text("utf-8").count(BEGIN) == PAGE.read_text("utf-8").count(END) == 1
    write_calls(calls, tmp_path / "calls.csv")
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text("utf-8"), "utf-8")
    assert main(["--again", "--slides", "2", "-o", str(tmp_path), "--page", str(page)]) == 0
    text = page.read_text("utf-8").split(BEGIN)[1].split(END)[0]
    for case in ("own microscope", "redrawn", "as shipped, pbc", "left out, chula", "taken together"):
        assert case in text
    assert "1,200 held-out cells of 3 sources" in text
