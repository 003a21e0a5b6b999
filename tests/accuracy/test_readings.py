"""Cells that the eye reads otherwise than their source: found again, with their copies, and how they are trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.accuracy import trunk
from benchmarks.accuracy.cells import AllCells, read_parts
from benchmarks.accuracy.readings import TABLE, doubtful, read_otherwise

from napari_bloodcells.core.datasets import Sample
from napari_bloodcells.core.training.augment import AugmentSettings, augment


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
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = [tuple(row[name] for name in ("source", "image", "x_min", "y_min", "x_max", "y_max")) for row in rows]
    assert len(set(places)) == len(rows) == 45
    assert not {(row["source"], Path(row["image"]).name) for row in rows} & set(read_parts())
    assert {row["read"] for row in rows} == {"", "neutrophil"}
    count = np.unique([row["source"] for row in rows], return_counts=True)
    assert dict(zip(count[0].tolist(), count[1].tolist(), strict=True)) == {"bccd": 36, "cellavision": 8, "jtsc": 1}


@pytest.mark.parametrize(("own_look", "stains"), [(True, {0.35, 0.0}), (False, {0.35})])
def test_cells_read_otherwise_are_shown_in_their_own_look_where_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_look: bool, stains: set[float]
) -> None:
    seen: list[tuple[float, int]] = []

    def noting(crops: torch.Tensor, extent: torch.Tensor, changes: AugmentSettings, *more: torch.Generator) -> object:
        seen.append((changes.stain, len(crops)))
        return augment(crops, extent, changes, *more)

    monkeypatch.setattr(trunk, "augment", noting)
    n, doubted = 8, np.arange(8) % 2 == 0
    cells = AllCells(
        torch.full((n, 3, 120, 120), 200, dtype=torch.uint8),
        torch.full((n,), 50.0),
        np.arange(n),
        np.array(["bccd"] * n),
        np.array([f"g{i}" for i in range(n)]),
        np.zeros(n, np.int64),
        doubted,
    )
    settings = trunk.TrunkSettings(minutes=0.001, batch_size=16, own_look=own_look)
    weights = trunk.train_trunk(cells, np.ones(n, bool), settings, tmp_path / "one.checkpoint")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert {stain for stain, _ in seen} == stains
    assert all(0 < size < 16 for stain, size in seen if stain == 0)
