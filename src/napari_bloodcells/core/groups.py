"""Which photographs show the same original cell, and splits that never part them.

What is known stands in ``datasets/groups/*.csv`` (columns ``image`` and ``group``), made by
``benchmarks/accuracy/find_groups.py``: BCCD's re-photographed cells, the BCCD original of every augmented Kaggle
image, PBC's identical pairs.  By name are known the slide of a Chula field (``B-30_0047``) and the original of
Roboflow's copies.  A user's own ``groups.csv`` in the data folder adds to these.  Anything else is a group of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.datasets.base import DataSet
from napari_bloodcells.core.datasets.tables import IMAGE_COLUMNS, column, read_table
from napari_bloodcells.core.errors import AnnotationError, DataSetError

_CHULA = re.compile(r"[BELMN]-\d+[A-Z]?(?=_\d{3,}$)")
USER_TABLE = "groups.csv"


class Grouping:
    """Says the group of each image of one data set.

    Parameters
    ----------
    name : str
        Name of the data set; stands before the groups that are only known here.
    root : Path
        Its folder, which may hold a ``groups.csv``.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._name, self._root = name, root
        self._own = _user_groups(root / USER_TABLE) if (root / USER_TABLE).is_file() else {}

    def of(self, image: Path) -> str:
        """The group of ``image`` (inside of the data set's folder)."""
        parts = image.relative_to(self._root).with_suffix("").parts
        keys = ["/".join(parts[start:]) for start in range(len(parts))]
        for key in keys:
            if key.casefold() in self._own:
                return f"{self._name}:{self._own[key.casefold()]}"
        for key in keys:
            if key in known_groups():
                return known_groups()[key]
        slide = _CHULA.match(parts[-1])
        if slide:
            return f"chula:{slide.group()}"
        original, copied, _ = parts[-1].partition(".rf.")
        return f"{self._name}:{original if copied else keys[0]}"


@lru_cache(maxsize=1)
def known_groups() -> dict[str, str]:
    """Image (``BloodImage_00395``, ``TRAIN/EOSINOPHIL/_0_1169``, ``eosinophil/EO_12``; no suffix) to its group."""
    folder = files("napari_bloodcells.core.datasets") / "groups"
    known: dict[str, str] = {}
    for name in ("bccd.csv", "kaggle.csv", "pbc.csv"):
        lines = (folder / name).read_text("utf-8").splitlines()[1:]
        known.update(line.split(",", 1) for line in lines)  # type: ignore[misc]
    return known


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


def _user_groups(path: Path) -> dict[str, str]:
    rows = read_table(path)
    image = column(rows, IMAGE_COLUMNS)
    if image is None or "group" not in rows[0]:
        raise AnnotationError(f'{path.name}: needs the columns "image" and "group".')
    keyed = {re.sub(r"\.\w{3,4}$", "", row[image].replace("\\", "/")): row["group"] for row in rows if row["group"]}
    return {key.casefold(): group for key, group in keyed.items()}
