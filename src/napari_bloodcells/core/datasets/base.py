"""What a data set is, whatever its folder looks like: cells with a type (``Sample``) and fields with boxes.

Every reader of this room makes a ``DataSet``.  A ``Sample`` is one white cell (or one whole image of one), a
``FieldTruth`` is one photograph with all boxes that its source drew.  ``group`` names the original cell or slide:
copies, augmentations and re-photographs of one original carry the same group, and no split parts a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, touches_border

if TYPE_CHECKING:
    from napari_bloodcells.core.classes import ClassScheme

RED_CELL_UM = 7.5
REVIEWED, MACHINE = "reviewed", "machine"
"""Who named a cell, as the file name of its crop says."""
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "test_simple": "test",
}
"""What publishers call the parts of their data, and which part each is."""


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where ``name`` is what publishers call such a part, else None.

    >>> part_of("Valid"), part_of("Test Simple"), part_of("slides")
    ('val', 'test', None)
    """
    return SPLITS.get(name.casefold().replace(" ", "_"))


@dataclass(frozen=True)
class Sample:
    """One white cell with what is known of it.

    Attributes
    ----------
    image : Path
        The photograph.
    box : (x_min, y_min, x_max, y_max) or None
        In pixels of the photograph (convention of ``core.boxes``); None where the whole image is the cell.
    label : str or None
        Canonical class name, or None where nobody said what the cell is.
    group : str
        The original cell or slide, unique over all data sets (``bccd:00382``, ``chula:B-30``).
    source : str
        Name of the data set.
    split : str or None
        The part that the publisher put it in (``TRAIN``, ``Testing``, ``val``), None where there are none.
    sure : bool
        Whether the label is beyond doubt, as far as the source says; train on the sure ones.
    um_per_pixel : float or None
        Scale of the field where it is known: from its boxed red cells, or as it was counted.
    detail : str or None
        A finer type that the source tells (``band neutrophil``), used by schemes that have it as a class.
    """

    image: Path
    box: tuple[float, float, float, float] | None
    label: str | None
    group: str
    source: str
    split: str | None = None
    sure: bool = True
    um_per_pixel: float | None = None
    detail: str | None = None


@dataclass(frozen=True)
class FieldTruth:
    """One photograph with every box of its source, labeled ``WBC``, ``RBC``, ``Platelets`` or ``ignore``.

    ``classes`` says which of the first three the source drew at all: where ``RBC`` is missing from it, red cells are
    present in the picture but not boxed; so may white cells be where ``WBC`` is.
    ``group`` and ``split`` are those of the samples.
    """

    image: Path
    boxes: Boxes
    group: str = ""
    split: str | None = None
    classes: frozenset[str] = frozenset({"WBC"})


@dataclass(frozen=True)
class DataSet:
    """A folder of labeled photographs, read.

    Attributes
    ----------
    name : str
        Name of the folder (``bccd``).
    root : Path
        The folder.
    samples : tuple of Sample
        The cells, in natural order of their images.
    reader : str
        Which reader understood the folder (``voc``, ``tree``, ``table``, ``yolo``, ``boxes``, ``images``).
    fields : tuple of FieldTruth
        The photographs with boxes, empty for data sets of single cells.
    problems : tuple of str
        Defects that were worked around, one line each, naming the file.
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    reader: str
    fields: tuple[FieldTruth, ...] = ()
    problems: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each sample."""
        return tuple(s.label for s in self.samples)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each sample."""
        return tuple(s.group for s in self.samples)

    def counts(self) -> dict[str, int]:
        """How many cells each label has; cells without a label are not counted."""
        names = sorted({s.label for s in self.samples if s.label})
        return {name: sum(s.label == name for s in self.samples) for name in names}

    def where(self, keep: Callable[[Sample], bool]) -> DataSet:
        """The samples for which ``keep`` is true, and the fields of their groups."""
        samples = tuple(s for s in self.samples if keep(s))
        return self._with(samples)

    def take(self, index: Iterable[int]) -> DataSet:
        """The samples at the positions ``index``, and the fields of their groups."""
        return self._with(tuple(self.samples[i] for i in index))

    def labeled(self, sure_only: bool = True) -> DataSet:
        """Only the cells that carry a label (and, unless told otherwise, a sure one)."""
        return self.where(lambda s: s.label is not None and (s.sure or not sure_only))

    def part(self, split: str) -> DataSet:
        """Only what the publisher put into ``split`` (``TRAIN``, ``TEST``, ``val``; case does not matter).

        Where no part has that name, the parts of other names for it are taken: ``test`` is also ``Testing``.
        """
        there = {s.split for s in self.samples if s.split} | {f.split for f in self.fields if f.split}
        wanted = {name for name in there if name.casefold() == split.casefold()}
        wanted = wanted or {name for name in there if part_of(name) and part_of(name) == part_of(split)}
        fields = tuple(f for f in self.fields if f.split in wanted)
        return replace(self, samples=tuple(s for s in self.samples if s.split in wanted), fields=fields)

    def in_scheme(self, scheme: ClassScheme) -> DataSet:
        """The same cells with the labels of ``scheme``; a label that the scheme does not know becomes None."""

        def label(sample: Sample) -> str | None:
            for name in (sample.detail, sample.label):
                index = scheme.index(name) if name else None
                if index is not None:
                    return scheme.names[index]
            return None

        return replace(self, samples=tuple(replace(s, label=label(s)) for s in self.samples))

    def _with(self, samples: tuple[Sample, ...]) -> DataSet:
        groups = {s.group for s in samples}
        return replace(self, samples=samples, fields=tuple(f for f in self.fields if f.group in groups))


def scale_of_red_cells(rbc: Boxes, height: int, width: int) -> float | None:
    """Micrometers per pixel of a field from its boxed red cells, or None where fewer than three are whole.

    A red cell is 7.5 um across; its size here is the geometric mean of its box's sides, and the field's is the median
    over the boxes that do not touch the border of the ``height`` x ``width`` pixel image.

    >>> squares = np.array([[10, 10, 85, 85], [100, 10, 175, 85], [200, 10, 275, 85]])
    >>> scale_of_red_cells(Boxes(squares, ("RBC",) * 3), 300, 300)
    0.1
    """
    whole: NDArray[np.float32] = rbc.xyxy[~touches_border(rbc.xyxy, height, width)]
    if len(whole) < 3:
        return None
    sides = np.sqrt((whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1]))
    return RED_CELL_UM / float(np.median(sides))
