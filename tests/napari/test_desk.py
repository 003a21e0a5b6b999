"""Layers, images and journals of one viewer: nothing of a review is lost, and none goes to another smear."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.key_bindings import KeymapHandler
from PIL import Image

from napari_bloodcells import write_voc
from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import write_cells
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.cell_shapes import cell_layer_data
from napari_bloodcells.napari.desk import Desk
from napari_bloodcells.napari.fields import fields_of
from napari_bloodcells.napari.journal import read_journal
from napari_bloodcells.napari.readers import read_cells_layers, read_voc_layers
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.series import image_layer
from napari_bloodcells.napari.tables import review_frame

SUFFIX = ".bloodcells.jsonl"


class Bench:
    """A desk with its viewer, and what it said."""

    def __init__(self) -> None:
        self.viewer = ViewerModel()
        self.said: list[str] = []
        self.desk = Desk(self.viewer, self.said.append)

    def open(self, *layers: Any) -> list[Layer]:
        """Add what a reader gives."""
        return [self.viewer.add_layer(Layer.create(*data)) for data in layers]

    def photographs(self, *paths: Path) -> Layer:
        """Open photographs as a series, or one of them."""
        return self.open(image_layer(list(paths)))[0]

    def count(self, image: Layer, make: Callable[..., Review], n: int = 3) -> Review:
        """What Run does with ``n`` cells on the fields of an image."""
        fields = fields_of(image)
        review = make(["neutrophil"] * n, fields.names)
        finish(self.desk.placing(review, fields))
        return self.of(image).review

    def restore(self, image: Layer) -> CellLayer | None:
        """What happens when an image is chosen."""
        finish(self.desk.restoring(image, fields_of(image)))
        return self.desk.of_image(image)

    def of(self, image: Layer) -> CellLayer:
        """The cells on an image."""
        cells = self.desk.of_image(image)
        assert cells is not None
        return cells


def finish(pieces: Iterable[None]) -> None:
    for _ in pieces:
        pass


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], Path]:
    """Draws a photograph of noise, another one for each name."""

    def drawn(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        noise = np.random.default_rng(len(list(tmp_path.rglob("*.png")))).integers(0, 255, (200, 400, 3), np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return drawn


def test_boxes_of_a_photograph_that_is_not_open_lie_on_no_other_and_leave_its_journal_alone(
    bench: Bench, photo: Any, make_review: Any, tmp_path: Path
) -> None:
    image = bench.photographs(photo("x/X.png"))
    review = bench.count(image, make_review)
    review.classify([1], "basophil")
    (tmp_path / "y").mkdir()
    write_cells(review_frame(make_review(["monocyte"] * 3, ("Y.png",))), tmp_path / "y" / "cells.csv")
    with pytest.warns(match="not where they were"):
        (layer,) = bench.open(*read_cells_layers(str(tmp_path / "y" / "cells.csv")))
    assert bench.desk.layers[layer].fields is None
    assert "not kept" in bench.said[-1]
    bench.desk.layers[layer].review.classify([2], "monocyte")
    review.classify([3], "eosinophil")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["X.png", f"X.png{SUFFIX}"]
    kept = read_journal(tmp_path / "x" / f"X.png{SUFFIX}")
    assert [c.name for c in kept.cells] == ["basophil", "neutrophil", "eosinophil"]


def test_cells_of_two_photographs_of_one_name_stay_apart_when_they_are_adopted_later(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    images = [bench.photographs(photo(f"{folder}/a.png")) for folder in "xy"]
    for image, name in zip(images, ("basophil", "monocyte"), strict=True):
        bench.count(image, make_review).classify([1], name)
    bench.desk.close()
    bench.desk = Desk(bench.viewer, bench.said.append)  # the widget is closed and opened again
    for layer in list(bench.viewer.layers):
        bench.desk.adopt(layer)
    assert [bench.of(image).review.cell(1).name for image in images] == ["basophil", "monocyte"]


def test_an_image_that_was_renamed_keeps_its_review_in_the_next_run_and_the_next_widget(
    bench: Bench, make_review: Any
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8)
    image = bench.viewer.add_image(noise, rgb=True, name="smear")
    bench.count(image, make_review).classify([1], "basophil")
    image.name = "patient 7"
    again = bench.count(image, make_review)
    assert again.cell(1).name == "basophil"
    again.classify([2], "monocyte")
    image.name = "patient 8"
    bench.desk.close()
    bench.desk = Desk(bench.viewer, bench.said.append)
    for layer in list(bench.viewer.layers):
        bench.desk.adopt(layer)
    assert [c.name for c in bench.of(image).review.cells if c.reviewed] == ["basophil", "monocyte"]
    assert not bench.said[-1].endswith("save the layer.")


def test_the_review_of_a_voc_file_is_there_when_it_is_opened_again_and_its_journal_goes_on(
    photo: Any, tmp_path: Path
) -> None:
    path = photo("x/a.png")
    xyxy = np.array([[10, 10, 50, 50], [70, 10, 110, 50], [130, 10, 140, 20]], np.float32)
    xml = write_voc(
        path.with_suffix(".xml"), Boxes(xyxy, ("WBC", "WBC", "RBC")), image=path.name, width=400, height=200
    )
    for turn, name in enumerate(("basophil", "monocyte")):
        bench = Bench()
        image, layer = bench.open(*read_voc_layers(str(xml)))
        cells = bench.of(image)
        assert cells.layer is layer
        assert [c.name for c in cells.review.cells if c.reviewed] == ["basophil"] * turn
        assert list(layer.features["class"]) == [c.name for c in cells.review.cells]
        assert [c.name for c in cells.review.cells][2] == "RBC"
        cells.review.classify([turn + 1], name)
    assert "1 reviewed cell." in " ".join(bench.said)
    assert sorted(p.name for p in path.parent.glob("*jsonl*")) == [f"a.png{SUFFIX}"]
    kept = read_journal(path.with_name(f"a.png{SUFFIX}"))
    assert [c.name for c in kept.cells if c.reviewed] == ["basophil", "monocyte"]


def test_a_table_of_a_new_count_takes_over_the_kept_review_with_its_deletions(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    path = photo("a.png")
    review = bench.count(bench.photographs(path), make_review)
    review.classify([1], "basophil")
    review.remove([2])
    review.move({3: (150.0, 30.0, 180.0, 60.0)})
    review.add(0, [(250.0, 10.0, 290.0, 50.0)], "eosinophil")
    expected = [(c.name, c.box) for c in review.cells]
    other = Bench()
    (image,) = other.open(image_layer([path]))
    fresh = make_review(["neutrophil"] * 3, ("a.png",), info={"image_layer": "a.png"})
    shapes, keywords = cell_layer_data(fresh, "a.png cells", False, image)
    layer = other.viewer.add_shapes(shapes, **keywords)
    assert [(c.name, c.box) for c in other.of(image).review.cells] == expected
    assert layer.nshapes == 3
    assert layer.metadata == keywords["metadata"]


@pytest.mark.parametrize("change", ["added", "taken away", "moved"])
def test_the_review_of_a_series_is_kept_when_its_photographs_change(
    photo: Any, make_review: Any, tmp_path: Path, change: str
) -> None:
    paths = [photo(f"s/{n}.png") for n in "abc"]
    bench = Bench()
    review = bench.count(bench.photographs(*paths), make_review)
    review.confirm([1, 2])
    review.classify([3], "basophil")
    if change == "added":
        paths.insert(0, photo("s/0.png"))
    elif change == "taken away":
        paths = paths[1:]
    else:
        shutil.move(tmp_path / "s", tmp_path / "t")
        paths = [tmp_path / "t" / p.name for p in paths[1:]]
    expected = {"b.png": "neutrophil", "c.png": "basophil"} | ({"a.png": "neutrophil"} if change == "added" else {})
    other = Bench()
    image = other.photographs(*paths)
    cells = other.restore(image)
    assert cells is not None
    assert {cells.review.images[c.image]: c.name for c in cells.review.cells if c.reviewed} == expected
    assert [int(shape[0, 0]) for shape in cells.layer.data] == [c.image for c in cells.review.cells]
    again = other.count(image, make_review, len(paths))
    assert {again.images[c.image]: c.name for c in again.cells if c.reviewed} == expected


def test_a_photograph_takes_its_cells_from_the_journal_that_was_written_last(
    photo: Any, make_review: Any, tmp_path: Path
) -> None:
    a, b = photo("a.png"), photo("b.png")
    bench = Bench()
    series = bench.photographs(a, b)
    bench.count(series, make_review, 2).classify([1, 2], "basophil")
    alone = bench.photographs(a)
    cells = bench.restore(alone)
    assert cells is not None
    cells.review.classify([1], "monocyte")
    again = Bench()
    cells = again.restore(again.photographs(a, b))
    assert cells is not None
    assert [c.name for c in cells.review.cells] == ["monocyte", "basophil"]


def test_another_photograph_of_the_same_name_does_not_get_the_review(photo: Any, make_review: Any) -> None:
    path = photo("a.png")
    bench = Bench()
    bench.count(bench.photographs(path), make_review).classify([1], "basophil")
    photo("b.png").replace(path)  # as cameras number anew
    other = Bench()
    image = other.photographs(path)
    assert other.restore(image) is None
    assert not any(c.reviewed for c in other.count(image, make_review).cells)
    assert read_journal(path.with_name(f"a.png{SUFFIX}~1")).cell(1).name == "basophil"


def test_a_copy_of_a_cell_layer_does_not_write_into_the_journal_of_the_first(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    path = photo("a.png")
    review = bench.count(bench.photographs(path), make_review)
    review.classify([1], "basophil")
    (first,) = bench.desk.layers
    copy = bench.viewer.add_layer(Layer.create(*first.as_layer_data_tuple()))
    assert "open twice" in bench.said[-1]
    bench.desk.layers[copy].review.classify([2], "monocyte")
    review.classify([3], "eosinophil")
    assert [p.name for p in path.parent.glob("*jsonl*")] == [f"a.png{SUFFIX}"]
    kept = read_journal(path.with_name(f"a.png{SUFFIX}"))
    assert [c.name for c in kept.cells] == ["basophil", "neutrophil", "eosinophil"]


def test_a_copy_of_a_cell_layer_is_kept_when_the_first_was_removed(bench: Bench, photo: Any, make_review: Any) -> None:
    path = photo("a.png")
    review = bench.count(bench.photographs(path), make_review)
    review.classify([1], "basophil")
    (first,) = bench.desk.layers
    copy = bench.viewer.add_layer(Layer.create(*first.as_layer_data_tuple()))
    review.classify([3], "eosinophil")
    bench.viewer.layers.remove(first)
    assert "kept from now on" in bench.said[-1]
    journal = path.with_name(f"a.png{SUFFIX}")
    assert [c.name for c in read_journal(journal).cells] == ["basophil", "neutrophil", "eosinophil"]
    bench.desk.layers[copy].review.classify([2], "monocyte")
    assert [c.name for c in read_journal(journal).cells] == ["basophil", "monocyte", "neutrophil"]
    aside = journal.with_name(f"{journal.name}~1")
    assert [c.name for c in read_journal(aside).cells] == ["basophil", "neutrophil", "eosinophil"]


def test_a_viewer_that_is_emptied_leaves_the_journal_to_the_first_of_two_layers(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    path = photo("a.png")
    review = bench.count(bench.photographs(path), make_review)
    (first,) = bench.desk.layers
    bench.viewer.add_layer(Layer.create(*first.as_layer_data_tuple()))
    review.classify([3], "eosinophil")
    bench.viewer.layers.clear()
    assert [p.name for p in path.parent.glob("*jsonl*")] == [f"a.png{SUFFIX}"]
    cells = bench.restore(bench.photographs(path))
    assert cells is not None
    assert cells.review.cell(3).name == "eosinophil"


def test_one_file_opened_as_two_images_has_one_journal(bench: Bench, photo: Any, make_review: Any) -> None:
    path = photo("a.png")
    images = [bench.photographs(path) for _ in range(2)]
    review = bench.count(images[0], make_review)
    review.classify([1], "basophil")
    second = bench.count(images[1], make_review)
    assert second.cell(1).name == "basophil"
    assert "open twice" in bench.said[-1]
    second.classify([2], "monocyte")
    review.classify([3], "eosinophil")
    kept = read_journal(path.with_name(f"a.png{SUFFIX}"))
    assert [c.name for c in kept.cells] == ["basophil", "neutrophil", "eosinophil"]


def test_a_key_while_cells_are_being_put_on_the_canvas_changes_nothing_and_says_so(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    image = bench.photographs(photo("a.png"))
    review = bench.count(image, make_review)
    review.select([1])
    cells = [Cell(k, 0, k, (10.0, 10.0, 50.0, 50.0), "neutrophil", "neutrophil") for k in range(1, 601)]
    fields = fields_of(image)
    pieces = bench.desk.placing(Review(review.scheme, fields.names, cells), fields)
    (layer,) = bench.desk.layers
    next(pieces)
    next(pieces)
    for key in ("M", "Delete", "3"):
        press(layer, key)
    assert not review.cell(1).reviewed
    assert "just being put on the canvas" in bench.said[-1]
    finish(pieces)
    assert layer.nshapes == 600
    bench.of(image).review.select([1])
    press(layer, "M")
    assert bench.of(image).review.cell(1).name == "monocyte"


def test_a_second_run_with_a_model_of_fewer_classes_shows_its_cells(bench: Bench, photo: Any, make_review: Any) -> None:
    image = bench.photographs(photo("a.png"))
    review = bench.count(image, make_review)
    review.classify([1], "basophil")
    review.move({2: (300.0, 100.0, 340.0, 140.0)})
    scheme, fields = load_scheme("wbc4"), fields_of(image)
    p = (1.0, 0.0, 0.0, 0.0)
    found = [Cell(1, 0, 1, (10.0, 20.0, 50.0, 60.0), scheme.names[0], scheme.names[0], 1.0, p)]
    finish(bench.desk.placing(Review(scheme, fields.names, found), fields))
    cells = bench.of(image)
    assert cells.layer.nshapes == 2
    assert [c.name for c in cells.review.cells] == ["unidentified", "neutrophil"]
    assert "1 unidentified" in bench.said[-1]


def test_nothing_can_be_drawn_on_a_layer_until_its_cells_are_there(bench: Bench, photo: Any, make_review: Any) -> None:
    image = bench.photographs(photo("a.png"))
    cells = [Cell(k, 0, k, (10.0, 10.0, 50.0, 50.0), "neutrophil") for k in range(1, 601)]
    fields = fields_of(image)
    pieces = bench.desk.placing(Review(load_scheme("wbc5"), fields.names, cells), fields)
    for _ in range(3):
        next(pieces)
    layer = bench.viewer.layers["a.png cells"]
    layer.mode = "add_rectangle"
    assert str(layer.mode) == "pan_zoom"
    finish(pieces)
    assert str(layer.mode) == "select"


def press(layer: Layer, key: str) -> None:
    """What napari calls for a key on this layer."""
    handler = KeymapHandler()
    handler.keymap_providers = [layer]
    handler.press_key(key)
    handler.release_key(key)


def test_cells_that_stayed_when_their_image_was_removed_lie_on_it_when_it_is_opened_again(
    bench: Bench, photo: Any, make_review: Any
) -> None:
    path = photo("a.png")
    image = bench.photographs(path)
    review = bench.count(image, make_review)
    review.classify([1], "basophil")
    bench.viewer.layers.remove(image)
    again = bench.photographs(path)
    cells = bench.restore(again)
    assert cells is not None
    assert cells.review is review
    new = bench.count(again, make_review)
    assert new.cell(1).name == "basophil"
    new.classify([2], "monocyte")
    kept = read_journal(path.with_name(f"a.png{SUFFIX}"))
    assert [c.name for c in kept.cells] == ["basophil", "monocyte", "neutrophil"]
    assert not any("open twice" in said for said in bench.said)
