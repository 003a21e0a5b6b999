"""From folders to what the localizer learns from, and from its scores to probabilities and thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.datasets.base import FieldTruth
from napari_bloodcells.core.errors import DataSetError, DataWarning
from napari_bloodcells.core.localize import calibrate_find, collect
from napari_bloodcells.core.localize.drawn import SOURCE, drawn_fields
from napari_bloodcells.core.localize.fields import labeled_field, red_cell_of
from napari_bloodcells.core.localize.learned import WBC_PER_RED_CELL
from napari_bloodcells.core.localize.net import CLASSES, CellNet, NetSettings
from napari_bloodcells.core.localize.store import Calibration, LocalizerInfo
from napari_bloodcells.core.localize.targets import IGNORE
from napari_bloodcells.core.localize.tiles import TileSettings
from napari_bloodcells.core.localize.train_find import label_rest, train_localizer
from napari_bloodcells.core.localize.trainer import FindSettings, load_find_settings
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.synthetic import SmearSettings, write_folder

ALL = frozenset(CLASSES)


def picture(path: Path, side: int = 60, cell: int = 24) -> Path:
    """A dark disk in the middle of light ground."""
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), 235, np.uint8)
    pixels[np.hypot(y - side / 2, x - side / 2) < cell / 2] = (90, 40, 150)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def truth(path: Path, label: str = "WBC", known: frozenset[str] = ALL, source: str = "s", **values: Any) -> Any:
    boxes = Boxes(np.array([[10, 10, 50, 50]]), (label,))
    return collect.TruthField(FieldTruth(path, boxes, path.stem, None, known), source, "train", **values)


def test_a_folder_without_a_white_cell_teaches_nothing(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "platelet" / f"{i}.png")
        picture(tmp_path / "neutrophil-none" / f"{i}.png")
    (tmp_path / "labels.csv").write_text(
        "".join(["image,class\n", *(f"platelet/{i}.png,platelet\n" for i in range(3))])
    )
    with pytest.raises(DataSetError, match="No folder holds a boxed white cell"):
        collect.collect([tmp_path])


def test_photographs_that_only_the_remarks_know_have_their_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks = {"1": [(5.0, 5.0, 40.0, 40.0, "WBC")], "2": []}
    monkeypatch.setattr(collect, "read_remarks", lambda source: remarks if source == "mine" else {})
    for name in ("1", "2", "3"):
        picture(tmp_path / "mine" / f"{name}.png")
    found = collect.read_parts(tmp_path / "mine")
    assert {item.truth.image.stem: len(item.truth.boxes) for item in found} == {"1": 1, "2": 0}  # of 3 nothing is known
    assert all(item.truth.classes == {"WBC"} and not item.single for item in found)
    picture(tmp_path / "unknown" / "1.png")
    with pytest.raises(DataSetError):
        collect.read_parts(tmp_path / "unknown")


def test_a_box_that_no_reader_could_name_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "read"
    for i in range(3):
        picture(folder / "images" / f"{i}.png")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.2 0.2\n")
    (folder / "classes.txt").write_text("WBC\nRBC\n")
    rows = [("0", "monocyte", "monocyte", "yes"), ("1", "", "", "no"), ("2", "monocyte", "monocyte", "no")]
    (folder / "classes.csv").write_text(
        "image,x_min,y_min,x_max,y_max,reader_1,reader_2,sure\n"
        + "".join(f"images/{i}.png,18,18,42,42,{one},{two},{sure}\n" for i, one, two, sure in rows)
    )
    found = {item.truth.image.stem: item.truth.boxes.labels for item in collect.collect([folder])}
    assert found == {"0": ("WBC", "RBC"), "1": ("ignore", "RBC"), "2": ("WBC", "RBC")}


def test_remarks_of_photographs_without_a_white_cell_are_empty() -> None:
    import csv
    from importlib.resources import files

    rows = list(
        csv.DictReader((files("napari_bloodcells.core.localize") / "remarks.csv").read_text("utf-8").splitlines())
    )
    none = next(row for row in rows if row["label"] == "none")
    some = next(row for row in rows if row["label"] != "none")
    assert collect.read_remarks(none["source"])[none["image"]] == []
    assert collect.read_remarks(some["source"])[some["image"]][0][4] == some["label"]


def test_single_cells_are_boxed_by_their_stain_and_tell_the_magnification(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / "neutrophil" / f"n{i}.png")
        picture(tmp_path / "platelet" / f"p{i}.png")
    items = collect.read_parts(tmp_path)
    assert [item.single for item in items] == [True] * 8
    assert sorted(item.truth.boxes.labels[0] for item in items) == ["Platelets"] * 4 + ["WBC"] * 4
    fields = collect.read_fields(items, Silent())
    assert len(fields) == 8
    for field in fields:
        sides = (field.boxes[0, 2:] - field.boxes[0, :2]) / np.array(field.image.size)
        assert sides.tolist() == pytest.approx([24 / 60] * 2, abs=0.1)  # the disk, not the picture
    sizes = set(collect._red_cells(items).values())  # one for the whole source
    assert list(sizes) == [pytest.approx(24 / WBC_PER_RED_CELL, rel=0.15)]


def test_an_image_that_is_cut_to_its_cell_is_its_box(tmp_path: Path) -> None:
    item = truth(picture(tmp_path / "a.png"), single=True, tight=True, known=frozenset({"WBC"}))
    field = collect.read_fields([item], Silent())[0]
    assert field.boxes[0].tolist() == [0, 0, *field.image.size]


def test_photographs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    items = [truth(picture(tmp_path / "a.png")), truth(tmp_path / "b.png")]
    with pytest.warns(DataWarning, match=r"^b\.png: .* It is left out\."):
        assert len(collect.read_fields(items, Silent())) == 1
    with pytest.warns(DataWarning) as told:
        collect.read_fields(items[1:] * 13, Silent())
    assert len(told) == 11
    assert str(told[-1].message) == "3 more photographs cannot be read; left out."
    net = CellNet(NetSettings((16, 16, 16, 16), (1, 1, 1), 16)).eval()
    info = LocalizerInfo(thresholds=(0.3, 0.4, 0.35), calibration=(Calibration(slope=2.0),) * 3)
    with pytest.warns(DataWarning) as told:
        assert calibrate_find.calibrate_localizer(net, info, items, Silent()) == info  # too few boxes: as it was
    texts = [str(warning.message) for warning in told]
    assert any(text.startswith("b.png: ") for text in texts)
    for name, threshold in zip(CLASSES, ("0.30", "0.40", "0.35"), strict=True):
        (text,) = (text for text in texts if text.startswith(f"{name}: "))
        assert f"calibrated as those it began with, its threshold stays {threshold};" in text


def yolo(root: Path, name: str, text: str, side: int = 60, cell: int = 24) -> Path:
    path = picture(root / f"{name}.png", side, cell)
    path.with_suffix(".txt").write_text(text)
    return path


BOX = "0 0.5 0.5 0.4 0.4\n"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        ("test", "test"),
        ("testing", "test"),
        ("Test Simple", "test"),
    ],
)
def test_published_parts_are_known_by_all_their_names(tmp_path: Path, name: str, part: str) -> None:
    for i in range(12):
        yolo(tmp_path / name, f"{i}", BOX)
        picture(tmp_path / "cells" / name / "monocyte" / f"{i}.png")
    assert {item.part for item in collect.read_parts(tmp_path) if item.truth.image.parent.name == name} == {part}
    assert {item.part for item in collect.read_parts(tmp_path / "cells")} == {part}


def test_lists_of_images_are_read_line_by_line(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for i in range(16):
        yolo(root, f"slide 1 {i:02d}", BOX)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("".join(f"slide 1 {i:02d}\r\n" for i in range(8)))
    (lists / "valid.txt").write_text("".join(f"slide 1 {i:02d}  1\n" for i in range(6, 12)))
    (lists / "train.txt").write_text("".join(f"slide 1 {i:02d} \n" for i in range(12, 16)))
    parts = {int(item.truth.image.stem[-2:]): item.part for item in collect.read_parts(root)}
    assert [parts[i] for i in range(16)] == ["test"] * 8 + ["val"] * 4 + ["train"] * 4
    (lists / "test.txt").write_bytes("Färbung 1\n".encode("latin-1"))
    with pytest.raises(DataSetError, match=r"^test\.txt: is no UTF-8 text"):
        collect.read_parts(root)


def test_an_original_is_in_one_part_of_all_folders(tmp_path: Path) -> None:
    """In whichever order the folders are given; the names are re-photographs of one cell, which BCCD's table knows."""
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        yolo(tmp_path / name / part, "BloodImage_00395", BOX)
        yolo(tmp_path / name / part, f"other {name}", BOX)
    yolo(tmp_path / "a" / "train", "BloodImage_00382", BOX)
    for names, part in (("ab", "val"), ("ba", "val"), ("abc", "test"), ("cba", "test"), ("a", "train")):
        items = collect.collect([tmp_path / name for name in names])
        assert {item.part for item in items if item.truth.group == "bccd:00382"} == {part}
        others = {item.truth.image.stem: item.part for item in items if item.truth.group != "bccd:00382"}
        assert others == {f"other {n}": {"a": "train", "b": "val", "c": "test"}[n] for n in names}


def test_what_was_left_out_of_a_folder_is_told(tmp_path: Path) -> None:
    yolo(tmp_path, "a", BOX)
    for i in range(11):
        yolo(tmp_path, f"b{i}", "WBC 0.5 0.5 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text("WBC\n")
    with pytest.warns(DataWarning) as told:
        items = collect.read_parts(tmp_path)
    assert [item.truth.image.name for item in items] == ["a.png"]
    texts = [str(warning.message) for warning in told]
    assert texts[0] == "b0.txt: none of its lines can be used; its image is left out (10 more files likewise)."
    assert "more remarks; see data info" in texts[-1]


def test_white_cells_of_a_source_that_boxes_red_ones_only_are_not_its_ground(tmp_path: Path) -> None:
    yolo(tmp_path, "a", BOX)
    (tmp_path / "classes.txt").write_text("RBC\n")
    (field,) = collect.read_fields(collect.read_parts(tmp_path), Silent())
    assert field.known.tolist() == [name == "RBC" for name in CLASSES]


def test_a_source_of_several_magnifications_has_a_scale_for_each(tmp_path: Path) -> None:
    def field(name: str, *sides: int, side: int = 900) -> Any:
        path = picture(tmp_path / f"{name}.png", side)
        boxes = np.array([[10, 10 + 200 * i, 10 + s, 10 + 200 * i + s] for i, s in enumerate(sides)], np.float32)
        truth_ = FieldTruth(path, Boxes(boxes.reshape(-1, 4), ("WBC",) * len(sides)), name)
        return collect.TruthField(truth_, "s", "train")

    def sizes(items: Any) -> list[float]:
        found = collect._red_cells(items)
        return [round(found[item.truth.image] * WBC_PER_RED_CELL) for item in items]

    large = [field(f"l{i}", 110 + 10 * i) for i in range(5)]
    small = [field(f"s{i}", 10 + i) for i in range(3)]
    bare = field("bare")
    assert sizes([*large, *small, bare]) == [130] * 5 + [11] * 3 + [130]
    # one monocyte alone is no other magnification, three cells of a field are
    assert sizes([*large, field("monocyte", 220)]) == [135] * 6
    assert sizes([*large, field("a", 180, 180), field("b", 270, 270, 270)])[-2:] == [165, 270]


def test_fields_tell_how_large_their_red_cells_are() -> None:
    boxes = np.array([[0, 0, 30, 40], [0, 0, 10, 10], [0, 0, 12, 10], [0, 0, 14, 10]], np.float32)
    wbc, rbc = CLASSES.index("WBC"), CLASSES.index("RBC")
    assert red_cell_of(boxes, np.array([wbc, rbc, rbc, rbc]), (100, 80)) == 12
    assert red_cell_of(boxes[:3], np.array([wbc, rbc, rbc]), (100, 80)) == pytest.approx(40 / WBC_PER_RED_CELL)
    assert red_cell_of(boxes[1:3], np.array([rbc, rbc]), (100, 80)) == 12.5
    image = np.full((80, 80, 3), 230, np.uint8)
    field = labeled_field(image, Boxes(boxes[:1], ("WBC",)), frozenset({"WBC"}), "s", red_cell=5.0)
    assert field.red_cell == 5.0
    assert field.known.tolist() == [name == "WBC" for name in CLASSES]


def test_drawn_fields_are_the_same_for_a_seed_and_of_many_kinds() -> None:
    fields, again = drawn_fields(3, Silent(), 6), drawn_fields(3, Silent(), 6)
    for one, other in zip(fields, again, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert {field.source for field in fields} == {SOURCE}
    assert all(field.known.all() for field in fields)
    assert len({len(field.labels) for field in fields}) > 3
    assert {label for field in fields for label in field.labels.tolist()} >= {0, 1}


def test_drawn_fields_are_learned_from_where_they_weigh(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 4, 1, SmearSettings(width=200, height=160, um_per_pixel=0.25))
    settings = FindSettings(
        steps=2,
        batch_size=2,
        warm_up=1,
        save_every=2,
        tiles=TileSettings(side=64),
        net=NetSettings((16, 16, 16, 16), (1, 1, 1), 16),
        weights={SOURCE: 1.0},
    )
    place = train_localizer(tmp_path / "d", tmp_path / "m", settings)
    assert (place / "localizer.safetensors").exists()


class Sees:
    """A localizer that finds, in every class, one sure box, one unsure and one that is nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def cells_at(self, image: Any, zoom: float) -> Any:
        boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [12, 12, 48, 48]], np.float32)
        return tuple((boxes, np.array([0.9, 0.3, 0.05, 0.9])) for _ in CLASSES)


def test_what_a_source_left_unboxed_is_boxed_by_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_bloodcells.core.localize.train_find.LearnedLocalizer", Sees)
    image, box = np.full((60, 60, 3), 230, np.uint8), Boxes(np.array([[10, 10, 50, 50]]), ("WBC",))
    whole = labeled_field(image, box, ALL, "all", red_cell=8.0)
    part = labeled_field(image, box, frozenset({"WBC"}), "part", red_cell=8.0)
    same, more = label_rest([whole, part], CellNet(NetSettings((16, 16, 16, 16), (1, 1, 1), 16)))
    assert same is whole
    assert more.known.all()
    rbc, platelets = CLASSES.index("RBC"), CLASSES.index("Platelets")
    # sure ones as they are, unsure ones neither asked for nor punished; none in the middle of a known cell
    assert more.labels.tolist() == [0, rbc, IGNORE - rbc, platelets, IGNORE - platelets]
    assert more.boxes[1:3].tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]


def found(logits: list[float], true: list[bool], wanted: int, source: str = "s") -> Any:
    return calibrate_find._Found(np.array(logits), None, np.array(true), wanted, source)


def test_the_threshold_of_white_cells_keeps_99_in_100_of_every_source_alike() -> None:
    scores = [np.array([0.9] * 99 + [0.3]), np.array([0.7] * 100)]
    results = [found([0.0] * 100, [True] * 100, 100, source) for source in "ab"]
    assert calibrate_find._threshold_for_recall(results, scores) == pytest.approx(0.7, abs=0.005)
    low = calibrate_find.BOUNDS[0][0] + 0.01
    half = [np.array([0.8] * 50 + [low] * 50), np.array([0.7] * 100)]
    assert calibrate_find._threshold_for_recall(results, half) == pytest.approx(low, abs=0.011)


def test_below_the_lowest_threshold_nothing_is_given_up_for() -> None:
    results = [found([0.0] * 4, [True] * 4, 4)]
    scores = [np.array([0.9, 0.9, 0.9, 0.01])]  # the last is a box around nothing
    assert calibrate_find._threshold_for_recall(results, scores) == pytest.approx(0.9, abs=0.011)


def test_the_threshold_of_red_cells_makes_the_numbers_equal() -> None:
    results = [found([0.0] * 5, [True] * 5, 3)]
    assert calibrate_find._threshold_for_number(results, [np.array([0.9, 0.5, 0.8, 0.7, 0.6])]) == 0.6


def test_only_what_a_source_boxed_is_compared(tmp_path: Path) -> None:
    class Finds:
        def find(self, image: Any) -> Any:
            from napari_bloodcells.core.localize import Field

            def one(name: str) -> Boxes:
                return Boxes(np.array([[12.0, 12, 48, 48], [0, 0, 5, 5]]), (name,) * 2, np.array([0.9, 0.4]))

            return Field.of(image.shape, one("WBC"), one("RBC"), one("Platelets"))

    path = picture(tmp_path / "a.png")
    items = [truth(path, known=frozenset({"WBC"})), truth(path, "RBC", frozenset({"RBC"})), truth(path, single=True)]
    white, red, platelets = calibrate_find._search(Finds(), items, Silent())  # type: ignore[arg-type]
    assert [(f.true.tolist(), f.wanted) for f in white] == [([True, False], 1)]
    assert [(f.true.tolist(), f.wanted) for f in red] == [([True, False], 1)]
    assert platelets == []


def test_calibrated_scores_and_thresholds_come_from_enough_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    true = rng.random(400) < 0.5
    results = found(np.where(true, 3.0, -1.0) + rng.normal(0, 1, 400), true, int(true.sum()))
    monkeypatch.setattr(calibrate_find, "_search", lambda *_: [[results], [results], []])
    net = CellNet(NetSettings((16, 16, 16, 16), (1, 1, 1), 16))
    with pytest.warns(DataWarning, match=r"^Platelets: 0 true and 0 false boxes .* not calibrated") as told:
        info = calibrate_find.calibrate_localizer(net, LocalizerInfo(), [], Silent())
    assert len(told) == 1
    assert info.calibration[0] == info.calibration[1] != LocalizerInfo().calibration[0]
    assert info.calibration[2] == LocalizerInfo().calibration[2]
    bounds = calibrate_find.BOUNDS[:2]
    assert all(low <= at <= high for at, (low, high) in zip(info.thresholds[:2], bounds, strict=True))
    assert info.thresholds[2] == LocalizerInfo().thresholds[2]


def test_settings_can_be_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("steps = 77\n")
    assert load_find_settings(tmp_path / "mine.toml") == replace(load_find_settings(tmp_path / "mine.toml"), steps=77)
