"""Counting layers of every kind: the same cells, in the same places, as of the plain photograph."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from PIL import Image

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.count import count as core_count
from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.report.views import view_of
from napari_bloodcells.core.slides import opening
from napari_bloodcells.napari import counting
from napari_bloodcells.napari import fields as fields_module
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.counting import CountRequest, ModelShelf, classify_boxes, count_fields
from napari_bloodcells.napari.differential_table import differential_of
from napari_bloodcells.napari.fields import METADATA, fields_of, same_on_disk
from napari_bloodcells.napari.reporting import report_input
from napari_bloodcells.napari.series import image_layer
from napari_bloodcells.napari.tables import frame_cells
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


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A photograph of 4 megapixels, which is many for this test: two drawn fields side by side, over and over."""
    for module in (counting, fields_module):
        monkeypatch.setattr(module, "LARGE", 1_000_000)
    drawn = [draw_smear(seed, SmearSettings(cells=("neutrophil", "lymphocyte", "eosinophil"))).image for seed in (4, 5)]
    return np.tile(np.hstack(drawn), (4, 2, 1))[:1824, :2400]


@pytest.mark.parametrize("kind", ["photograph", "array", "multiscale", "lazy"])
def test_a_large_photograph_gives_the_same_cells_in_the_window_and_with_the_command(
    tiny_model: Path, large: np.ndarray, tmp_path: Path, kind: str
) -> None:
    data: Any = large
    keywords: dict[str, Any] = {"rgb": True, "name": "smear.jpg"}
    sources: Any = {"smear.jpg": large}
    if kind == "photograph":
        sources = tmp_path / "smear.jpg"
        Image.fromarray(large).save(sources, quality=90)
        data, keywords, _ = image_layer([sources])
    elif kind == "multiscale":
        data = [large, large[::4, ::4]]
    elif kind == "lazy":
        data = da.from_array(large, chunks=(512, 512, 3))
    fields = fields_of(ViewerModel().add_image(data, **keywords))
    shown = count_fields(fields, CountRequest(str(tiny_model), "find", "cpu"), Silent(), ModelShelf()).review
    told = core_count(sources, str(tiny_model), "find", "cpu")
    expected = frame_cells(told.cells, told.scheme, ["smear.jpg"])
    assert len(expected) > 30
    assert list(shown.cells) == expected
    assert shown.info["um_per_pixel"] == told.images["um_per_pixel"].tolist()


def test_a_slide_on_disk_is_counted_as_the_command_counts_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened by napari as one array in memory; the file is a slide, so the core reads that, field by field."""
    monkeypatch.setattr(opening, "LARGE_PIXELS", 500_000)
    monkeypatch.setattr(opening, "SMALLEST_FILE", 0)
    patch = draw_smear(1, SmearSettings(width=512, height=512, um_per_pixel=0.25, cells=2)).image
    pixels = np.tile(patch, (2, 3, 1))
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    told = core_count(path, str(tiny_model), "find", "cpu")
    assert "slides" in told.run
    expected = frame_cells(told.cells, told.scheme, ["slide.tif"])
    assert len(expected) > 5
    request = CountRequest(str(tiny_model), "find", "cpu")
    known_file = {METADATA: {"paths": [str(path)], "images": ["slide.tif"]}}
    of_napari = ViewerModel().add_image(pixels, rgb=True, name="slide", metadata=known_file)
    lazy = ViewerModel().add_image([da.from_array(pixels), da.from_array(pixels[::2, ::2])], rgb=True, name="slide.tif")
    for layer, known in ((of_napari, True), (lazy, False)):
        fields = fields_of(layer)
        assert same_on_disk(fields) == known
        review = count_fields(fields, request, Silent(), ModelShelf()).review
        assert list(review.cells) == expected
        assert differential_of(review).where == "1 slide"
        assert report_input(review, fields).run["slides"] == list(fields.names)
    of_napari.data = np.ascontiguousarray(pixels[::-1])
    assert not same_on_disk(fields_of(of_napari)), "what was turned is not what lies on disk"


class Shelved:
    """An array that notes how much of it is asked for at once."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.shape, self.dtype, self.ndim, self.size = pixels.shape, pixels.dtype, pixels.ndim, pixels.size
        self.most = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self._pixels[key]
        self.most = max(self.most, part.size // 3)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:]


def test_a_slide_that_is_not_in_memory_is_never_read_as_a_whole(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LARGE_PIXELS", 500_000)
    monkeypatch.setattr(counting, "LARGE", 500_000)
    patch = draw_smear(1, SmearSettings(width=512, height=512, um_per_pixel=0.25, cells=2)).image
    pixels = np.tile(patch, (6, 3, 1))
    finest = Shelved(pixels)
    layer = ViewerModel().add_image([finest, Shelved(pixels[::4, ::4])], rgb=True, multiscale=True, name="slide")
    fields, request = fields_of(layer), CountRequest(str(tiny_model), "find", "cpu")
    finest.most = 0
    review = count_fields(fields, request, Silent(), ModelShelf()).review
    assert len(review.cells) > 15
    drawn = Cell(1, 0, 1, (100.0, 100.0, 160.0, 160.0), "unidentified", source="drawn")
    assert classify_boxes(fields, 0, [drawn], review.scheme, request, ModelShelf())[0].probabilities
    named = classify_boxes(fields, 0, [drawn], load_scheme("pbc8"), request, ModelShelf())[0]
    assert (named.probabilities, named.name) == ((), named.machine), "another model's review has other classes"
    with view_of(report_input(review, fields).load("slide")) as view:
        assert view.size == (1536, 3072)
        assert view.square((100, 100, 160, 160)).shape == (75, 75, 3)
    assert 0 < finest.most < 0.7 * pixels.size / 3, "two rows of fields, with their margins"


def test_a_count_of_large_photographs_stops_before_the_next_one(tiny_model: Path, field_image: np.ndarray) -> None:
    """The command and the window ask between two images, also where several are counted together."""

    class Impatient(Silent):
        asked = 0

        def cancelled(self) -> bool:
            self.asked += 1
            return self.asked > 3

    fields = fields_of(ViewerModel().add_image(np.stack([field_image] * 8), rgb=True, name="smear"))
    impatient = Impatient()
    with pytest.raises(Cancelled):
        count_fields(fields, CountRequest(str(tiny_model), "classical", "cpu"), impatient, ModelShelf())
    assert impatient.asked == 4


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
