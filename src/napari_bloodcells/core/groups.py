"""Which photographs show the same original cell, and splits that never part them.

What is known stands in ``datasets/groups/*.csv`` (columns ``image`` and ``group``), made by
``benchmarks/accuracy/find_groups.py``: BCCD's re-photographed cells, the BCCD original of every augmented Kaggle
image, PBC's identical pairs.  By name are known the slide of a Chula field (``B-30_0047``) and the original of
Roboflow's copies.  A user's own ``groups.csv`` goes before these, for the images of its folder and those below.
Anything else is a group of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.datasets.base import DataSet
from napari_bloodcells.core.datasets.tables import IMAGE_COLUMNS, ImageIndex, column, read_table, without_suffix
from napari_bloodcells.core.errors import AnnotationError, DataSetError

_CHULA = re.compile(r"[BELMN]-\d+[A-Z]?(?=_\d{3,}$)")
USER_TABLE = "groups.csv"
COMPLETE = "complete"
"""Column of that table: ``yes`` where the group is already named after its data set, as ``crop`` writes it."""


class Grouping:
    """Says the group of each image of one data set.

    Parameters
    ----------
    name : str
        Name of the data set; stands before the groups that are only known here.
    root : Path
        Its folder, which may hold a ``groups.csv``, as may each folder in it; of several tables the nearest holds.
    images : iterable of Path
        All its images, by which rows are found that name a path from elsewhere.

    Attributes
    ----------
    problems : list of str
        What in the tables belongs to none of the images, one line a table.

    Raises
    ------
    AnnotationError
        If a table cannot be read or lacks a column.
    """

    def __init__(self, name: str, root: Path, images: Iterable[Path] = ()) -> None:
        self._name, self._root = name, root
        self._tables: dict[Path, _UserTable | None] = {}
        self.problems: list[str] = []
        listed = list(images)
        for folder in sorted({root, *(up for image in listed for up in image.parents if up.is_relative_to(root))}):
            table = self._table(folder)
            missing = table.find_moved(listed) if table and listed else 0
            if missing:
                place = (folder / USER_TABLE).relative_to(root).as_posix()
                self.problems.append(f"{place}: {missing} rows have no image here; left out.")

    def of(self, image: Path) -> str:
        """The group of ``image`` (inside of the data set's folder)."""
        parts = image.relative_to(self._root).with_suffix("").parts
        for depth in range(len(parts) - 1, -1, -1):
            table = self._table(self._root.joinpath(*parts[:depth]))
            found = table.group(image) if table else None
            if found is not None:
                return found.name if found.complete else f"{'/'.join((self._name, *parts[:depth]))}:{found.name}"
        keys = _endings(parts)
        for key in keys:
            if key in known_groups():
                return known_groups()[key]
        slide = _CHULA.match(parts[-1])
        if slide:
            return f"chula:{slide.group()}"
        original, copied, _ = parts[-1].partition(".rf.")
        return f"{self._name}:{original if copied else keys[0]}"

    def _table(self, folder: Path) -> _UserTable | None:
        if folder not in self._tables:
            self._tables[folder] = _UserTable(folder) if (folder / USER_TABLE).is_file() else None
        return self._tables[folder]


@dataclass(frozen=True)
class _Group:
    """A group as a table names it; ``complete``: it is the same original in whatever data set it stands."""

    name: str
    complete: bool


class _UserTable:
    """The ``groups.csv`` of a folder: names of images, each without suffix and from any folder on, and their groups."""

    def __init__(self, folder: Path) -> None:
        rows = read_table(folder / USER_TABLE)
        image = column(rows, IMAGE_COLUMNS)
        if image is None or "group" not in rows[0]:
            raise AnnotationError(f'{USER_TABLE}: needs the columns "image" and "group".')
        self._folder = folder
        self._groups = {
            without_suffix(row[image]): _Group(
                row["group"], row.get(COMPLETE, "") == "yes" or row["group"] in _originals()
            )
            for row in rows
            if row["group"]
        }
        self._moved: dict[Path, _Group] = {}

    def find_moved(self, images: Iterable[Path]) -> int:
        """Find the images of rows with a path that begins above the folder, or with a number; how many have none."""
        index = ImageIndex((image for image in images if image.is_relative_to(self._folder)), self._folder)
        missing = 0
        for name, group in self._groups.items():
            if index.holds(name):
                continue
            found = index.find(name)
            if found is None:
                missing += 1
            else:
                self._moved[found] = group
        return missing

    def group(self, image: Path) -> _Group | None:
        """What the table says of an image below its folder."""
        for key in _endings(image.relative_to(self._folder).with_suffix("").parts):
            if key.casefold() in self._groups:
                return self._groups[key.casefold()]
        return self._moved.get(image)


def _endings(parts: Sequence[str]) -> list[str]:
    """``a/b/c``, ``b/c``, ``c``."""
    return ["/".join(parts[start:]) for start in range(len(parts))]


@lru_cache(maxsize=1)
def known_groups() -> dict[str, str]:
    """Image (``BloodImage_00395``, ``TRAIN/EOSINOPHIL/_0_1169``, ``eosinophil/EO_12``; no suffix) to its group."""
    folder = files("napari_bloodcells.core.datasets") / "groups"
    known: dict[str, str] = {}
    for name in ("bccd.csv", "kaggle.csv", "pbc.csv"):
        lines = (folder / name).read_text("utf-8").splitlines()[1:]
        known.update(line.split(",", 1) for line in lines)  # type: ignore[misc]
    return known


@lru_cache(maxsize=1)
def _originals() -> frozenset[str]:
    return frozenset(known_groups().values())


def grouped_split(dataset: DataSet, fractions: Sequence[float], seed: int) -> tuple[DataSet, ...]:
    """Split a data set so that no group stands on two sides and the classes are shared out evenly.

    Parameters
    ----------
    dataset : DataSet
        Its samples, and its fields where it has any.
    fractions : sequence of float
        Share of each part, adding up to 1, as ``(0.7, 0.15, 0.15)``.
    seed : int
        The same seed gives the same split, in whatever order the samples stand.

    Returns
    -------
    tuple of DataSet
        One for each fraction.  Shares are met as well as the sizes of the groups allow; none is empty as long as there
        are as many groups as parts.
    """
    shares = np.asarray(fractions, float)
    if len(shares) < 1 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add up to 1, not {tuple(fractions)}")
    part_of = _assign(dataset, shares, seed)
    return tuple(_part(dataset, part_of, part) for part in range(len(shares)))


def grouped_folds(dataset: DataSet, k: int, seed: int) -> tuple[tuple[DataSet, DataSet], ...]:
    """``k`` pairs of (training part, held-out part); every sample is held out once, no group stands on both sides.

    Raises
    ------
    DataSetError
        If there are fewer groups than folds.
    """
    n_groups = len({*dataset.groups, *(f.group for f in dataset.fields)})
    if k < 2 or n_groups < k:
        raise DataSetError(f"{dataset.name}: {n_groups} groups of cells cannot be shared out over {k} folds.")
    part_of = _assign(dataset, np.full(k, 1 / k), seed)
    folds = []
    for held_out in range(k):
        train = {group: int(part == held_out) for group, part in part_of.items()}
        folds.append((_part(dataset, train, 0), _part(dataset, train, 1)))
    return tuple(folds)


def _assign(dataset: DataSet, shares: NDArray[np.float64], seed: int) -> dict[str, int]:
    """Group to part, as in scikit-learn's StratifiedGroupKFold: the largest groups first, each to the part that it
    brings nearest to its share of every class."""
    names = sorted({str(s.label) for s in dataset.samples})
    column_of = {name: i for i, name in enumerate(names)}
    groups = sorted({*dataset.groups, *(f.group for f in dataset.fields)})
    row_of = {group: i for i, group in enumerate(groups)}
    counts = np.zeros((len(groups), len(names) + 1))
    for sample in dataset.samples:
        counts[row_of[sample.group], column_of[str(sample.label)]] += 1
    for field in dataset.fields:
        counts[row_of[field.group], -1] += 1
    totals = counts.sum(0)
    counts = counts[:, totals > 0] / totals[totals > 0]  # each class weighs the same, however rare
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(-counts[order].max(1, initial=0), kind="stable")]
    missing = shares[:, None] * np.ones(counts.shape[1])
    part_of: dict[str, int] = {}
    for row in order:
        # What the squared distance to the shares changes by if the group goes to a part: -2 missing*c + c*c.
        gain = (missing * counts[row]).sum(1)
        part = int(np.argmax(gain - 1e-12 * np.arange(len(shares))))
        missing[part] -= counts[row]
        part_of[groups[row]] = part
    sizes = Counter(part_of.values())
    for part in range(len(shares)):
        if not sizes[part]:  # groups larger than its share each went elsewhere, as three patients do for 15 %
            moved = _least_missed(counts, [row for row in order[::-1] if sizes[part_of[groups[row]]] > 1])
            if moved is not None:
                sizes[part_of[groups[moved]]] -= 1
                sizes[part] += 1
                part_of[groups[moved]] = part
    return part_of


def _least_missed(counts: NDArray[np.float64], rows: list[int]) -> int | None:
    """Of ``rows`` (groups, the smallest first) the first that has no class for itself, else the first; None of none."""
    total = counts.sum(0)
    shared = [row for row in rows if (counts[row] < total - 1e-9)[counts[row] > 0].all()]
    return next(iter(shared + rows), None)


def _part(dataset: DataSet, part_of: dict[str, int], part: int) -> DataSet:
    from dataclasses import replace

    return replace(
        dataset,
        samples=tuple(s for s in dataset.samples if part_of[s.group] == part),
        fields=tuple(f for f in dataset.fields if part_of[f.group] == part),
    )
