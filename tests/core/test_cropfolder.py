"""The class folders that ``crop`` writes are a data set again, and hold the cells that the boxes were around."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.cropfolder import write_crops
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import load_dataset, open_datasets
from napari_bloodcells.core.errors import DataWarning, OutputError
from napari_bloodcells.core.voc import write_voc


def smear(root: Path) -> None:
    root.mkdir()
    pixels = np.full((120, 200, 3), 235, np.uint8)
    pixels[30:70, 20:60] = (250, 30, 40)
    pixels[40:80, 120:160] = (40, 30, 250)
    for suffix in ("png", "bmp"):
        Image.fromarray(pixels).save(root / f"a.{suffix}")
    boxes = Boxes(np.array([[20, 30, 60, 70], [120, 40, 160, 80]]), ("eosinophil", "lymphocyte"))
    write_voc(root / "a.xml", boxes, image="a.png", width=200, height=120)
    write_voc(root / "b.xml", boxes, image="a.bmp", width=200, height=120)


def test_crops_go_to_the_folder_of_their_class(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    written = write_crops(load_dataset(tmp_path / "data"), CropSpec(size=32, white=False), tmp_path / "out")
    assert written.counts == {"eosinophil": 2, "lymphocyte": 2}
    again = load_dataset(tmp_path / "out")
    assert again.reader == "tree"
    assert again.counts() == written.counts
    for sample in again.samples:
        center = np.asarray(Image.open(sample.image))[16, 16]
        assert (center[0] > center[2]) == (sample.label == "eosinophil")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    with pytest.raises(OutputError, match="data: is not empty"):
        write_crops(load_dataset(tmp_path / "data"), CropSpec(size=32), tmp_path / "data")


def test_a_photograph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    (tmp_path / "data" / "a.png").write_text("rubbish")
    written = write_crops(dataset, CropSpec(size=32), tmp_path / "out")
    assert written.failed == 1
    assert sum(written.counts.values()) == 2
    assert any(p.startswith("a.png: ") for p in written.problems)


def test_crops_of_one_photograph_are_one_group_wherever_they_are_sorted(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    write_crops(load_dataset(tmp_path / "data"), CropSpec(size=32, white=False), tmp_path / "out")
    groups = {s.image.stem: s.group for s in load_dataset(tmp_path / "out").samples}
    assert len(groups) == len(load_dataset(tmp_path / "data").samples) == 4
    assert len(set(groups.values())) == len(set(load_dataset(tmp_path / "data").groups))
    for file in (tmp_path / "out" / "eosinophil").iterdir():
        file.rename(tmp_path / "out" / "lymphocyte" / file.name)
    assert {s.image.stem: s.group for s in load_dataset(tmp_path / "out").samples} == groups


def test_crops_are_of_the_same_originals_as_their_photographs(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    for suffix in ("xml", "png"):
        (tmp_path / "data" / f"a.{suffix}").rename(tmp_path / "data" / f"BloodImage_00395.{suffix}")
    photographs = load_dataset(tmp_path / "data")
    assert set(photographs.groups) == {"bccd:00382", "data:a"}
    write_crops(photographs, CropSpec(size=32, white=False), tmp_path / "out")
    crops = load_dataset(tmp_path / "out")
    assert sorted(crops.groups) == sorted(photographs.groups)
    write_crops(crops, CropSpec(size=32, white=False), tmp_path / "again")
    assert sorted(load_dataset(tmp_path / "again").groups) == sorted(photographs.groups)
    # known originals need no mark, as in a table of a former version
    rows = (tmp_path / "out" / "groups.csv").read_text().splitlines()
    assert rows[0] == "image,group,complete"
    (tmp_path / "out" / "groups.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    assert set(load_dataset(tmp_path / "out").groups) == {"bccd:00382", "out:data:a"}


def test_crops_of_photographs_of_one_name_keep_their_groups(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    cells = (replace(dataset.samples[0], group="one"), replace(dataset.samples[3], group="two"))
    write_crops(replace(dataset, samples=cells), CropSpec(size=32), tmp_path / "out", names=["a_1", "a_1"])
    assert {s.label: s.group for s in load_dataset(tmp_path / "out").samples} == {
        "eosinophil": "out:one",
        "lymphocyte": "out:two",
    }


def test_crops_that_a_machine_named_are_remarked(tmp_path: Path) -> None:
    smear(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    names = ["a_1_machine", "a_2_reviewed", "b_1_machine", "b_2_machine"]
    write_crops(dataset, CropSpec(size=32), tmp_path / "out", names=names)
    with pytest.warns(DataWarning, match=r"out: 3 of 4 crops have the class that a machine gave them"):
        open_datasets(tmp_path / "out")
