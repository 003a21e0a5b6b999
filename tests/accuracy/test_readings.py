"""Cells that the eye reads otherwise than their source are found again, and so are their copies."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from benchmarks.accuracy.readings import TABLE, doubtful, read_otherwise

from napari_bloodcells.core.datasets import Sample


def bccd(number: int, box: tuple[float, float, float, float], label: str = "eosinophil") -> Sample:
    return Sample(Path(f"BloodImage_{number:05d}.jpg"), box, label, f"bccd:{number:05d}", "bccd")


def copy_of(number: int, label: str = "eosinophil") -> Sample:
    return Sample(Path(f"_{number}_1.webp"), (0, 0, 50, 50), label, f"bccd:{number:05d}", "kaggle")


def test_a_reading_is_that_of_its_box_and_goes_to_the_copies() -> None:
    samples = [
        bccd(23, (98, 34, 281, 206)),  # read as a neutrophil
        bccd(23, (1, 1, 50, 50)),  # another box of the same image
        bccd(45, (491, 21, 633, 144)),  # a doubt
        bccd(10, (5, 5, 90, 90)),  # not in the table
        copy_of(45),
        copy_of(45, "lymphocyte"),
        copy_of(10),
    ]
    assert read_otherwise(samples) == {0: "neutrophil", 2: "", 4: ""}
    assert doubtful(samples).tolist() == [True, False, True, False, True, False, False]
    assert doubtful([]).shape == (0,)


def test_a_copy_of_two_cells_of_one_label_of_which_one_is_sure_is_left_as_it_is() -> None:
    samples = [bccd(44, (1, 40, 121, 154)), bccd(44, (300, 200, 420, 330)), copy_of(44)]
    assert read_otherwise(samples) == {0: ""}


def test_the_table_names_no_held_out_cell_twice_and_knows_its_classes() -> None:
    from benchmarks.accuracy.cells import read_parts

    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = [tuple(row[name] for name in ("source", "image", "x_min", "y_min", "x_max", "y_max")) for row in rows]
    assert len(set(places)) == len(rows) == 45
    assert not {(row["source"], Path(row["image"]).name) for row in rows} & set(read_parts())
    assert {row["read"] for row in rows} == {"", "neutrophil"}
    count = np.unique([row["source"] for row in rows], return_counts=True)
    assert dict(zip(count[0].tolist(), count[1].tolist(), strict=True)) == {"bccd": 36, "cellavision": 8, "jtsc": 1}
