"""All labeled cells of the seven sources as one tensor, and which part each belongs to.

The parts stand in ``parts.csv``, which was drawn once by ``grouped_split`` (seed 0) and is kept, so that better groups
found later do not move test cells into the training of weights that exist: ``pbc`` has 15 % validation and 15 % test
cells; the originals of Kaggle's TEST_SIMPLE are the test part of ``bccd``; of everything else 15 % are for validation
(choosing a model, temperature, thresholds).  A held-out cell that shares its group with a training cell is not used.
``kaggle`` itself is no source: its cells are those of ``bccd``, of which its training copies can be taken as well; the
cells of two more sources that were named by eye (``by_eye.py``) are all for training.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy import by_eye
from benchmarks.accuracy.copies import training_copies
from benchmarks.accuracy.readings import doubtful
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import DataSet, load_dataset
from napari_bloodcells.core.training.pack import pack_crops

SOURCES = ("bccd", "pbc", "jtsc", "cellavision", "misp", "chula", "raabin")
SCHEME = "pbc8"
WIDE = CropSpec(size=120, side_um=30.0)
"""Half as much again as the network sees, to rotate and zoom in."""
SEEN = 80
TRAIN, VALIDATION, TEST, UNUSED = 0, 1, 2, 3
PARTS = Path(__file__).parent / "parts.csv"


@dataclass(frozen=True)
class AllCells:
    """N cells: ``wide`` (N, 3, 120, 120) uint8, ``extent`` (N,), ``labels`` (N,) in ``SCHEME``, ``part`` (N,), and
    whether the eye reads the cell otherwise (``readings.py``), ``doubtful`` (N,)."""

    wide: Tensor
    extent: Tensor
    labels: NDArray[np.int64]
    sources: NDArray[np.str_]
    groups: NDArray[np.str_]
    part: NDArray[np.int64]
    doubtful: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def crops(self, at: NDArray[np.intp]) -> Tensor:
        """The cells at positions ``at`` as they are counted: (n, 3, 80, 80) uint8."""
        edge = (WIDE.size - SEEN) // 2
        return self.wide[torch.from_numpy(at)][:, :, edge : edge + SEEN, edge : edge + SEEN].contiguous()


def gather(data: Path, copies: bool = False, read_by_eye: bool = False) -> AllCells:
    """Read, cut and part all sources (minutes the first time; kept in the cache of packs).

    ``copies`` adds those of ``copies.py``, and ``read_by_eye`` those of ``by_eye.py``, for trainings.
    """
    scheme = load_scheme(SCHEME)
    part_of = read_parts()
    sets = [load_dataset(data / s).in_scheme(scheme).labeled() for s in SOURCES]
    if copies:
        held_out = {s.group for cells in sets for s in cells.samples if (s.source, s.image.name) in part_of}
        sets.append(training_copies(data, held_out))
    if read_by_eye:
        sets += [by_eye.cells_by_eye(data, source).in_scheme(scheme) for source in by_eye.SOURCES]
    packs = [pack_crops(cells, WIDE, scheme) for cells in sets]
    sources = np.array([s for p in packs for s in p.sources])
    groups = np.array([g for p in packs for g in p.groups])
    images = [i for p in packs for i in p.images]
    part = np.array([part_of.get((s, i), TRAIN) for s, i in zip(sources.tolist(), images, strict=True)], np.int64)
    trained = np.unique(groups[part == TRAIN])
    part[(part != TRAIN) & np.isin(groups, trained)] = UNUSED
    return AllCells(
        torch.cat([p.crops for p in packs]),
        torch.cat([p.extent for p in packs]),
        np.concatenate([p.labels.numpy() for p in packs]),
        sources,
        groups,
        part,
        doubtful([sample for cells in sets for sample in cells.samples]),
    )


def read_parts() -> dict[tuple[str, str], int]:
    """Part of each held-out photograph, by source and file name."""
    number = {"validation": VALIDATION, "test": TEST}
    with PARTS.open(encoding="utf-8", newline="") as file:
        return {(row["source"], row["image"]): number[row["part"]] for row in csv.DictReader(file)}


def part_of_source(data: Path, source: str, part: int) -> DataSet:
    """The labeled cells of one part of a source as a data set, for ``evaluate`` and ``train``."""
    part_of = read_parts()
    cells = load_dataset(data / source).labeled()
    if source == "bccd":  # parted otherwise than its publisher did, and ``train`` would leave out the latter's test
        cells = replace(cells, samples=tuple(replace(s, split=None) for s in cells.samples))

    def number(image: Path) -> int:
        return part_of.get((source, image.name), TRAIN)

    trained = {s.group for s in cells.samples if number(s.image) == TRAIN}
    return cells.where(lambda s: number(s.image) == part and (part == TRAIN or s.group not in trained))
