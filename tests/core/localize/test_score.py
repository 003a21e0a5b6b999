"""Recall, precision and average precision on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.localize.score import average_precision, bootstrap, precision, recall, score_field

TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)


def _found(*boxes: tuple[float, float, float, float, float]) -> Boxes:
    table = np.array(boxes, np.float32).reshape(-1, 5)
    return Boxes(table[:, :4], ("WBC",) * len(table), table[:, 4], "found")


def test_recall_counts_cells_and_precision_counts_boxes() -> None:
    score = score_field(_found((0, 0, 10, 10, 0.9), (1, 1, 9, 9, 0.8), (70, 0, 80, 10, 0.7)), TRUTH)
    assert recall([score]) == pytest.approx(1 / 3)
    assert precision([score]) == pytest.approx(2 / 3)


def test_a_box_shifted_out_of_its_cell_is_no_hit() -> None:
    assert score_field(_found((6, 0, 16, 10, 1)), TRUTH).hit == 0
    assert score_field(_found((4, 0, 14, 10, 1)), TRUTH).hit == 1


def test_average_precision_is_the_area_under_the_curve() -> None:
    score = score_field(_found((0, 0, 10, 10, 0.9), (70, 0, 80, 10, 0.8), (20, 0, 30, 10, 0.7)), TRUTH)
    assert average_precision([score]) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)


def test_a_second_box_on_one_cell_is_no_true_one() -> None:
    score = score_field(_found((0, 0, 10, 10, 0.9), (0, 0, 10, 9, 0.8)), TRUTH)
    assert score.fits[0].tolist() == [True, False]


def test_a_loose_box_counts_at_half_but_not_at_three_quarters() -> None:
    score = score_field(_found((0, 0, 10, 15, 0.9)), TRUTH)
    assert score.fits[:, 0].tolist() == [True, False]


def test_a_box_over_an_ignored_cell_is_neither_right_nor_wrong() -> None:
    ignored = np.array([[70, 0, 80, 10]], np.float32)
    score = score_field(_found((0, 0, 10, 10, 0.9), (70, 0, 80, 10, 0.8)), TRUTH, ignored)
    assert precision([score]) == 1


def test_the_interval_holds_the_value_and_narrows_with_fields() -> None:
    rng = np.random.default_rng(0)
    fields = [
        score_field(_found(*((*box, 1.0) for box in TRUTH[rng.random(3) < 0.8].tolist())), TRUTH) for _ in range(100)
    ]
    few, many = bootstrap(fields[:20], recall), bootstrap(fields, recall)
    assert many[0] <= recall(fields) <= many[1]
    assert many[1] - many[0] < few[1] - few[0]
