"""Folders as strangers leave them: rows without images, unknown numbers, no tables; all is named, nothing is fatal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.calibrate import calibrate, refit
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import DataSet, Sample, load_dataset, open_datasets, tables
from napari_bloodcells.core.datasets.yolo import read_yolo
from napari_bloodcells.core.errors import AnnotationError, DataSetError, DataWarning, UsageError
from napari_bloodcells.core.evaluate import evaluate
from napari_bloodcells.core.groups import grouped_split
from napari_bloodcells.core.localize import Field
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.finetune import LabeledCells
from napari_bloodcells.core.training.headfit import Head
from napari_bloodcells.core.training.recipe import load_recipe
from napari_bloodcells.core.training.traindata import gather
from napari_bloodcells.core.voc import write_voc


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


def picture(path: Path, color: tuple[int, int, int] = (200, 120, 160)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), color).save(path)
    return path


def test_numbers_that_are_no_class_and_images_named_twice_are_told(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    (tmp_path / "class.csv").write_text("image,class\n0.png,1\n1.png,7\n0.png,2\n9.png,1\n2.png,-1\n")
    (tmp_path / "notes.csv").write_text("who,when\nme,today\n")  # a table of something else
    dataset = load_dataset(tmp_path)
    assert [(s.image.name, s.label) for s in dataset.samples] == [("0.png", "neutrophil"), ("1.png", None)]
    assert dataset.problems == (
        "class.csv: classes are numbers: taken are 1 neutrophil, 2 lymphocyte, 3 monocyte, 4 eosinophil, 5 basophil; "
        "else write names.",
        "class.csv: line 3: class 7 is not one of 1 to 5; no label.",
        "class.csv: line 4: 0.png is here twice; the first is taken.",
        "class.csv: 1 rows have no image here; left out.",
    )


def test_only_a_table_of_numbers_is_told_as_one(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / f"{i}.png")
    (tmp_path / "class.csv").write_text("image,class\n0.png,neutrophil\n1.png,-1\n")
    assert not load_dataset(tmp_path).problems


def test_a_folder_named_after_no_class_keeps_its_images_and_is_told(tmp_path: Path) -> None:
    for name in ("neutrophil", "monocyte", "Tuesday", "images"):
        picture(tmp_path / name / "1.png")
    picture(tmp_path / "overview.png")
    dataset = load_dataset(tmp_path)
    assert {s.image.parent.name: s.label for s in dataset.samples} == {
        "neutrophil": "neutrophil",
        "monocyte": "monocyte",
        "Tuesday": "tuesday",
    }
    assert "Tuesday: folder is named after no known class; its 1 images keep it." in dataset.problems


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "a.json: is not JSON"),
        ("a.json", "[1, 2]", 'a.json: is neither {"image": "class"} nor a list of rows'),
        ("a.json", "7", "nor a list of rows"),
        ("a.csv", "x,y\n" + "z" * 200_000 + ",1\n", "a.csv: is no table"),
        ("a.csv", "x\n1\n2\n3\n", "a.csv: 3 rows; at most 2 are read"),
    ],
)
def test_a_table_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError) as caught:
        tables.read_table(tmp_path / name)
    assert words in str(caught.value)


def test_a_table_in_latin_1_and_one_of_json_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("Bild;Klasse\né.png;x\n".encode("latin-1"))
    assert tables.read_table(tmp_path / "a.csv") == [{"bild": "é.png", "klasse": "x"}]
    (tmp_path / "a.json").write_text(json.dumps([{"Image": "1", "Class": None, "x_min": 3}]))
    assert tables.read_table(tmp_path / "a.json") == [{"image": "1", "class": "", "x min": "3"}]


def test_xml_without_a_size_is_measured_and_labels_without_images_are_told(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    corners = "<xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>40</ymax>"
    cell = f"<object><name>WBC</name><bndbox>{corners}</bndbox></object>"
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{cell}</annotation>")
    (tmp_path / "labels.csv").write_text("image,class\na.png,monocyte\nb.png,basophil\n")
    dataset = load_dataset(tmp_path)
    assert [(s.image, s.box, s.label) for s in dataset.samples] == [(image, (10.0, 10.0, 40.0, 40.0), "monocyte")]
    assert "labels.csv: 1 rows have no image here; left out." in dataset.problems
    (tmp_path / "labels.csv").write_text("image,class\na.png,monocyte\n")
    assert not any("left out" in problem for problem in load_dataset(tmp_path).problems)


def test_images_that_a_table_of_boxes_does_not_name_are_no_fields(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    head = "image,x_min,y_min,x_max,y_max,class\n"
    (tmp_path / "boxes.csv").write_text(f"{head}a.png,1,2,30,40,monocyte\nc.png,1,2,30,40,monocyte\n")
    dataset = load_dataset(tmp_path)
    assert [field.image.name for field in dataset.fields] == ["a.png"]
    assert any(problem.startswith("c.png: ") for problem in dataset.problems)


def test_blank_lines_of_yolo_are_passed_over_and_an_empty_list_of_names_is_none(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    text = tmp_path / "labels" / "a.txt"
    text.write_text("\n0 0.5 0.5 0.2 0.2\n\n   \n")
    problems: list[str] = []
    numbers, boxes = read_yolo(text, 60, 80, problems)
    assert (numbers, boxes.tolist(), problems) == ([0], [[32, 24, 48, 36]], [])
    (tmp_path / "classes.txt").write_text("\n")
    assert any("no classes.txt: taken are" in problem for problem in load_dataset(tmp_path).problems)


def test_polygons_of_yolo_are_taken_by_their_bounding_boxes(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    lines = ["0 0.5 0.5 0.2 0.2 0.93", "0 0.4 0.4 0.6 0.45 0.5 0.6", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "0 0.1 0.1 0.2"]
    text.write_text("\n".join([*lines, "0 0.1 0.1 nan 0.2 0.3 0.3"]))
    problems: list[str] = []
    _, boxes = read_yolo(text, 100, 100, problems)
    assert np.round(boxes).tolist() == [[40, 40, 60, 60], [40, 40, 60, 60]]
    assert problems == [
        "a.txt: line 3 is no box; left out.",
        "a.txt: line 4 is no box; left out.",
        "a.txt: line 5 is a box without an area; left out.",
    ]


def test_a_table_with_a_row_per_cell_gives_each_row_its_due(tmp_path: Path) -> None:
    """Two equal rows name both cells; two that differ name neither, and a single cell with two is told."""
    corners = "<xmin>{0}</xmin><ymin>10</ymin><xmax>{1}</xmax><ymax>40</ymax>"
    cells = [f"<object><name>WBC</name><bndbox>{corners.format(x, x + 20)}</bndbox></object>" for x in (5, 45)]
    for name, n in (("a", 2), ("b", 2), ("c", 1)):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename>{''.join(cells[:n])}</annotation>"
        )
    rows = ["a.png,monocyte", "a.png,monocyte", "b.png,monocyte", "b.png,basophil", "c.png,monocyte", "c.png,basophil"]
    (tmp_path / "labels.csv").write_text("\n".join(["image,class", *rows]))
    dataset = load_dataset(tmp_path)
    assert [(s.image.name, s.label) for s in dataset.samples] == [
        ("a.png", "monocyte"),
        ("a.png", "monocyte"),
        ("b.png", None),
        ("b.png", None),
        ("c.png", None),
    ]
    assert [p for p in dataset.problems if "labels" in p] == [
        "c.png: 2 labels in the table but 1 boxes of white cells."
    ]


def test_a_damaged_picture_among_yolo_files_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    dataset = load_dataset(tmp_path)
    assert [field.image.name for field in dataset.fields] == ["a.png"]
    assert any(problem.startswith("images/b.png: ") for problem in dataset.problems)


def boxed(root: Path, name: str, *labels: str, side: int = 20) -> Path:
    """A photograph with one box for each label, ``side`` pixels wide."""
    corners = "<xmin>{0}</xmin><ymin>10</ymin><xmax>{1}</xmax><ymax>40</ymax>"
    boxes = (f"<object><name>{x}</name><bndbox>{corners.format(5, 5 + side)}</bndbox></object>" for x in labels)
    (root / f"{name}.xml").write_text(f"<annotation><filename>{name}.png</filename>{''.join(boxes)}</annotation>")
    return picture(root / f"{name}.png")


def test_classes_that_a_source_never_names_were_not_drawn(tmp_path: Path) -> None:
    for folder, names in (("red", ["RBC"]), ("both", ["RBC", "WBC"]), ("none", [])):
        (tmp_path / folder).mkdir()
        boxed(tmp_path / folder, "a", *names)
        boxed(tmp_path / folder, "b", *names[:1])
        (tmp_path / f"yolo-{folder}").mkdir()
        (tmp_path / f"yolo-{folder}" / "classes.txt").write_text("WBC\nRBC\n")
        for image, lines in (("a", names), ("b", names[:1])):
            picture(tmp_path / f"yolo-{folder}" / f"{image}.png")
            text = "".join(f"{('WBC', 'RBC').index(line)} 0.5 0.5 0.2 0.2\n" for line in lines)
            (tmp_path / f"yolo-{folder}" / f"{image}.txt").write_text(text)
    for kind in ("", "yolo-"):
        classes = {
            name: {field.classes for field in load_dataset(tmp_path / f"{kind}{name}").fields}
            for name in ("red", "both", "none")
        }
        # photographs without any box were looked through for white cells
        assert classes == {
            "red": {frozenset({"RBC"})},
            "both": {frozenset({"RBC", "WBC"})},
            "none": {frozenset({"WBC"})},
        }


def test_an_xml_of_which_no_box_can_be_used_is_no_field_without_cells(tmp_path: Path) -> None:
    boxed(tmp_path, "a", "WBC")
    boxed(tmp_path, "b", "WBC", side=0)
    boxed(tmp_path, "c")
    dataset = load_dataset(tmp_path)
    assert [field.image.name for field in dataset.fields] == ["a.png", "c.png"]
    assert "b.xml: none of its boxes can be used; its image is left out." in dataset.problems


def test_names_of_boxes_that_are_no_cell_are_told_once_with_their_number(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    boxed(root, "a", "WBC", "artifact", "ignore", "Reticulocytes", "sickle cell", "giant platelet", "stain debris")
    boxed(root, "b", "monocyte", "artifact", "blast", "NRBC", "Smudge")
    dataset = load_dataset(root)
    a, b = (field.boxes.labels for field in dataset.fields)
    assert a == ("WBC", "WBC", "ignore", "RBC", "RBC", "Platelets", "WBC")
    assert b == ("WBC",) * 5
    assert [s.detail for s in dataset.samples if s.image.stem == "a"] == [None, "artifact", "stain debris"]
    end = "which is no known cell; taken for white cells (call them RBC, Platelets or ignore if they are none)."
    assert dataset.problems[:2] == (
        f'mine: 2 boxes are called "artifact", {end}',
        f'mine: 1 box is called "stain debris", {end}',
    )
    assert not any("called" in problem for problem in dataset.problems[2:])


def test_ignored_boxes_of_yolo_are_no_cells(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n2 0.7 0.7 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text("WBC\nIgnore\nrosette\n")
    dataset = load_dataset(tmp_path)
    assert dataset.fields[0].boxes.labels == ("WBC", "ignore", "WBC")
    assert dataset.fields[0].classes == {"WBC"}
    assert [s.label for s in dataset.samples] == [None, "rosette"]
    assert len(dataset.problems) == 1
    assert '1 box is called "rosette"' in dataset.problems[0]


def test_one_group_is_not_split(tmp_path: Path) -> None:
    samples = tuple(Sample(tmp_path / f"{i}.png", None, "monocyte", "g", "s") for i in range(4))
    parts = grouped_split(DataSet("s", tmp_path, samples, "tree"), (0.5, 0.5), 0)
    assert sorted(len(part) for part in parts) == [0, 4]


def test_evaluation_takes_the_boxes_that_are_found_and_says_which_are_missed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((100, 200, 3), 235, np.uint8)
    image[30:70, 20:60] = (90, 40, 150)
    image[30:70, 120:160] = (200, 60, 60)
    Image.fromarray(image).save(tmp_path / "f.png")

    class Finds:
        def find(self, pixels: np.ndarray) -> Field:
            found = Boxes(np.array([[22, 28, 58, 72]]), ("WBC",))
            return Field.of(pixels.shape, found, um_per_pixel=0.25)

    monkeypatch.setattr("napari_bloodcells.core.localize.load_localizer", lambda name, device: Finds())
    samples = tuple(
        Sample(tmp_path / "f.png", box, "monocyte", f"g{box[0]}", "drawn")
        for box in ((20.0, 30.0, 60.0, 70.0), (120.0, 30.0, 160.0, 70.0))
    )
    data = DataSet("drawn", tmp_path, samples, "table")
    model = load_model(tiny_model, "cpu")
    found = evaluate(model, data, boxes="find")
    assert found.left_out == {"not found by the localizer": 1}
    there = replace(samples[0], box=(22.0, 28.0, 58.0, 72.0), um_per_pixel=0.25)
    assert np.array_equal(found.probabilities, evaluate(model, replace(data, samples=(there,))).probabilities)
    with pytest.raises(UsageError, match="boxes can be auto or find here, not 'xml'"):
        evaluate(model, data, boxes="xml")


def test_calibration_takes_several_folders_as_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.calibrate.can_be_fitted", lambda *_: False)  # the layer is quicker
    rng = np.random.default_rng(0)
    colors = {"neutrophil": (200, 200, 60), "eosinophil": (150, 60, 60), "monocyte": (90, 90, 220)}
    for part in ("one", "two"):
        for kind, color in colors.items():
            for i in range(5):
                pixels = np.full((60, 60, 3), 235) + rng.normal(0, 3, (60, 60, 3))
                pixels[15:45, 15:45] = np.array(color) + rng.normal(0, 8, 3)
                place = tmp_path / part / kind / f"{part}-{kind}-{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)
    done = calibrate(tiny_model, [tmp_path / "one", tmp_path / "two"], tmp_path / "m", device="cpu")
    assert (done.before.n, done.after.n) == (30, 30)
    assert "calibration: one+two" in {source.source for source in done.info.training}


def test_thresholds_stay_as_they_are_where_nothing_is_right(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model = load_model(tiny_model, "cpu")
    crops = torch.randint(0, 256, (12, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = np.arange(12) % 2
    groups = np.array([f"g{i}" for i in range(12)])

    class Fit:
        head, changed, means = Head(np.zeros((5, model.module.head.in_features)), np.zeros(5)), "layer", None
        logits = np.eye(5)[(labels + 2) % 5] * 9.0  # always another class

    monkeypatch.setattr("napari_bloodcells.core.calibrate.choose_head", lambda *_: Fit())
    monkeypatch.setattr("napari_bloodcells.core.calibrate.can_be_fitted", lambda *_: False)
    fitted = refit(model, LabeledCells(crops, crops, torch.full((12,), 56.0), labels, groups), Silent())
    assert fitted.min_confidence == model.info.min_confidence
    assert fitted.max_distance == model.info.max_distance


def test_a_crop_spec_tells_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="scale must be um, box or image, not 'px'"):
        CropSpec(scale="px")  # type: ignore[arg-type]


def voc(folder: Path, name: str, width: int = 80) -> None:
    """A photograph of 80 x 60 pixels and an XML for one so wide, with a cell of each of two classes."""
    boxes = Boxes(np.array([[2, 2, 22, 22], [30, 30, 50, 50]], np.float32), ("neutrophil", "lymphocyte"))
    picture(folder / f"{name}.png")
    write_voc(folder / f"{name}.xml", boxes, image=f"{name}.png", width=width, height=60)


def test_boxes_for_an_image_of_another_size_are_left_out_and_named(tmp_path: Path) -> None:
    """As in a count: they lie on anything but the cells."""
    voc(tmp_path, "right")
    voc(tmp_path, "wrong", width=160)
    dataset = load_dataset(tmp_path)
    assert {s.image.stem for s in dataset.samples} == {"right"}
    (problem,) = dataset.problems
    assert problem.startswith("wrong.xml: is for an image of 160 x 60 pixels, but its image has 80 x 60; ")


def test_what_is_wrong_with_labeled_cells_is_told_by_evaluation_calibration_and_training(
    tmp_path: Path, tiny_model: Path
) -> None:
    for i in range(4):
        voc(tmp_path / "mine", f"f{i}")
    (tmp_path / "mine" / "f1.xml").write_text("<annotation><object>")
    (tmp_path / "mine" / "f2.png").write_bytes(b"")
    model = load_model(tiny_model, "cpu")
    with pytest.warns(DataWarning) as told:
        found = evaluate(model, tmp_path / "mine")
    assert len(found.truth) == 4
    lines = [str(w.message) for w in told]
    assert any(line.startswith("f1.xml: ") for line in lines)
    assert "f2.png: is empty (0 bytes). Its cells are left out." in lines
    assert list(found.to_dict()["problems"]) == lines
    with pytest.warns(DataWarning, match=r"f1\.xml"), pytest.raises(DataSetError, match="4 labeled cells"):
        calibrate(model, tmp_path / "mine", tmp_path / "new")
    with pytest.warns(DataWarning, match=r"f1\.xml"):
        gather(tmp_path / "mine", replace(load_recipe("cnn3"), scheme="wbc5", val_fraction=0.5), Silent())


def test_of_many_defects_the_first_are_told_and_how_many_more_there_are(tmp_path: Path) -> None:
    voc(tmp_path, "right")
    for i in range(14):
        voc(tmp_path, f"wrong{i:02}", width=160)
    with pytest.warns(DataWarning) as told:
        open_datasets(tmp_path)
    assert len(told) == 11
    assert str(told[-1].message).endswith("4 more remarks; see data info.")
