"""Evaluation: what it counts right, what it leaves out, and how cells of fields and whole images are cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.cellstable import read_cells, write_cells
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.output import write_tables
from napari_bloodcells.core.crops import CropSpec, cut_crops
from napari_bloodcells.core.datasets import DataSet, Sample, load_dataset
from napari_bloodcells.core.errors import DataSetError, OutputError, UsageError
from napari_bloodcells.core.evaluate import evaluate, match_box
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.voc import write_voc
from napari_bloodcells.synthetic import SmearSettings, draw_smear


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model, "cpu")


@pytest.fixture
def field(tmp_path: Path) -> tuple[Path, list[tuple[float, float, float, float]]]:
    """One field with four disks of different colors, and their boxes."""
    image = np.full((120, 400, 3), 235, np.uint8)
    boxes = []
    for i, color in enumerate([(90, 40, 150), (200, 60, 60), (40, 40, 200), (60, 120, 60)]):
        x = 20 + 95 * i
        image[30:90, x : x + 60] = color
        boxes.append((float(x), 30.0, float(x + 60), 90.0))
    Image.fromarray(image).save(tmp_path / "field.png")
    return tmp_path / "field.png", boxes


def dataset(path: Path, boxes: list[tuple[float, float, float, float]], labels: list[str | None]) -> DataSet:
    samples = tuple(
        Sample(path, box, label, f"g{i}", "drawn") for i, (box, label) in enumerate(zip(boxes, labels, strict=True))
    )
    return DataSet("drawn", path.parent, samples, "table")


def what_it_says(model: Model, path: Path, boxes: list[tuple[float, float, float, float]]) -> list[str]:
    crops = cut_crops(read_image(path), np.array(boxes, np.float32), model.info.crop)
    return [model.info.class_names[i] for i in model.predict(crops).probabilities.argmax(1)]


def test_labels_that_are_the_models_own_answers_are_all_right(
    model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]
) -> None:
    said = what_it_says(model, *field)
    found = evaluate(model, dataset(*field, list(said)))
    assert found.scores["accuracy"].value == 1.0
    names = model.info.class_names
    swapped = [names[(names.index(label) + 1) % 5] for label in said]
    assert evaluate(model, dataset(*field, list(swapped))).scores["accuracy"].value == 0.0


def test_the_probabilities_are_those_of_a_count(
    model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]
) -> None:
    found = evaluate(model, dataset(*field, ["neutrophil"] * 4))
    crops = cut_crops(read_image(field[0]), np.array(field[1], np.float32), model.info.crop)
    assert np.array_equal(found.probabilities, model.predict(crops).probabilities)
    assert found.images == ("field.png",) * 4


@pytest.mark.parametrize("scale", ["image", "box", "um"])
def test_a_whole_image_is_cut_alike_in_evaluation_and_count(model: Model, tmp_path: Path, scale: Any) -> None:
    """The networks that read whole images get the whole image, the others the cell in its middle, in both."""
    image = np.full((90, 120, 3), 240, np.uint8)
    image[30:70, 40:85] = (90, 50, 140)
    image[:, :15] = (60, 160, 90)
    Image.fromarray(image).save(tmp_path / "cell.png")
    reads = Model(model.info.model_copy(update={"crop": CropSpec(scale=scale)}), model.module, None, "cpu")
    data = DataSet("one", tmp_path, (Sample(tmp_path / "cell.png", None, "neutrophil", "g", "one"),), "tree")
    evaluated = evaluate(reads, data).probabilities[0]
    counted = count([tmp_path / "cell.png"], model=reads, boxes="whole").cells.iloc[0]
    assert [counted[f"p_{name}"] for name in model.info.class_names] == pytest.approx(evaluated, abs=1e-4)
    whole = [counted[side] for side in ("x_min", "y_min", "x_max", "y_max")] == [0, 0, 120, 90]
    assert whole == (scale == "image")


@pytest.fixture
def white_only(tmp_path: Path) -> Path:
    """A folder with one drawn field at 0.2 um a pixel, whose VOC XML has boxes of white cells only."""
    kinds = ("neutrophil", "lymphocyte", "monocyte")
    smear = draw_smear(5, SmearSettings(width=480, height=360, um_per_pixel=0.2, cells=kinds))
    folder = tmp_path / "fields"
    folder.mkdir()
    Image.fromarray(smear.image).save(folder / "f.png")
    write_voc(folder / "f.xml", smear.boxes, image="f.png", width=480, height=360)
    return folder


def test_a_field_without_red_boxes_is_cut_alike_in_evaluation_and_count(model: Model, white_only: Path) -> None:
    evaluated = evaluate(model, white_only).probabilities
    counted = count(white_only, model, "xml", "cpu")
    columns = [f"p_{name}" for name in model.info.class_names]
    assert np.array_equal(counted.cells[columns].to_numpy(), evaluated.astype(float).round(4))
    (field,) = load_dataset(white_only).fields
    unmeasured = cut_crops(read_image(field.image), field.boxes.xyxy, model.info.crop)
    assert not np.allclose(model.predict(unmeasured).probabilities, evaluated)


def test_a_corrected_table_takes_its_scale_from_the_count_beside_it(
    model: Model, white_only: Path, tmp_path: Path
) -> None:
    """Also where the scale was given by hand; what nobody looked at is no label."""
    counted = count(white_only, model, "xml", "cpu", options=CountOptions(um_per_pixel=0.15))
    cells = counted.cells.assign(**{"class": "monocyte", "reviewed": [True, False, True]})
    folder = tmp_path / "corrected"
    folder.mkdir()
    (folder / "f.png").write_bytes((white_only / "f.png").read_bytes())
    write_cells(cells, folder / "cells.csv")
    assert {s.um_per_pixel for s in load_dataset(folder).samples} == {None}
    counted.images.to_csv(folder / "images.csv", index=False)
    data = load_dataset(folder)
    assert {s.um_per_pixel for s in data.samples} == {0.15}
    assert [s.sure for s in data.samples] == [True, False, True]
    columns = [f"p_{name}" for name in model.info.class_names]
    assert evaluate(model, data).probabilities == pytest.approx(cells[columns].to_numpy()[[0, 2]], abs=1e-3)


@pytest.mark.parametrize("name", ["-1.png", "=a.png", "@a.png", "'-1.png", "a.png"])
def test_a_corrected_table_means_images_that_a_spreadsheet_would_take_for_formulas(
    model: Model, white_only: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / name).write_bytes((white_only / "f.png").read_bytes())
    (tmp_path / "odd" / f"{Path(name).stem}.xml").write_bytes((white_only / "f.xml").read_bytes())
    counted = count(tmp_path / "odd", model, "xml", "cpu", options=CountOptions(um_per_pixel=0.15))
    write_tables(counted, tmp_path / "out")
    cells = read_cells(tmp_path / "out" / "cells.csv")
    write_cells(cells.assign(**{"class": "-smudgy", "reviewed": 1}), tmp_path / "odd" / "cells.csv")
    (tmp_path / "odd" / "images.csv").write_bytes((tmp_path / "out" / "images.csv").read_bytes())
    found = load_dataset(tmp_path / "odd")
    assert found.problems == ()
    assert [(s.image.name, s.label, s.um_per_pixel) for s in found.samples] == [(name, "-smudgy", 0.15)] * 3


def test_what_is_left_out_is_said(model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]) -> None:
    data = dataset(*field, ["neutrophil", None, "platelet", "Lymphocytes"])
    unsure = replace(data, samples=(replace(data.samples[0], sure=False), *data.samples[1:]))
    found = evaluate(model, unsure)
    assert found.left_out == {"no label of the model's classes": 2, "label not sure": 1}
    assert found.scores.n == 1
    assert found.truth.tolist() == [load_scheme("wbc5").index("lymphocyte")]


def test_cells_below_the_threshold_are_apart(
    model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]
) -> None:
    data = dataset(*field, ["neutrophil", "eosinophil", "basophil", "lymphocyte"])
    sure = evaluate(model, data).probabilities.max(1)
    limit = float(np.sort(sure)[1:3].mean())
    strict = Model(model.info.model_copy(update={"min_confidence": limit}), model.module, None, "cpu")
    found = evaluate(strict, data)
    assert found.scores.n == 4
    assert found.identified.n == int((sure >= limit).sum()) == 2


def test_copies_of_one_original_are_one_group(
    model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]
) -> None:
    data = dataset(*field, ["neutrophil"] * 4)
    together = replace(data, samples=tuple(replace(s, group="one") for s in data.samples))
    assert evaluate(model, data).scores.groups == 4
    assert evaluate(model, together).scores.groups == 1


def test_the_report_is_json_and_is_not_overwritten(
    model: Model, field: tuple[Path, list[tuple[float, float, float, float]]], tmp_path: Path
) -> None:
    found = evaluate(model, dataset(*field, ["neutrophil"] * 4))
    report = json.loads(found.to_json(tmp_path / "report.json").read_text())
    assert report["cells"] == 4
    assert report["sha256"] == model.info.sha256
    assert set(report["all_cells"]["overall"]["accuracy"]) == {"value", "low", "high", "n"}
    with pytest.raises(OutputError, match="already"):
        found.to_json(tmp_path / "report.json")


def test_only_a_part_is_measured(model: Model, field: tuple[Path, list[tuple[float, float, float, float]]]) -> None:
    data = dataset(*field, ["neutrophil"] * 4)
    parted = replace(
        data, samples=tuple(replace(s, split="TEST" if i else "TRAIN") for i, s in enumerate(data.samples))
    )
    assert evaluate(model, parted, part="test").scores.n == 3
    with pytest.raises(DataSetError, match="no cell in part val"):
        evaluate(model, parted, part="val")


def test_boxes_of_another_kind_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="auto or find"):
        evaluate(model, tmp_path, boxes="guess")


BOXES = np.array([[60, 60, 90, 90], [12, 8, 50, 46], [0, 0, 100, 100]], np.float32)
MATCHES: list[tuple[tuple[float, float, float, float] | None, int | None]] = [
    ((10, 10, 50, 50), 1),
    ((58, 62, 92, 88), 0),
    ((80, 0, 100, 20), None),
    (None, 2),
]


@pytest.mark.parametrize(("box", "at"), MATCHES)
def test_a_found_box_is_matched_by_its_center(box: tuple[float, float, float, float] | None, at: int | None) -> None:
    assert match_box(box, BOXES, 100, 100) == at


def test_nothing_found_matches_nothing() -> None:
    assert match_box(None, np.zeros((0, 4), np.float32), 10, 10) is None
