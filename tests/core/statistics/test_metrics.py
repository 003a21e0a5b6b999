"""Figures and their intervals, against scikit-learn's definitions written out and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_bloodcells.core.statistics.metrics import score, wilson
from napari_bloodcells.core.training.temperature import fit_temperature

NAMES = ("a", "b", "c")


def one_hot(guess: list[int], sure: float = 0.9) -> np.ndarray:
    rest = (1 - sure) / 2
    return np.array([[sure if i == g else rest for i in range(3)] for g in guess], np.float32)


def test_figures_of_a_case_worked_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = score(truth, one_hot([0, 0, 0, 1, 1, 2, 2, 2]), NAMES)
    assert found.confusion.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 2]]
    expected = {
        ("accuracy", ""): 6 / 8,
        ("balanced_accuracy", ""): (3 / 4 + 1 / 2 + 1) / 3,
        ("recall", "a"): 3 / 4,
        ("precision", "a"): 1.0,
        ("f1", "a"): 2 * 0.75 / 1.75,
        ("recall", "b"): 1 / 2,
        ("precision", "b"): 1 / 2,
        ("precision", "c"): 2 / 3,
        ("f1", "c"): 0.8,
        ("ece", ""): 0.9 - 6 / 8,
    }
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value), key
        assert found[key].low <= value <= found[key].high


def test_a_swapped_class_shows() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    found = score(truth, one_hot([1] * 10 + [0] * 10), NAMES)
    assert found["accuracy"].value == 0
    assert found.confusion[0, 1] == found.confusion[1, 0] == 10


def test_ece_is_the_gap_between_confidence_and_accuracy_in_each_bin() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.55, 0.45]], np.float32)
    found = score(np.array([0, 1, 0, 0]), probabilities, ("a", "b"))
    assert found["ece"].value == pytest.approx((2 * 0.45 + 2 * 0.45) / 4, abs=1e-6)


def test_classes_that_are_not_there_have_no_figures_and_do_not_count() -> None:
    found = score(np.array([0, 0, 1]), one_hot([0, 0, 1]), NAMES)
    assert found["balanced_accuracy"].value == 1
    assert ("recall", "c") not in {(m.name, m.of) for m in found.metrics}


def test_copies_of_one_cell_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(60, np.int64)
    guess = (rng.random(60) < 0.2).astype(int)
    alone = score(truth, one_hot(guess.tolist()), NAMES)
    many = np.tile(guess, 30)
    copies = score(np.zeros(1800, np.int64), one_hot(many.tolist()), NAMES, [f"cell {i % 60}" for i in range(1800)])
    unaware = score(np.zeros(1800, np.int64), one_hot(many.tolist()), NAMES)
    width = {
        name: s["accuracy"].high - s["accuracy"].low for name, s in zip("acu", (alone, copies, unaware), strict=True)
    }
    assert width["c"] == pytest.approx(width["a"], rel=0.05)
    assert width["u"] < width["a"] / 4
    assert copies.groups == 60
    assert copies.n == 1800


def test_of_even_classes_accuracy_and_balanced_accuracy_are_one_number_with_one_interval() -> None:
    truth = np.tile([0, 1, 2], 16)  # 16 photographs with a cell of each class
    guess = truth.copy()
    guess[[0, 10, 20, 31, 41]] += 1
    found = score(truth, one_hot((guess % 3).tolist()), NAMES, [f"photograph {i // 3}" for i in range(48)])
    one, other = found["accuracy"], found["balanced_accuracy"]
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert (one.low, one.high) == pytest.approx(wilson(43 / 48, 16))


def test_a_class_of_few_cells_makes_the_balanced_accuracy_less_sure() -> None:
    truth = np.array([0] * 200 + [1] * 2)
    found = score(truth, one_hot(truth.tolist()), NAMES)
    assert found["balanced_accuracy"].low < 0.7 < 0.98 < found["accuracy"].low


def test_all_right_is_not_certain() -> None:
    found = score(np.repeat([0, 1, 2], 7), one_hot(np.repeat([0, 1, 2], 7).tolist()), NAMES)
    assert found["accuracy"].low == pytest.approx(wilson(1, 21)[0])
    assert found["recall", "a"].low == pytest.approx(wilson(1, 7)[0])
    assert 0.7 < found["balanced_accuracy"].low < 0.9
    assert found["f1", "a"].low < 0.8


def test_an_interval_holds_what_it_promises() -> None:
    """Of 200 experiments with 80 % true accuracy, at least 180 intervals hold it."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        guess = (rng.random(100) < 0.2).astype(int)
        found = score(np.zeros(100, np.int64), one_hot(guess.tolist()), NAMES)["accuracy"]
        held += found.low <= 0.8 <= found.high
    assert held >= 180


def test_the_order_of_the_cells_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    truth, probabilities = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50).astype(np.float32)
    groups = [f"g{i // 3}" for i in range(50)]
    order = rng.permutation(50)
    one = score(truth, probabilities, NAMES, groups)
    other = score(truth[order], probabilities[order], NAMES, [groups[i] for i in order])
    for m, n in zip(one.metrics, other.metrics, strict=True):
        assert (m.name, m.of, m.n) == (n.name, n.of, n.n)
        assert (m.value, m.low, m.high) == pytest.approx((n.value, n.low, n.high), abs=1e-6)


def test_no_cells_give_no_figures_but_no_error_either() -> None:
    found = score(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), NAMES)
    assert found.n == 0
    assert not [m for m in found.metrics if m.name == "accuracy"]


# Agresti and Coull, Am Stat 52 (1998), and R: prop.test(correct = FALSE)
WILSON = [(0.5, 10, 0.2366, 0.7634), (1.0, 20, 0.8389, 1.0), (0.0, 10, 0.0, 0.2775), (0.9, 100, 0.8256, 0.9448)]


@pytest.mark.parametrize(("share", "n", "low", "high"), WILSON)
def test_wilson_is_wilsons(share: float, n: int, low: float, high: float) -> None:
    assert wilson(share, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_the_logits(factor: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=p / p.sum()) for p in shares])
    assert fit_temperature(logits * factor, truth) == pytest.approx(factor, rel=0.1)
