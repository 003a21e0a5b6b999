"""No copy of one cell stands on two sides of a split, and the parts keep the shares of the classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.datasets import DataSet, FieldTruth, Sample, load_dataset
from napari_bloodcells.core.errors import AnnotationError, DataSetError
from napari_bloodcells.core.groups import Grouping, grouped_folds, grouped_split, known_groups


def made_up(n_groups: int = 120, seed: int = 3) -> DataSet:
    """Groups of 1 to 8 cells of one class each, the rarest class with 6 groups."""
    rng = np.random.default_rng(seed)
    samples = []
    for g in range(n_groups):
        label = "basophil" if g % 20 == 0 else ("monocyte", "neutrophil", "neutrophil")[g % 3]
        samples += [Sample(Path(f"{g}_{i}.png"), None, label, f"g{g}", "x") for i in range(int(rng.integers(1, 9)))]
    return DataSet("x", Path("x"), tuple(samples), "tree")


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_no_group_lose_nothing_and_keep_the_classes(seed: int) -> None:
    data = made_up()
    parts = grouped_split(data, (0.7, 0.15, 0.15), seed)
    assert sorted(s.image for p in parts for s in p.samples) == sorted(s.image for s in data.samples)
    groups = [set(p.groups) for p in parts]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    for part, share in zip(parts, (0.7, 0.15, 0.15), strict=True):
        for label, total in data.counts().items():
            largest = max(Counter(s.group for s in data.samples if s.label == label).values())
            assert abs(part.counts().get(label, 0) - share * total) <= largest


def test_a_split_depends_on_the_seed_and_not_on_the_order() -> None:
    data = made_up()
    turned = replace(data, samples=data.samples[::-1])
    first, again = grouped_split(data, (0.5, 0.5), 1)[0], grouped_split(turned, (0.5, 0.5), 1)[0]
    assert set(first.groups) == set(again.groups)
    assert set(first.groups) != set(grouped_split(data, (0.5, 0.5), 2)[0].groups)


@pytest.mark.parametrize("n_groups", [2, 3, 5])
@pytest.mark.parametrize("fractions", [(0.85, 0.15), (0.1, 0.9), (0.9, 0.1)])
def test_a_few_large_groups_leave_no_part_empty(n_groups: int, fractions: tuple[float, ...]) -> None:
    labels = ("neutrophil", "monocyte") * 6
    samples = [
        Sample(Path(f"{g}_{i}.png"), None, x, f"g{g}", "x") for g in range(n_groups) for i, x in enumerate(labels)
    ]
    parts = grouped_split(DataSet("x", Path("x"), tuple(samples), "tree"), fractions, 0)
    assert all(len(p) for p in parts)
    assert sum(map(len, parts)) == len(samples)
    assert not set(parts[0].groups) & set(parts[1].groups)


def test_a_part_that_was_empty_gets_the_smallest_group_without_a_class_of_its_own() -> None:
    groups = {"a": "nnnnnnmmmm", "b": "nnnnmm", "c": "nnnmmmm", "d": "ee"}
    samples = [
        Sample(Path(f"{g}_{i}.png"), None, x, g, "x") for g, cells in groups.items() for i, x in enumerate(cells)
    ]
    parts = grouped_split(DataSet("x", Path("x"), tuple(samples), "tree"), (0.95, 0.05), 0)
    assert set(parts[1].groups) == {"b"}


def test_one_group_is_not_parted() -> None:
    samples = tuple(Sample(Path(f"{i}.png"), None, "neutrophil", "g", "x") for i in range(4))
    assert [len(p) for p in grouped_split(DataSet("x", Path("x"), samples, "tree"), (0.85, 0.15), 0)] == [4, 0]


def test_every_sample_is_held_out_once() -> None:
    data = made_up()
    folds = grouped_folds(data, 5, 0)
    assert Counter(s.image for _, held_out in folds for s in held_out.samples) == Counter(s.image for s in data.samples)
    for train, held_out in folds:
        assert not set(train.groups) & set(held_out.groups)
        assert len(train) + len(held_out) == len(data)
        assert held_out.counts()["basophil"] > 0


def test_fields_go_with_their_cells() -> None:
    fields = tuple(FieldTruth(Path(f"{i}.png"), Boxes(), f"f{i // 2}") for i in range(40))
    parts = grouped_split(DataSet("x", Path("x"), (), "yolo", fields), (0.75, 0.25), 0)
    assert [len(p.fields) for p in parts] == [30, 10]
    assert not {f.group for f in parts[0].fields} & {f.group for f in parts[1].fields}


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.2, -0.2), (0.5,)])
def test_fractions_must_add_up_to_one(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        grouped_split(made_up(), fractions, 0)


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(DataSetError, match="3 groups of cells cannot be shared out over 4 folds"):
        grouped_folds(made_up(3), 4, 0)


@pytest.mark.parametrize(
    ("image", "group"),
    [
        ("JPEGImages/BloodImage_00395.jpg", "bccd:00382"),
        ("JPEGImages/BloodImage_00382.jpg", "bccd:00382"),
        ("BloodImage_00165.jpg", "bccd:00165"),
        ("BloodImage_00166.jpg", "bccd:00165"),  # over 193, which both show
        ("BloodImage_00000.jpg", "bccd:00000"),
        ("images/TEST_SIMPLE/EOSINOPHIL/_0_5239.webp", "bccd:00093"),
        ("images/TEST_SIMPLE/EOSINOPHIL/_0_5239.jpeg", "bccd:00093"),
        ("images/B-30_0047.webp", "chula:B-30"),
        ("images/N-3B_0047.webp", "chula:N-3B"),
        ("images/train/12_JPG.rf.0a1b.jpg", "mine:12_JPG"),
        ("images/val/12_JPG.rf.ffff.jpg", "mine:12_JPG"),
        ("a/1.png", "mine:a/1"),
    ],
)
def test_the_group_of_an_image(tmp_path: Path, image: str, group: str) -> None:
    assert Grouping("mine", tmp_path).of(tmp_path / image) == group


def test_a_users_own_groups_come_first(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("image,group\na/1.png,patient 7\na/2.png,patient 7\n")
    grouping = Grouping("mine", tmp_path)
    assert grouping.of(tmp_path / "a" / "1.png") == grouping.of(tmp_path / "a" / "2.png") == "mine:patient 7"
    (tmp_path / "groups.csv").write_text("image,patient\n1,2\n")
    with pytest.raises(AnnotationError, match=r'groups\.csv: needs the columns "image" and "group"'):
        Grouping("mine", tmp_path)


def made_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def test_the_nearest_table_of_groups_holds(tmp_path: Path) -> None:
    """As where the crops of several slides lie in a folder each."""
    names = ["s1/monocyte/a_1.png", "s1/monocyte/a_2.png", "s2/monocyte/a_1.png", "s2/basophil/b_1.png"]
    root = made_tree(tmp_path / "mine", *names)
    for slide in ("s1", "s2"):
        (root / slide / "groups.csv").write_text("image,group\na_1,photo a\na_2,photo a\n")
    (root / "groups.csv").write_text("image,group\nb_1.png,patient 7\ns1/monocyte/a_1.png,patient 8\n")
    dataset = load_dataset(root)
    assert {s.image.relative_to(root).as_posix(): s.group for s in dataset.samples} == {
        "s1/monocyte/a_1.png": "mine/s1:photo a",
        "s1/monocyte/a_2.png": "mine/s1:photo a",
        "s2/monocyte/a_1.png": "mine/s2:photo a",
        "s2/basophil/b_1.png": "mine:patient 7",
    }
    assert dataset.problems == ("s2/groups.csv: 1 rows have no image here; left out.",)


@pytest.mark.parametrize(
    "row", ["./monocyte/1.png", "/home/me/mine/monocyte/1.png", "C:\\mine\\monocyte\\1.PNG", "mine/monocyte/1", "1"]
)
def test_rows_are_found_whose_path_begins_elsewhere(tmp_path: Path, row: str) -> None:
    root = made_tree(tmp_path / "mine", "monocyte/1.png", "monocyte/2.png")
    (root / "groups.csv").write_text(f"image,group\n{row},patient 7\n2.png,patient 7\n")
    dataset = load_dataset(root)
    assert dataset.groups == ("mine:patient 7",) * 2
    assert not dataset.problems


def test_rows_without_an_image_are_told(tmp_path: Path) -> None:
    root = made_tree(tmp_path / "mine", "monocyte/1.png", "lymphocyte/1.png", "monocyte/2.png")
    (root / "groups.csv").write_text("image,group\n2.png,a\n3.png,a\nelsewhere/1.png,a\n")
    dataset = load_dataset(root)
    assert sorted(dataset.groups) == ["mine:a", "mine:lymphocyte/1", "mine:monocyte/1"]
    assert dataset.problems == ("groups.csv: 2 rows have no image here; left out.",)


def test_only_the_suffix_of_an_image_is_dropped(tmp_path: Path) -> None:
    root = made_tree(tmp_path / "mine", "monocyte/smear.x_1.png", "monocyte/smear.x_2.png", "monocyte/smear.TIF.png")
    (root / "groups.csv").write_text("image,group\nsmear.x_1,p\nsmear.x_2.png,p\nsmear.tif.png,p\n")
    assert load_dataset(root).groups == ("mine:p",) * 3


def test_every_kaggle_image_has_a_bccd_original_in_the_files() -> None:
    kaggle = {image: group for image, group in known_groups().items() if image.startswith("T")}
    parts = Counter(image.partition("/")[0] for image in kaggle)
    assert parts == {"TRAIN": 9957, "TEST": 2487, "TEST_SIMPLE": 71}
    copies = Counter((image.split("/")[:2][0], image.split("/")[1], group) for image, group in kaggle.items())
    once = {
        ("TEST", "EOSINOPHIL"): 48,
        ("TEST", "LYMPHOCYTE"): 103,
        ("TEST", "MONOCYTE"): 155,
        ("TEST", "NEUTROPHIL"): 13,
    }
    once |= {("TRAIN", "EOSINOPHIL"): 33, ("TRAIN", "LYMPHOCYTE"): 92, ("TRAIN", "MONOCYTE"): 155}
    for (part, name, group), number in copies.items():  # each original was copied equally often
        if (part, name) in once:
            rest = number % once[part, name]
            assert min(rest, once[part, name] - rest) <= 3, (part, name, group, number)
    assert set(kaggle.values()) <= {group for image, group in known_groups().items() if image.startswith("BloodImage")}


@pytest.mark.data
def test_kaggle_and_bccd_share_their_groups(shared_data: Path) -> None:
    kaggle, bccd = load_dataset(shared_data / "kaggle"), load_dataset(shared_data / "bccd")
    assert all(group.startswith("bccd:") for group in kaggle.groups)
    test = {s.group for s in kaggle.samples if s.split in ("TEST", "TEST_SIMPLE")}
    clean = bccd.where(lambda s: s.group not in test)
    assert len(test) == 69  # 71 originals, two of them photographed twice
    assert {"bccd:00062", "bccd:00095"} <= test  # in TEST, but not in TEST_SIMPLE
    assert 0 < len(clean) < len(bccd)
    assert not test & {f.group for f in clean.fields}
