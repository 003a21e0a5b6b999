"""The cells of a training: data sets in, crops with classes out, parted into training and validation by groups.

All data sets are split as one, because they share originals (``kaggle`` is made of ``bccd``): no copy, augmentation or
re-photograph of a validation cell is trained on, nor a picture that is the same to the byte.  What a publisher set
apart as a test stays out, with all cells of the same originals, unless the recipe says ``use_test``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.classes import ClassScheme, load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.datasets import Data, DataSet, open_datasets
from napari_bloodcells.core.datasets.base import part_of
from napari_bloodcells.core.errors import DataSetError, DataWarning
from napari_bloodcells.core.groups import grouped_split
from napari_bloodcells.core.progress import Progress
from napari_bloodcells.core.training.pack import CropPack, pack_crops
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.samecells import with_copies_joined

WIDER = 1.5


@dataclass(frozen=True)
class Cells:
    """N cells.

    ``crops`` (N, 3, S, S) uint8 as they are counted, ``labels`` (N,) int64, ``groups`` and ``sources`` N names each.
    For the ``stain`` augmentation also ``wide`` (N, 3, W, W), the same with half as much again around them to rotate
    and zoom in, and ``extent`` (N,), the longest side of each cell's box in pixels of these; else of ``crops``.
    """

    crops: Tensor
    labels: Tensor
    groups: NDArray[np.str_]
    sources: NDArray[np.str_]
    extent: Tensor
    wide: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, keep: NDArray[np.bool_]) -> Cells:
        """The cells for which ``keep`` (N,) is true."""
        at = torch.from_numpy(np.flatnonzero(keep))
        wide = None if self.wide is None else self.wide[at]
        return Cells(self.crops[at], self.labels[at], self.groups[keep], self.sources[keep], self.extent[at], wide)

    def counts(self, scheme: ClassScheme) -> dict[str, dict[str, int]]:
        """Cells by source and class name."""
        pairs = Counter(zip(self.sources.tolist(), self.labels.tolist(), strict=True))
        return {
            source: {name: pairs[source, i] for i, name in enumerate(scheme.names) if pairs[source, i]}
            for source in sorted(set(self.sources.tolist()))
        }

    def fingerprint(self) -> str:
        """SHA-256 over crops, labels and groups: the same cells in the same order."""
        digest = hashlib.sha256(self.crops.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        digest.update("\n".join(self.groups.tolist()).encode())
        return digest.hexdigest()


def gather(data: Data, recipe: Recipe, progress: Progress) -> tuple[Cells, Cells, ClassScheme]:
    """Read, crop and split the data of a training.

    Returns
    -------
    training, validation : Cells
    scheme : ClassScheme

    Raises
    ------
    DataSetError
        If there is no labeled cell, fewer than two classes, or nothing is left for validation.
    """
    scheme = load_scheme(recipe.scheme)
    sets = [d.in_scheme(scheme).labeled() for d in open_datasets(data, scheme)]
    names = ", ".join(d.name for d in sets)
    nothing = f"{names}: no labeled cell of the classes {', '.join(scheme.names)}; see data info."
    if not any(len(d) for d in (sets if recipe.use_test else without_tests(sets))):
        raise DataSetError(nothing)
    sets = [d for d in sets if len(d)]
    # what is set apart as a test is cut too, or copies of it could not be seen
    packs = with_copies_joined([pack_crops(d, recipe.crop, scheme, progress) for d in sets])
    sets = [_in_groups(d, p.groups) for d, p in zip(sets, packs, strict=True)]
    cells = join(packs)
    del packs  # the crops are in ``cells``
    if not recipe.use_test and any(part_of(s.split or "") == "test" for d in sets for s in d.samples):
        sets = without_tests(sets)
        if not any(len(d) for d in sets):
            raise DataSetError(nothing)
        cells = cells.take(np.isin(cells.groups, [group for d in sets for group in d.groups]))
    merged = DataSet(names, sets[0].root, tuple(s for d in sets for s in d.samples), "merged")
    held = set(grouped_split(merged, (1 - recipe.val_fraction, recipe.val_fraction), recipe.seed)[1].groups)
    sets = [d for d in sets if len(d)]
    in_validation = np.isin(cells.groups, sorted(held))
    training, validation = cells.take(~in_validation), cells.take(in_validation)
    if recipe.augment == "stain":
        packs = [pack_crops(d, widened(recipe.crop), scheme, progress) for d in sets]
        kept = torch.from_numpy(np.flatnonzero(~in_validation))
        wide, extent = torch.cat([p.crops for p in packs])[kept], torch.cat([p.extent for p in packs])[kept]
        training = replace(training, wide=wide, extent=extent)
    missing = [name for i, name in enumerate(scheme.names) if not (training.labels == i).any()]
    if len(scheme.names) - len(missing) < 2:
        raise DataSetError(f"{names}: cells of only one class to train on; a classifier needs two.")
    if not len(validation):
        raise DataSetError(f"{names}: all cells are of one group (groups.csv); validation needs another beside it.")
    if missing:
        warnings.warn(
            f"{names}: no cell of {', '.join(missing)}: the model will never say so.", DataWarning, stacklevel=2
        )
    return training, validation, scheme


def widened(crop: CropSpec) -> CropSpec:
    """The crop settings with half as much again on each axis, at the same scale."""
    return replace(crop, size=round(crop.size * WIDER), side_um=crop.side_um * WIDER, context=crop.context * WIDER)


def join(packs: Iterable[CropPack]) -> Cells:
    """The cells of several packs, one after the other."""
    found = list(packs)
    return Cells(
        torch.cat([p.crops for p in found]),
        torch.cat([p.labels for p in found]),
        np.array([g for p in found for g in p.groups]),
        np.array([s for p in found for s in p.sources]),
        torch.cat([p.extent for p in found]),
    )


def _in_groups(dataset: DataSet, groups: Iterable[str]) -> DataSet:
    pairs = zip(dataset.samples, groups, strict=True)
    return replace(dataset, samples=tuple(replace(sample, group=group) for sample, group in pairs))


def without_tests(sets: list[DataSet]) -> list[DataSet]:
    """The data sets without what their publishers call a test, and without all other cells of the same originals."""
    held = {s.group for d in sets for s in d.samples if part_of(s.split or "") == "test"}
    return [replace(d, samples=tuple(s for s in d.samples if s.group not in held)) for d in sets]
