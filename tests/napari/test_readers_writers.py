"""Readers, writers and samples: files on disk become layers and layers become files, nothing lost or overwritten."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt

from napari_bloodcells import read_voc
from napari_bloodcells.core.classes import scheme_data
from napari_bloodcells.core.counting.cellstable import apply_corrections, read_cells, read_corrections, write_cells
from napari_bloodcells.core.errors import DataWarning, ImageError
from napari_bloodcells.napari import samples
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.cell_shapes import cell_layer_data
from napari_bloodcells.napari.desk import Desk
from napari_bloodcells.napari.fields import fields_of
from napari_bloodcells.napari.geometry import box_of, rectangle
from napari_bloodcells.napari.readers import cells_reader, folder_reader, voc_reader
from napari_bloodcells.napari.tables import review_frame, review_of_frame
from napari_bloodcells.napari.writers import write_cells_layer, write_coco_layer, write_voc_layer


def opened(reader: Any, path: Path) -> list[Layer]:
    read = reader(str(path))
    assert read is not None
    return [Layer.create(*data) for data in read(str(path))]


@pytest.fixture
def smear_folder(tmp_path: Path, make_review: Any) -> tuple[Path, Any]:
    """Two photographs of two sizes and the reviewed ``cells.csv`` of their count beside them."""
    from PIL import Image

    folder = tmp_path / "smears"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (90, 300)), ("b.png", (120, 260))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / name)
    review = make_review(["neutrophil", "lymphocyte", "monocyte"], ("a.png", "b.png"))
    review.classify([3], "basophil")
    review.add(1, [(100.0, 50.0, 140.0, 91.5)], "eosinophil")
    output = tmp_path / "smears-differential"
    output.mkdir()
    write_cells(review_frame(review), output / "cells.csv")
    return folder, review


@pytest.mark.data
def test_a_bccd_annotation_opens_with_its_image_and_its_boxes(shared_data: Path) -> None:
    image, shapes = opened(voc_reader, shared_data / "bccd" / "Annotations" / "BloodImage_00000.xml")
    truth = read_voc(shared_data / "bccd" / "Annotations" / "BloodImage_00000.xml")
    assert (image.name, image.data.shape) == ("BloodImage_00000.jpg", (480, 640, 3))
    assert [box_of(s) for s in shapes.data] == [tuple(map(float, box)) for box in truth.boxes.xyxy]
    assert box_of(shapes.data[0]) == (260, 177, 491, 376)
    assert list(shapes.features["class"])[:2] == ["unidentified", "RBC"]


def test_a_former_count_comes_back_with_its_images_and_every_correction(smear_folder: tuple[Path, Any]) -> None:
    folder, review = smear_folder
    image, shapes = opened(cells_reader, folder.with_name("smears-differential") / "cells.csv")
    assert image.data.shape == (2, 120, 300, 3)
    assert fields_of(image).sizes == ((90, 300), (120, 260))
    back = review_of_frame(shapes.features, review.images)
    assert [repr(c) for c in back.cells] == [repr(c) for c in review.cells]
    assert [box_of(s) for s in shapes.data] == [c.box for c in review.cells]
    assert [int(s[0, 0]) for s in shapes.data] == [c.image for c in review.cells]


def test_a_former_count_has_the_classes_of_the_model_that_counted(smear_folder: tuple[Path, Any]) -> None:
    """Of a model that is not installed: its monocytes are called white cells by nobody else."""
    folder, review = smear_folder
    table = folder.with_name("smears-differential") / "cells.csv"
    scheme = scheme_data(review.scheme)
    scheme["classes"][4]["kind"] = "other"
    (table.parent / "run.json").write_text(json.dumps({"input": str(folder), "model": {"scheme": scheme}}))
    viewer = ViewerModel()
    desk = Desk(viewer, print)
    _, shapes = opened(cells_reader, table)
    cells = desk.layers.get(viewer.add_layer(shapes))
    assert cells is not None
    assert {c.name: c.kind for c in cells.review.scheme.classes}["monocyte"] == "other"
    desk.close()


@pytest.mark.gui
def test_a_former_count_opened_in_the_window_is_the_same_review_and_digits_delete_nothing(
    smear_folder: tuple[Path, Any], make_napari_viewer: Any, wait_for: Any, press: Any, shoot: Any
) -> None:
    folder, review = smear_folder
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    _, widget = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Differential count")
    viewer.open(str(folder.with_name("smears-differential") / "cells.csv"), plugin="napari-bloodcells")
    wait_for(lambda: widget.cells is not None and not widget.turns.are_going)
    shown = widget.cells.review
    assert [repr(c) for c in shown.cells] == [repr(c) for c in review.cells]
    shown.select([1])
    press(viewer, *(getattr(Qt.Key, f"Key_{digit}") for digit in range(10)))
    assert widget.cells.layer.nshapes == len(review.cells)
    assert str(widget.cells.layer.mode) == "select"
    assert "Keys: " in widget.run_bar.said.text()
    viewer.reset_view()
    shoot(viewer, "former_count", widget)


@pytest.mark.data
@pytest.mark.gui
def test_a_bccd_annotation_is_seen_in_the_window(shared_data: Path, make_napari_viewer: Any, shoot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.open(str(shared_data / "bccd" / "Annotations" / "BloodImage_00000.xml"), plugin="napari-bloodcells")
    assert [layer.name for layer in viewer.layers] == ["BloodImage_00000.jpg", "BloodImage_00000.jpg cells"]
    shoot(viewer, "bccd_annotation")


def test_a_count_whose_images_are_gone_still_shows_its_boxes(smear_folder: tuple[Path, Any]) -> None:
    folder, review = smear_folder
    for file in folder.iterdir():
        file.unlink()
    with pytest.warns(DataWarning, match="not where they were"):
        (shapes,) = opened(cells_reader, folder.with_name("smears-differential") / "cells.csv")
    assert len(shapes.data) == len(review)


def test_a_folder_is_a_series_whose_planes_are_read_when_they_are_seen(smear_folder: tuple[Path, Any]) -> None:
    from napari_bloodcells.core.images import read_image

    folder, _ = smear_folder
    (folder / "c.png").write_bytes(b"no image")
    with pytest.warns(DataWarning, match=r"c\.png"):
        (series,) = opened(folder_reader, folder)
    fields = fields_of(series)
    assert fields.names == ("a.png", "b.png")
    assert np.array_equal(fields.read(0), read_image(folder / "a.png"))
    assert np.asarray(series.data[0])[100, 10].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("name", "text", "reader"),
    [("a.xml", "<html/>", voc_reader), ("cells.csv", "a,b\n1,2\n", cells_reader), ("empty", None, folder_reader)],
)
def test_what_is_something_else_is_left_to_other_readers(
    tmp_path: Path, name: str, text: str | None, reader: Any
) -> None:
    path = tmp_path / name
    path.mkdir() if text is None else path.write_text(text)
    assert reader(str(path)) is None


def layer_of(review: Any, series: bool = True) -> Layer:
    data, keywords = cell_layer_data(review, "cells", series)
    return Layer.create(data, keywords, "shapes")


def test_cells_csv_written_and_read_again_is_the_same_review(make_review: Any, tmp_path: Path) -> None:
    review = make_review(["neutrophil", "monocyte", "basophil"], ("a.png", "b.png"))
    review.classify([1], "eosinophil")
    layer = layer_of(review)
    (path,) = write_cells_layer(str(tmp_path / "cells.csv"), layer.data, layer.as_layer_data_tuple()[1])
    back = review_of_frame(read_cells(path), review.images)
    assert [repr(c) for c in back.cells] == [repr(c) for c in review.cells]


def test_voc_of_a_series_is_one_file_a_field_without_what_is_no_wbc(make_review: Any, tmp_path: Path) -> None:
    review = make_review(["neutrophil", "monocyte", "basophil"], ("a.png", "b.png"), info={"sizes": [[90, 300]] * 2})
    review.classify([3], "not a WBC")
    review.classify([2], "unidentified")
    layer = layer_of(review)
    files = write_voc_layer(str(tmp_path / "x.xml"), layer.data, layer.as_layer_data_tuple()[1])
    assert [Path(f).name for f in files] == ["x_a.xml", "x_b.xml"]
    first, second = (read_voc(f) for f in files)
    assert (first.boxes.labels, second.boxes.labels) == (("neutrophil",), ("WBC",))
    assert (first.width, first.height, first.filename) == (300, 90, "a.png")
    assert tuple(map(float, first.boxes.xyxy[0])) == review.cell(1).box


def test_voc_files_of_fields_that_differ_in_the_suffix_or_the_folder_alone(make_review: Any, tmp_path: Path) -> None:
    names = ("a.jpg", "a.png", "a/b.png", "a_b.png", "c.png")
    review = make_review(["neutrophil"] * 5, names, info={"sizes": [[90, 400]] * 5})
    layer = layer_of(review)
    files = write_voc_layer(str(tmp_path / "x.xml"), layer.data, layer.as_layer_data_tuple()[1])
    assert [read_voc(f).filename for f in files] == [Path(name).name for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(f).name for f in files)
    assert Path(files[-1]).name == "x_c.xml"


def test_a_box_moved_on_the_canvas_is_written_where_it_lies(make_review: Any, tmp_path: Path) -> None:
    layer = layer_of(make_review(["neutrophil"]), series=False)
    layer.data = [rectangle((1, 2, 31, 42))]
    (path,) = write_cells_layer(str(tmp_path / "cells.csv"), layer.data, layer.as_layer_data_tuple()[1])
    assert read_cells(path)[["x_min", "y_min", "x_max", "y_max"]].iloc[0].tolist() == [1, 2, 31, 42]


def test_coco_holds_every_box(make_review: Any, tmp_path: Path) -> None:
    review = make_review(["neutrophil", "monocyte"])
    layer = layer_of(review, series=False)
    (path,) = write_coco_layer(str(tmp_path / "cells.json"), layer.data, layer.as_layer_data_tuple()[1])
    coco = json.loads(Path(path).read_text())
    assert [a["bbox"] for a in coco["annotations"]] == [[10, 20, 40, 40], [70, 20, 40, 40]]
    names = {c["id"]: c["name"] for c in coco["categories"]}
    assert [names[a["category_id"]] for a in coco["annotations"]] == ["neutrophil", "monocyte"]


def test_shapes_drawn_without_the_plugin_can_be_saved_too(tmp_path: Path) -> None:
    layer = ViewerModel().add_shapes([rectangle((1, 2, 31, 42))], shape_type="rectangle", name="mine")
    (path,) = write_voc_layer(str(tmp_path / "x.xml"), layer.data, layer.as_layer_data_tuple()[1])
    assert read_voc(path).boxes.labels == ("WBC",)


def test_a_file_that_is_there_is_put_aside_not_overwritten(make_review: Any, tmp_path: Path) -> None:
    layer = layer_of(make_review(["neutrophil"]), series=False)
    target = tmp_path / "BloodImage.xml"
    target.write_text("the user's own")
    write_voc_layer(str(target), layer.data, layer.as_layer_data_tuple()[1])
    write_voc_layer(str(target), layer.data, layer.as_layer_data_tuple()[1])
    assert (tmp_path / "BloodImage.xml~1").read_text() == "the user's own"
    assert (tmp_path / "BloodImage.xml~2").exists()


def test_the_drawn_sample_brings_its_truth() -> None:
    image, truth = (Layer.create(*data) for data in samples.synthetic_smear())
    assert tuple(truth.features["truth"]) == samples.CELLS
    assert len(truth.data) == len(samples.CELLS)
    assert not truth.visible
    assert fields_of(image).sizes == ((750, 1000),)


@pytest.mark.data
def test_the_bccd_sample_comes_from_a_local_mirror(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_DATA", str(shared_data))
    (series,) = (Layer.create(*data) for data in samples.bccd_fields())
    assert series.data.shape == (6, 480, 640, 3)


def test_without_mirror_and_network_the_bccd_sample_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.delenv("BLOODCELLS_DATA", raising=False)
    monkeypatch.setattr(pooch.Pooch, "fetch", offline)
    with pytest.raises(ImageError, match="BLOODCELLS_DATA"):
        samples.bccd_fields()


@pytest.mark.parametrize(
    ("data", "rgb", "words"),
    [
        (np.zeros((20, 30), np.uint8), False, "grey image"),
        (np.zeros((20, 30, 3), np.uint8), True, "grey image"),
        (np.zeros((2, 2, 20, 30, 3), np.uint8), True, "axes"),
    ],
)
def test_what_is_no_color_photograph_is_refused_in_words(data: np.ndarray, rgb: bool, words: str) -> None:
    layer = ViewerModel().add_image(data, rgb=rgb)
    with pytest.raises(ImageError, match=words):
        fields_of(layer)


@pytest.mark.parametrize("kind", ["uint8", "float32", "uint16", "multiscale", "rgba"])
def test_images_of_every_kind_come_as_the_same_field(field_image: np.ndarray, kind: str) -> None:
    made: dict[str, Any] = {
        "uint8": field_image,
        "float32": field_image.astype(np.float32) / 255,
        "uint16": field_image.astype(np.uint16) * 257,
        "multiscale": [field_image, field_image[::2, ::2]],
        "rgba": np.dstack([field_image, np.full(field_image.shape[:2], 255, np.uint8)]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = ViewerModel().add_image(made[kind], rgb=True)
    read = fields_of(layer).read(0)
    assert read.shape == field_image.shape
    assert np.abs(read.astype(int) - field_image).max() <= 1


def test_a_table_that_the_plugin_saved_tells_the_command_of_deleted_drawn_and_moved_cells(
    make_review: Any, tmp_path: Path
) -> None:
    review = make_review(["neutrophil", "lymphocyte", "monocyte"])
    counted = review_frame(review).drop(columns=["machine_class", "reviewed", "reviewer", "time"])
    viewer = ViewerModel()
    data, keywords = cell_layer_data(review, "cells", False)
    cells = CellLayer(viewer, viewer.add_shapes(data, **keywords), review)
    review.remove([3])
    review.add(0, [(300.0, 20.0, 340.0, 60.0)], "basophil")
    review.move({1: (12.0, 20.0, 52.0, 60.0)})
    written = write_cells_layer(str(tmp_path / "my.csv"), cells.layer.data, cells.layer.as_layer_data_tuple()[1])
    fixed = apply_corrections(counted, read_corrections(written[0], review.scheme))
    assert fixed["cell"].tolist() == [1, 2, 3, 4]
    assert fixed["class"].tolist() == ["neutrophil", "lymphocyte", "not a WBC", "basophil"]
    assert fixed["x_min"].tolist() == [12, 70, 130, 300]
    assert fixed["reviewed"].tolist() == [True, False, True, True]
    review.undo()
    review.undo()
    review.undo()
    assert not cells.layer.metadata["bloodcells"]["deleted"]
