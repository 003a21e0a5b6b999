"""Counting layers of every kind: the same cells, in the same places, as of the plain photograph."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from PIL import Image

from napari_bloodcells.core.progress import Silent
from napari_bloodcells.napari import counting
from napari_bloodcells.napari.cell import Cell, overlap
from napari_bloodcells.napari.counting import CountRequest, ModelShelf, count_fields
from napari_bloodcells.napari.fields import fields_of
from napari_bloodcells.napari.series import image_layer
from napari_bloodcells.napari.thumbnails import Cutter, square_around
from napari_bloodcells.synthetic import SmearSettings, draw_smear


@pytest.fixture
def count(tiny_model: Path) -> Any:
    """Counts the field (or fields) of data added as a color image, with keywords of the layer."""
    shelf = ModelShelf()

    def counted(data: Any, boxes: str = "classical", **keywords: Any) -> tuple[Cell, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = ViewerModel().add_image(data, rgb=True, name="smear", **keywords)
        request = CountRequest(str(tiny_model), boxes, "cpu")
        return count_fields(fields_of(layer), request, Silent(), shelf).review.cells

    return counted


@pytest.mark.parametrize("kind", ["float32", "uint16", "rgba", "scaled", "multiscale", "stack"])
def test_every_kind_of_image_gives_the_same_cells(count: Any, field_image: np.ndarray, kind: str) -> None:
    made: dict[str, Any] = {
        "float32": field_image.astype(np.float32) / 255,
        "uint16": field_image.astype(np.uint16) * 257,
        "rgba": np.dstack([field_image, np.full(field_image.shape[:2], 255, np.uint8)]),
        "multiscale": [field_image, field_image[::2, ::2]],
        "stack": np.stack([field_image, field_image]),
    }
    keywords = {"scale": (0.1, 0.1), "translate": (7, -3)} if kind == "scaled" else {}
    plain = count(field_image)
    cells = count(made.get(kind, field_image), **keywords)
    assert len(plain) == 3
    for plane in range(2 if kind == "stack" else 1):
        here = [cell for cell in cells if cell.image == plane]
        assert [c.box for c in here] == [pytest.approx(c.box, abs=1) for c in plain]
        assert [c.probabilities for c in here] == [pytest.approx(c.probabilities, abs=0.02) for c in plain]


def test_a_large_multiscale_image_is_counted_at_full_resolution_by_tiles(
    count: Any, field_image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty fields beside each other, in pieces of 2048 pixels: no cell is lost at a seam or counted twice."""
    mosaic = np.tile(field_image, (5, 4, 1))
    whole = count(mosaic, "find")
    monkeypatch.setattr(counting, "LARGE", 1_000_000)
    tiled = count([mosaic, mosaic[::4, ::4]], "find")
    assert len(whole) == 60
    assert len(tiled) == 60
    for cell in whole:
        best = max(tiled, key=lambda other: overlap(cell.box, other.box))
        assert overlap(cell.box, best.box) > 0.8


def test_every_field_of_a_series_keeps_its_own_cells_whatever_the_order(tiny_model: Path, tmp_path: Path) -> None:
    """``count`` sorts its files; the layer keeps the order in which they were opened."""
    kinds = {"c": ("neutrophil",), "a": ("lymphocyte", "monocyte"), "b": ("basophil", "eosinophil", "monocyte")}
    for seed, (name, cells) in enumerate(kinds.items()):
        smear = draw_smear(seed, SmearSettings(cells=cells, width=320, height=240, um_per_pixel=0.2))
        Image.fromarray(smear.image).save(tmp_path / f"{name}.png")
    data, keywords, _ = image_layer([tmp_path / f"{name}.png" for name in kinds])
    fields = fields_of(ViewerModel().add_image(data, **keywords))
    request = CountRequest(str(tiny_model), "classical", "cpu")
    review = count_fields(fields, request, Silent(), ModelShelf()).review
    assert review.images == ("c.png", "a.png", "b.png")
    assert [sum(cell.image == plane for cell in review.cells) for plane in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["uint8", "float32", "uint16"])
def test_crops_are_those_of_the_field_whether_read_in_parts_or_whole(field_image: np.ndarray, kind: str) -> None:
    data = {"uint8": 1, "float32": np.float32(1 / 255), "uint16": np.uint16(257)}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = ViewerModel().add_image(field_image * data, rgb=True)
    fields = fields_of(layer)
    assert fields.in_parts == (kind == "uint8")
    boxes = [(10.0, 10.0, 70.0, 80.0), (300.5, 200.0, 360.0, 250.25), (600.0, 440.0, 640.0, 480.0)]
    cells = [Cell(k + 1, 0, k + 1, box, "monocyte") for k, box in enumerate(boxes)]
    for cell, crop in zip(cells, Cutter(fields).cut(cells), strict=True):
        wanted = square_around(field_image, cell.box)
        assert crop.shape == wanted.shape
        assert np.abs(crop.astype(int) - wanted).max() <= 1
