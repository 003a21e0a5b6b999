"""Tiles: the boxes must stay on their cells through every cut, turn and paste."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.localize.looks import change_looks
from napari_bloodcells.core.localize.tiles import LabeledField, TileMaker, TileSettings

COLORS = {0: (60, 0, 160), 1: (220, 120, 120), 2: (150, 90, 190)}
PLAIN = TileSettings(p_dirt=0, p_writing=0, p_border=0, p_paste=0)


def _field(seed: int) -> LabeledField:
    """Colored squares on white ground, a color for each class."""
    rng = np.random.default_rng(seed)
    pixels = np.full((160, 220, 3), 235, np.uint8)
    boxes, labels = [], []
    for x in range(10, 190, 50):
        for y in range(10, 130, 50):
            label = int(rng.integers(3))
            side = {0: 36, 1: 20, 2: 9}[label]
            pixels[y : y + side, x : x + side] = COLORS[label]
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
    known = np.ones(3, np.bool_)
    return LabeledField(Image.fromarray(pixels), np.array(boxes, np.float32), np.array(labels), known, 20.0, f"s{seed}")


@pytest.mark.parametrize("settings", [PLAIN, TileSettings(p_dirt=0, p_writing=0, p_border=0, p_paste=1, p_mosaic=1)])
def test_every_box_lies_on_a_cell_of_its_color(settings: TileSettings) -> None:
    maker = TileMaker([_field(i) for i in range(3)], {}, settings)
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(60):
        pixels, (boxes, labels), _ = maker.tile(rng)
        for box, label in zip(boxes, labels, strict=True):
            if label < 0 or min(box[2] - box[0], box[3] - box[1]) < 4:
                continue
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            distance = np.abs(pixels[y, x].astype(int) - COLORS[int(label)]).max()
            assert distance < 45, (label, box, pixels[y, x])
            checked += 1
    assert checked > 200


def test_the_same_chance_makes_the_same_tile() -> None:
    maker = TileMaker([_field(0)], {}, TileSettings())
    first, second = (maker.tile(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1][0], second[1][0])


def test_boxes_stay_inside_the_tile() -> None:
    maker = TileMaker([_field(0), _field(1)], {}, TileSettings())
    rng = np.random.default_rng(1)
    for _ in range(40):
        pixels, (boxes, _), _ = maker.tile(rng)
        assert pixels.shape == (128, 128, 3)
        assert boxes.min(initial=0) >= 0
        assert boxes.max(initial=0) <= 128


def test_a_class_that_no_source_boxed_is_ignored() -> None:
    field = _field(0)
    shy = LabeledField(field.image, field.boxes, field.labels, np.array([True, False, False]), 20.0, "shy")
    _, _, known = TileMaker([shy], {}, PLAIN).tile(np.random.default_rng(0))
    assert known.tolist() == [True, False, False]


def test_looks_at_strength_zero_change_nothing() -> None:
    tiles = np.random.default_rng(0).integers(20, 256, (2, 16, 16, 3), dtype=np.uint8)
    same = change_looks(tiles, torch.Generator().manual_seed(0), 0.0)
    np.testing.assert_allclose(same.permute(0, 2, 3, 1).numpy() * 255, tiles, atol=0.01)


def test_looks_change_color_but_not_place() -> None:
    tiles = np.full((8, 32, 32, 3), 230, np.uint8)
    tiles[:, 10:20, 10:20] = (90, 40, 150)
    changed = change_looks(tiles, torch.Generator().manual_seed(1)).numpy()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert np.ptp(changed[:, :, 1, 1], axis=0).max() > 0.05
    assert (changed[:, 1, 12:18, 12:18].mean((1, 2)) < changed[:, 1, :8].mean((1, 2))).all()
