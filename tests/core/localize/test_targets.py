"""What the network is taught, and that boxes come back out of perfect maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.localize.decode import DecodeSettings, decode, suppress
from napari_bloodcells.core.localize.targets import IGNORE, Targets, box_loss, draw_targets, heat_loss

ALL = np.ones(3, np.bool_)


def _maps(boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maps of a net that learned its targets perfectly."""
    heat, _, sides, _ = draw_targets(boxes, labels, ALL, 128)
    p = np.clip(heat, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p)), np.log(sides).reshape(12, 32, 32)


def test_boxes_come_back_out_of_perfect_maps() -> None:
    boxes = np.array([[10, 20, 52, 61], [60, 20, 103, 66], [0, 90, 20, 128], [70, 90, 78, 99]], np.float32)
    labels = np.array([0, 0, 1, 2])
    found = decode(*_maps(boxes, labels), DecodeSettings(), 128, 128)
    for c in range(3):
        overlap = iou(found[c][0], boxes[labels == c])
        assert overlap.shape[0] == overlap.shape[1]
        assert (overlap.max(0) > 0.99).all()


def test_two_touching_cells_stay_two() -> None:
    boxes = np.array([[20, 30, 60, 70], [56, 34, 96, 74]], np.float32)
    found = decode(*_maps(boxes, np.array([0, 0])), DecodeSettings(), 128, 128)
    assert len(found[0][0]) == 2


def test_boxes_end_at_the_border() -> None:
    heat, sides = _maps(np.array([[100, 100, 128, 128]], np.float32), np.array([0]))
    found = decode(heat, sides, DecodeSettings(), 120, 110)
    assert found[0][0].max(0).tolist() == [100, 100, 110, 120]


def test_of_boxes_over_each_other_the_best_stays() -> None:
    boxes = np.array([[0, 0, 40, 40], [2, 2, 41, 41], [10, 10, 20, 20], [60, 0, 90, 30]], float)
    assert suppress(boxes, 0.5).tolist() == [0, 3]


def test_many_boxes_are_suppressed_as_few_are() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 400, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 30, (300, 2))], axis=1)
    kept = suppress(boxes, 0.4).tolist()
    far = boxes + 5000
    joined = suppress(np.concatenate([boxes[:140], far[140:280]]), 0.4).tolist()
    assert [i for i in joined if i < 140] == suppress(boxes[:140], 0.4).tolist()
    assert len(kept) < 300


def test_unknown_classes_and_ignored_places_cost_nothing() -> None:
    boxes = np.array([[10, 10, 50, 50], [70, 70, 110, 110]], np.float32)
    known = np.array([True, False, True])
    heat, trust, sides, weight = draw_targets(boxes, np.array([0, IGNORE - 0]), known, 128)
    assert (trust[1] == 0).all()
    assert (trust[0, 18:27, 18:27] == 0).all()
    assert trust[0, 7, 7] == 1
    assert weight[0].sum() == pytest.approx(1, abs=1e-5)
    wrong = torch.full((1, 3, 32, 32), -9.0)
    wrong[0, 0, 20:25, 20:25] = 9.0
    wrong[0, 1] = 9.0
    right = wrong.clone()
    right[0, 0, 20:25, 20:25] = -9.0
    right[0, 1] = -9.0
    targets = Targets(*(torch.from_numpy(part)[None] for part in (heat, trust, sides, weight)))
    assert heat_loss(wrong, targets) == heat_loss(right, targets)


def test_the_loss_is_least_for_the_true_maps() -> None:
    boxes, labels = np.array([[10, 20, 52, 61], [70, 90, 78, 99]], np.float32), np.array([0, 2])
    targets = Targets(*(torch.from_numpy(part)[None] for part in draw_targets(boxes, labels, ALL, 128)))
    heat, sides = (torch.from_numpy(m)[None] for m in _maps(boxes, labels))
    assert box_loss(sides, targets) < 1e-3
    assert box_loss(sides + 0.2, targets) > 0.3
    assert heat_loss(heat, targets) < heat_loss(heat.roll(1, -1), targets)
