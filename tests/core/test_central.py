"""The box of the cell in the middle of a single-cell image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.central import central_box


def disk(image: np.ndarray, x: float, y: float, radius: float, color: tuple[int, int, int]) -> None:
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = color


def test_the_nucleus_in_the_middle_is_taken_with_its_cytoplasm_and_not_the_red_cells():
    image = np.full((160, 160, 3), (240, 230, 235), np.uint8)
    for x, y in ((20, 20), (140, 30), (25, 140)):
        disk(image, x, y, 18, (215, 150, 150))
    disk(image, 85, 80, 26, (190, 180, 220))
    disk(image, 85, 80, 20, (90, 50, 140))
    assert iou(central_box(image)[None], np.array([[59, 54, 111, 106]], np.float32))[0, 0] > 0.7


def test_a_white_cell_at_the_border_is_not_taken():
    image = np.full((160, 160, 3), 240, np.uint8)
    disk(image, 80, 80, 20, (90, 50, 140))
    disk(image, 150, 150, 24, (90, 50, 140))
    assert central_box(image)[2] < 110


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_without_stain_is_taken_whole(value):
    assert central_box(np.full((40, 60, 3), value, np.uint8)).tolist() == [0, 0, 60, 40]


@pytest.mark.data
@pytest.mark.parametrize(("source", "least"), [("jtsc", 0.65), ("cellavision", 0.4)])
def test_the_box_overlaps_the_published_masks(shared_data: Path, source, least):
    found = []
    for mask in sorted((shared_data / source / "masks").iterdir())[:40]:
        rows, columns = np.where(np.asarray(Image.open(mask).convert("L")) > 64)
        truth = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
        image = next((shared_data / source / "images").glob(f"{mask.stem}.*"))
        found.append(iou(central_box(np.array(Image.open(image).convert("RGB")))[None], truth)[0, 0])
    assert np.median(found) > least
