"""All labeled cells of the seven sources as one tensor, and which part each belongs to.

The parts are by group, so copies of one cell are on one side.  ``pbc`` has 70 % training, 15 % validation and 15 % test
cells; the originals of Kaggle's TEST_SIMPLE are the test part of ``bccd``; of everything else 15 % are for validation
(choosing a model, temperature, thresholds).  ``kaggle`` itself is no source: its cells are those of ``bccd``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import DataSet, load_dataset
from napari_bloodcells.core.groups import grouped_split
from napari_bloodcells.core.pack import pack_crops

SOURCES = ("bccd", "pbc", "jtsc", "cellavision", "misp", "chula", "raabin")
SCHEME = "pbc8"
WIDE = CropSpec(size=120, side_um=30.0)
"""Half as much again as the network sees, to rotate and zoom in."""
SEEN = 80
TRAIN, VALIDATION, TEST = 0, 1, 2
SEED = 0


@dataclass(frozen=True)
class AllCells:
    """N cells: ``wide`` (N, 3, 120, 120) uint8, ``extent`` (N,), ``labels`` (N,) in ``SCHEME``, ``part`` (N,)."""

    wide: Tensor
    extent: Tensor
    labels: NDArray[np.int64]
    sources: NDArray[np.str_]
    groups: NDArray[np.str_]
    part: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def crops(self, at: NDArray[np.intp]) -> Tensor:
        """The cells at positions ``at`` as they are counted: (n, 3, 80, 80) uint8."""
        edge = (WIDE.size - SEEN) // 2
        return self.wide[torch.from_numpy(at)][:, :, edge : edge + SEEN, edge : edge + SEEN].contiguous()


def gather(data: Path) -> AllCells:
    """Read, cut and part all sources (minutes the first time; kept in the cache of packs)."""
    scheme = load_scheme(SCHEME)
    held = kaggle_test_originals(data)
    packs, parts = [], []
    for source in SOURCES:
        cells = load_dataset(data / source).in_scheme(scheme).labeled()
        packs.append(pack_crops(cells, WIDE, scheme))
        part_of = parts_of(cells, held)
        parts.append(np.array([part_of[g] for g in packs[-1].groups], np.int64))
    return AllCells(
        torch.cat([p.crops for p in packs]),
        torch.cat([p.extent for p in packs]),
        np.concatenate([p.labels.numpy() for p in packs]),
        np.array([s for p in packs for s in p.sources]),
        np.array([g for p in packs for g in p.groups]),
        np.concatenate(parts),
    )


def kaggle_test_originals(data: Path) -> set[str]:
    """Groups of the cells in Kaggle's TEST_SIMPLE, whose augmented copies are its TEST."""
    kaggle = load_dataset(data / "kaggle")
    return {s.group for s in kaggle.samples if s.split in ("TEST", "TEST_SIMPLE") and s.group.startswith("bccd:")}


def parts_of(cells: DataSet, held: set[str]) -> dict[str, int]:
    """Part of each group of a source."""
    if cells.name == "pbc":
        split = grouped_split(cells, (0.70, 0.15, 0.15), SEED)
    else:
        split = grouped_split(cells.where(lambda s: s.group not in held), (0.85, 0.15), SEED)
    part_of = {group: part for part, cut in enumerate(split) for group in cut.groups}
    return {group: part_of.get(group, TEST) for group in cells.groups}
