"""Every layout of folder is understood, the labels join the right boxes, and defects are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.datasets import load_dataset, scale_of_red_cells
from napari_bloodcells.core.errors import DataSetError
from napari_bloodcells.core.voc import write_voc


def picture(path: Path, width: int = 200, height: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "pink").save(path)
    return path


def voc_field(root: Path, number: int, n_cells: int, red: int = 0) -> None:
    image = picture(root / "JPEGImages" / f"BloodImage_{number:05d}.jpg")
    cells = [[10 + 60 * i, 10, 50 + 60 * i, 50] for i in range(n_cells)]
    reds = [[5 + 20 * i, 60, 20 + 20 * i, 75] for i in range(red)]
    boxes = Boxes(np.array(cells + reds).reshape(-1, 4), ("WBC",) * n_cells + ("RBC",) * red)
    (root / "Annotations").mkdir(exist_ok=True)
    write_voc(root / "Annotations" / f"{image.stem}.xml", boxes, image=image, width=200, height=100)


def test_voc_labels_join_the_boxes_of_their_field(tmp_path: Path) -> None:
    """Numbers beyond BCCD's own, so that nothing is known of these fields but what the table says."""
    for number, cells in ((901, 1), (902, 2), (903, 2), (904, 1), (905, 2), (906, 1)):
        voc_field(tmp_path, number, cells, red=4)
    rows = [
        "901,NEUTROPHIL",
        '902,"EOSINOPHIL, EOSINOPHIL"',
        '903,"NEUTROPHIL,BASOPHIL"',
        "904,",
        "905,MONOCYTE",
        "999,X",
    ]
    (tmp_path / "labels.csv").write_text(",Image,Category\n" + "".join(f",{row}\n" for row in rows))
    dataset = load_dataset(tmp_path)
    assert dataset.reader == "voc"
    labels = {}
    for sample in dataset.samples:
        labels.setdefault(int(sample.image.stem[-3:]), []).append(sample.label)
    assert labels == {
        901: ["neutrophil"],
        902: ["eosinophil", "eosinophil"],
        903: [None, None],  # which is which, nobody says
        904: [None],
        905: [None, None],
        906: [None],
    }
    assert dataset.samples[0].box == (10, 10, 50, 50)
    assert dataset.samples[0].um_per_pixel == pytest.approx(7.5 / 15)
    assert any("1 rows have no image" in p for p in dataset.problems)
    assert any("BloodImage_00905.jpg: 1 labels in the table but 2 boxes" in p for p in dataset.problems)
    assert [len(f.boxes) for f in dataset.fields] == [5, 6, 6, 5, 6, 5]
    assert dataset.fields[0].classes == {"WBC", "RBC"}


def test_voc_boxes_named_after_cell_types_need_no_table(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    boxes = Boxes(np.array([[1, 1, 20, 20], [30, 30, 50, 50]]), ("Lymphocytes", "RBC"))
    write_voc(tmp_path / "a.xml", boxes, image=image, width=200, height=100)
    dataset = load_dataset(tmp_path)
    assert [(s.label, s.box) for s in dataset.samples] == [("lymphocyte", (1, 1, 20, 20))]
    assert dataset.fields[0].boxes.labels == ("WBC", "RBC")


def test_a_broken_xml_costs_its_field_only(tmp_path: Path) -> None:
    voc_field(tmp_path, 901, 1)
    voc_field(tmp_path, 902, 1)
    (tmp_path / "Annotations" / "BloodImage_00901.xml").write_text("<annotation>")
    dataset = load_dataset(tmp_path)
    assert [s.image.stem for s in dataset.samples] == ["BloodImage_00902"]
    assert any(p.startswith("BloodImage_00901.xml: is not well-formed") for p in dataset.problems)


def test_class_folders_with_parts_and_a_finer_type(tmp_path: Path) -> None:
    for name in ("TRAIN/NEUTROPHIL/BNE_1.jpeg", "TRAIN/MONOCYTE/_0_5.jpeg", "TEST_SIMPLE/NEUTROPHIL/_1_2.jpeg"):
        picture(tmp_path / "images" / name)
    dataset = load_dataset(tmp_path)
    assert dataset.reader == "tree"
    assert [(s.split, s.label, s.box) for s in dataset.samples] == [
        ("TEST_SIMPLE", "neutrophil", None),
        ("TRAIN", "monocyte", None),
        ("TRAIN", "neutrophil", None),
    ]
    assert dataset.counts() == {"monocyte": 1, "neutrophil": 2}
    assert len(dataset.part("train")) == 2
    bands = tmp_path / "lab.json"
    bands.write_text(json.dumps({"classes": ["neutrophil", "band neutrophil"]}))
    assert [s.label for s in load_dataset(tmp_path, str(bands)).samples] == ["neutrophil", None, "band neutrophil"]
    assert [s.label for s in load_dataset(tmp_path, "wbc4").samples] == ["neutrophil", "monocyte", "neutrophil"]


def test_one_picture_under_two_names_is_not_sure(tmp_path: Path) -> None:
    for name in ("eosinophil/EO_225902.jpg", "neutrophil/BNE_191112.jpg", "neutrophil/SNE_1.jpg"):
        picture(tmp_path / name)
    assert [(s.image.stem, s.sure) for s in load_dataset(tmp_path).samples] == [
        ("EO_225902", False),
        ("BNE_191112", False),
        ("SNE_1", True),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,class\n001.png,neutrophil\n002.png,Lymphocytes\n003.png,-1\n004.png,basophil\n"),
        ("labels.csv", "image ID;class label\r\n1;1\r\n2;2\r\n3;-1\r\n4;5\r\n"),
        ("labels.json", '{"001.png": 1, "002.png": 2, "003.png": -1, "004": 5}'),
        ("labels.json", '[{"file": "images/001.png", "label": "neutrophil"}, {"file": "002.png", "label": "LY"}, '
                        '{"file": "/else/where/004.png", "label": "baso"}]'),
    ],
)  # fmt: skip
def test_tables_of_files_and_classes(tmp_path: Path, name: str, text: str) -> None:
    for number in range(1, 5):
        picture(tmp_path / "images" / f"00{number}.png")
        picture(tmp_path / "masks" / f"00{number}.png")
    (tmp_path / name).write_text(text)
    dataset = load_dataset(tmp_path)
    assert dataset.reader == "table"
    found = [(s.image.relative_to(tmp_path).as_posix(), s.label) for s in dataset.samples]
    assert found == [("images/001.png", "neutrophil"), ("images/002.png", "lymphocyte"), ("images/004.png", "basophil")]


def test_masks_beside_the_images_are_not_taken_for_them(tmp_path: Path) -> None:
    """The layout of segmentation_WBC as its authors give it: 001.bmp is the cell, 001.png its mask."""
    for number in (1, 2):
        picture(tmp_path / f"00{number}.bmp")
        picture(tmp_path / f"00{number}.png")
    (tmp_path / "Class Labels.csv").write_text("image ID,class label\n1,4\n2,5\n")
    found = [(s.image.name, s.label) for s in load_dataset(tmp_path).samples]
    assert found == [("001.bmp", "eosinophil"), ("002.bmp", "basophil")]


def yolo(root: Path, name: str, text: str) -> Path:
    image = picture(root / "images" / f"{name}.png")
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return image


def test_yolo_boxes_with_cell_types(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("neutrophil\neosinophil\n")
    yolo(tmp_path, "B-30_0001", "1 0.5 0.5 0.2 0.4\n0 0.05 0.5 0.2 0.4\n")
    yolo(tmp_path, "B-30_0002", "")
    yolo(tmp_path, "B-31_0001", "7 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\nhello\n0 0.5 0.5 0 0.1\n0 3 3 0.1 0.1\n")
    dataset = load_dataset(tmp_path)
    assert dataset.reader == "yolo"
    first, second = dataset.samples
    assert (first.label, first.box) == ("eosinophil", pytest.approx((80, 30, 120, 70)))
    assert (second.label, second.box) == ("neutrophil", pytest.approx((0, 30, 30, 70), abs=1e-4))
    # the third is no field without cells: none of its lines can be used
    assert [(f.group, len(f.boxes)) for f in dataset.fields] == [("chula:B-30", 2), ("chula:B-30", 0)]
    assert len(dataset.problems) == 6
    assert dataset.problems[0] == "B-31_0001.txt: none of its lines can be used; its image is left out."
    assert all(p.startswith("B-31_0001.txt: ") for p in dataset.problems)


@pytest.mark.parametrize(
    "names", ["names: ['WBC', \"RBC\"]", "names:\n  - WBC\n  - RBC\nnc: 2", "names:\n  0: WBC\n  1: RBC\n"]
)
def test_yolo_names_from_yaml(tmp_path: Path, names: str) -> None:
    (tmp_path / "data.yaml").write_text(f"train: x\n{names}\n")
    yolo(tmp_path, "a", "0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n")
    dataset = load_dataset(tmp_path)
    assert dataset.fields[0].boxes.labels == ("WBC", "RBC")
    assert [s.label for s in dataset.samples] == [None]


@pytest.mark.parametrize(
    "place", ["images/classes.txt", "images/train/classes.txt", "labels/train/classes.txt", "labels/train/data.yaml"]
)
def test_yolo_names_are_found_beside_the_images_and_the_boxes(tmp_path: Path, place: str) -> None:
    """LabelImg writes them into the folder that it saves to."""
    yolo(tmp_path, "train/a", "1 0.5 0.5 0.2 0.2\n")
    text = "names: [lymphocyte, monocyte]\n" if place.endswith("yaml") else "lymphocyte\nmonocyte\n"
    (tmp_path / place).write_text(text)
    dataset = load_dataset(tmp_path)
    assert (dataset.labels, dataset.problems) == (("monocyte",), ())


def test_yolo_folders_may_have_names_of_their_own(tmp_path: Path) -> None:
    for part, names in (("s1", "monocyte\nRBC\n"), ("s2", "RBC\nlymphocyte\n"), ("s3", "")):
        yolo(tmp_path / part, "a", "0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n")
        (tmp_path / part / "labels" / "classes.txt").write_text(names)
    dataset = load_dataset(tmp_path)
    assert [field.boxes.labels for field in dataset.fields] == [("WBC", "RBC"), ("RBC", "WBC"), ("WBC", "RBC")]
    assert dataset.labels == ("monocyte", "lymphocyte", None)
    assert dataset.problems == ("no classes.txt: taken are 0 white cell, 1 red cell, 2 platelet.",)


def test_yolo_boxes_take_their_types_from_a_table_of_two_readers(tmp_path: Path) -> None:
    yolo(tmp_path, "train/a", "0 0.5 0.5 0.2 0.4\n" + "".join(f"1 {0.1 + 0.2 * i} 0.2 0.1 0.2\n" for i in range(4)))
    yolo(tmp_path, "val/b", "0 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.1 0.2\n")
    header = "image,x_min,y_min,x_max,y_max,reader_1,reader_2,sure\n"
    rows = (
        "images/train/a.png,81,31,121,69,monocyte,monocyte,yes\nimages/val/b.png,80,30,120,70,monocyte,lymphocyte,no\n"
    )
    (tmp_path / "classes.csv").write_text(header + rows)
    a, b, c = load_dataset(tmp_path).samples
    assert (a.label, a.sure, a.split) == ("monocyte", True, "train")
    assert a.um_per_pixel == pytest.approx(7.5 / 20, rel=1e-4)
    assert sorted([(b.label, b.sure), (c.label, c.sure)]) == [(None, False), (None, True)]
    assert len(load_dataset(tmp_path).labeled()) == 1


def test_a_table_of_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    rows = "a.png,0,0,25.5,40,RBC\na.png,60,10,90,45,WBC\na.png,5,5,5,9,RBC\nb.png,1,1,2,2,WBC\na.png,x,1,2,2,WBC\n"
    (tmp_path / "boxes.csv").write_text("image,x_min,y_min,x_max,y_max,label\n" + rows)
    dataset = load_dataset(tmp_path)
    assert dataset.reader == "boxes"
    assert dataset.fields[0].boxes.labels == ("RBC", "WBC")
    assert [s.box for s in dataset.samples] == [(60, 10, 90, 45)]
    assert len(dataset.problems) == 3


@pytest.mark.parametrize("case", ["absent", "empty", "no labels", "not classes"])
def test_a_folder_that_is_no_data_set_says_so_in_one_line(tmp_path: Path, case: str) -> None:
    root = tmp_path / "data"
    if case != "absent":
        root.mkdir()
    if case == "no labels":
        picture(root / "a.png")
    if case == "not classes":
        picture(root / "patient 1" / "a.png")
    with pytest.raises(DataSetError, match=r"^data: ") as error:
        load_dataset(root)
    assert "\n" not in str(error.value)


def test_the_scale_needs_three_whole_red_cells() -> None:
    whole = [[10, 10, 85, 85], [100, 10, 175, 85], [200, 10, 275, 85]]
    border = [[0, 100, 20, 160]]
    assert scale_of_red_cells(Boxes(np.array(whole + border), ("RBC",) * 4), 300, 300) == pytest.approx(0.1)
    assert scale_of_red_cells(Boxes(np.array(whole[:2] + border), ("RBC",) * 3), 300, 300) is None
    assert scale_of_red_cells(Boxes(), 300, 300) is None


SHARED = {
    "bccd": ("voc", 372, {"basophil": 3, "eosinophil": 90, "lymphocyte": 38, "monocyte": 22, "neutrophil": 217}),
    "jtsc": ("table", 300, {"neutrophil": 176, "lymphocyte": 53, "monocyte": 48, "eosinophil": 22, "basophil": 1}),
    "cellavision": (
        "table",
        100,
        {"lymphocyte": 37, "neutrophil": 33, "monocyte": 15, "eosinophil": 12, "basophil": 3},
    ),
    "misp": ("tree", 149, {"eosinophil": 42, "neutrophil": 38, "monocyte": 36, "lymphocyte": 33}),
    "chula": ("yolo", 508, {"lymphocyte": 111, "neutrophil": 109, "basophil": 100, "eosinophil": 100, "monocyte": 88}),
    "ankara": ("boxes", 103, {}),
    "pig": ("yolo", 1243, {}),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SHARED)
def test_the_real_data_sets_have_the_cells_that_their_authors_counted(shared_data: Path, name: str) -> None:
    reader, cells, counts = SHARED[name]
    dataset = load_dataset(shared_data / name)
    assert (dataset.reader, len(dataset), dataset.counts()) == (reader, cells, counts)


@pytest.mark.parametrize(
    ("part", "images"), [("test", ["a", "b"]), ("TESTING", ["a"]), ("train", ["c"]), ("val", []), ("fold 1", [])]
)
def test_a_part_is_known_by_the_names_that_publishers_give_it(tmp_path: Path, part: str, images: list[str]) -> None:
    for name in ("Testing/monocyte/a.png", "Test Simple/monocyte/b.png", "training/monocyte/c.png"):
        picture(tmp_path / name)
    assert sorted(s.image.stem for s in load_dataset(tmp_path).part(part).samples) == images


@pytest.mark.data
def test_raabin_gives_the_sure_cells_and_its_boxes(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "raabin")
    sure = {"neutrophil": 90, "basophil": 87, "lymphocyte": 84, "eosinophil": 83, "monocyte": 76}
    assert dataset.labeled().counts() == sure
    labels = [label for f in dataset.fields for label in f.boxes.labels]
    assert [labels.count(k) for k in ("WBC", "RBC", "Platelets")] == [466, 5682, 24]


@pytest.mark.data
def test_two_cells_of_bccd_in_one_field_have_their_own_labels(shared_data: Path) -> None:
    samples = [s for s in load_dataset(shared_data / "bccd").samples if s.image.stem.endswith("00193")]
    assert [(s.box, s.label) for s in samples] == [
        ((360, 124, 571, 317), "neutrophil"),
        ((418, 382, 640, 479), "eosinophil"),
    ]
