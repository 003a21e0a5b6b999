"""Training cells that the eye reads otherwise than their source.

The training cells of ``bccd`` and ``cellavision``, most of ``jtsc`` and a part of ``misp``, ``chula`` and ``raabin``
were looked at on sheets of crops sorted by the source's label, once, not by an expert, and without a classifier's
answer.  Of the 69 eosinophils of ``bccd`` 35 have the red granules of one; 18 are plain neutrophils and 16 leave a
doubt.  Two of its 15 monocytes are neutrophils.  Eight labels of ``cellavision`` and one of ``jtsc`` are doubtful; in
the other sources none was seen.  They stand in ``read_otherwise.csv``; ``read`` is empty where a doubt is left.
Validation and test cells were not read.
A network that never saw ``bccd`` agrees with the eye more than with the source (``as_read.py``).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.datasets import Sample

TABLE = Path(__file__).parent / "read_otherwise.csv"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def read_otherwise(samples: Sequence[Sample]) -> dict[int, str]:
    """Positions of the samples that were read otherwise, and what the eye reads: a label, or ``""`` for a doubt.

    A copy (``copies.py``) is read as its original is, where the original has one cell of that label.
    """
    with TABLE.open(encoding="utf-8", newline="") as file:
        read = {
            (row["source"], Path(row["image"]).name, tuple(row[c] for c in _CORNERS)): row["read"]
            for row in csv.DictReader(file)
        }
    found = {i: read[key] for i, sample in enumerate(samples) if (key := _key(sample)) in read}
    originals: dict[tuple[str, str], set[str | None]] = {}
    for i, sample in enumerate(samples):
        if sample.source == "bccd":
            originals.setdefault((sample.group, sample.label), set()).add(found.get(i))
    for i, sample in enumerate(samples):
        of_original = originals.get((sample.group, sample.label), set()) if sample.source == "kaggle" else set()
        if len(of_original) == 1 and (label := next(iter(of_original))) is not None:
            found[i] = label
    return found


def doubtful(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """(N,) whether each sample was read otherwise than its label says."""
    result = np.zeros(len(samples), bool)
    result[list(read_otherwise(samples))] = True
    return result


def _key(sample: Sample) -> tuple[str, str, tuple[str, ...]]:
    box = ("",) * 4 if sample.box is None else tuple(f"{v:g}" for v in sample.box)
    return sample.source, sample.image.name, box
