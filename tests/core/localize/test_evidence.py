"""What a field says of a box that may be a white cell."""

from __future__ import annotations

import numpy as np
import pytest

from napari_bloodcells.core.localize.evidence import also_red, darkness, gather_evidence
from napari_bloodcells.synthetic import SmearSettings, Stain, draw_smear


def test_a_white_cell_is_seen_as_a_red_one_where_one_of_its_size_lies_in_its_middle() -> None:
    white = np.array([[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20], [120, 0, 140, 20]], np.float32)
    red = np.array([[2, 2, 18, 18], [2, 2, 18, 18], [46, 6, 54, 14], [82, 2, 98, 18], [134, 2, 150, 18]], np.float32)
    scores = np.array([0.3, 0.8, 0.9, 0.02, 0.9], np.float32)  # two on one cell, too small, below the lowest, beside
    odds = np.log(0.8 / 0.2) - np.log(0.1 / 0.9)
    assert also_red(white, red, scores) == pytest.approx([odds, 0, 0, 0], abs=1e-5)
    assert also_red(white[:0], red, scores).shape == (0,)
    assert also_red(white, red[:0], scores[:0]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("stain", [Stain(), Stain(strength=0.6, ground=(214, 226, 200))], ids=["usual", "pale"])
def test_white_cells_are_darker_than_the_red_cells_of_their_field(stain: Stain) -> None:
    smear = draw_smear(2, SmearSettings(cells=3, stain=stain))
    sure = np.full(len(smear.rbc), 0.9, np.float32)
    white = darkness(smear.image, smear.boxes.xyxy, smear.rbc.xyxy, sure)
    red = darkness(smear.image, smear.rbc.xyxy, smear.rbc.xyxy, sure)
    assert white.min() > 0.3
    assert np.abs(np.median(red)) < 0.05


def test_without_red_cells_nothing_speaks_against_a_box() -> None:
    image = np.full((60, 60, 3), 235, np.uint8)
    box, none = np.array([[10, 10, 40, 40]], np.float32), np.zeros((0, 4), np.float32)
    alone = gather_evidence(image, box, none, np.zeros(0, np.float32))
    assert (alone.red.tolist(), alone.dark.tolist()) == ([0.0], [0.8])
    unsure = np.tile(np.array([[0, 0, 8, 8]], np.float32), (9, 1))
    assert darkness(image, box, unsure, np.full(9, 0.3, np.float32)).tolist() == [0.8]
    assert gather_evidence(image, none, unsure, np.full(9, 0.9, np.float32)).dark.shape == (0,)


def test_boxes_beyond_the_picture_are_sampled_in_it() -> None:
    image = np.full((30, 30, 3), 200, np.uint8)
    far = np.array([[-20, -20, 5, 5], [25, 25, 60, 60], [0, 0, 0, 0]], np.float32)
    red = np.tile(np.array([[5, 5, 25, 25]], np.float32), (6, 1))
    assert np.isfinite(darkness(image, far, red, np.full(6, 0.9, np.float32))).all()
