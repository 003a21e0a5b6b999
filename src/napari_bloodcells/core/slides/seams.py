"""Cells of neighboring fields joined: one that was found in two fields comes out once.

A cell belongs to the field whose own part holds the center of its box.  The two boxes that two fields give one cell
may differ by a fraction of a pixel, so that near a seam none or both would own it: boxes whose center lies just beyond
are kept as candidates, and of boxes that overlap across a seam the best stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.slides.slide import Region

BAND_UM = 4.0
"""So far beyond its own part a field's cells are candidates: less than a cell, more than two boxes of one differ."""
SAME = 0.4
"""Overlap (IoU) from which boxes of two fields are one cell."""


@dataclass(frozen=True)
class Found:
    """White cells of several fields, in pixels of the slide.

    Attributes
    ----------
    boxes : (N, 4) float64
    scores : (N,) float64
    field : (N,) int
        Which field each was found in.
    owned : (N,) bool
        Whether its center lies in that field's own part.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    field: NDArray[np.intp]
    owned: NDArray[np.bool_]


def owned_by(boxes: NDArray[np.float64], own: Region, band: float = 0.0) -> NDArray[np.bool_]:
    """Which centers of ``boxes`` (N, 4) lie in ``own`` widened by ``band``; its left and top edge belong to it.

    >>> owned_by(np.array([[0, 0, 20, 20], [10, 0, 30, 20.0]]), (10, 0, 20, 20)).tolist()
    [True, False]
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = np.array(own[:2]) - band, np.array(own[2:]) + band
    within: NDArray[np.bool_] = (center >= low) & (center < high)
    return np.asarray(within.all(axis=1))


def join(found: Found, counted: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Positions of the boxes that stay, in the order in which they were found.

    Parameters
    ----------
    found : Found
    counted : (N,) bool
        Whether the center lies in a field that is counted; others belong to nobody.
    """
    order = np.lexsort((found.boxes[:, 1], found.boxes[:, 0], -found.scores, ~found.owned))
    order = order[counted[order]]
    boxes, field = found.boxes[order], found.field[order]
    if len(order) < 2:
        return order
    first, second = _close_pairs(boxes)
    across = field[first] != field[second]
    first, second = first[across], second[across]
    low = np.maximum(boxes[first, :2], boxes[second, :2])
    high = np.minimum(boxes[first, 2:], boxes[second, 2:])
    inner = np.clip(high - low, 0, None).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    same = inner > SAME * (area[first] + area[second] - inner)
    dropped = np.zeros(len(order), np.bool_)
    for better, worse in zip(first[same].tolist(), second[same].tolist(), strict=True):
        if not dropped[better]:
            dropped[worse] = True
    return np.sort(order[~dropped])


def _close_pairs(boxes: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of boxes (the better first, in the order of the better one) that may overlap."""
    from scipy.spatial import cKDTree

    reach = float((boxes[:, 2:] - boxes[:, :2]).max())
    pairs = cKDTree((boxes[:, :2] + boxes[:, 2:]) / 2).query_pairs(reach, p=np.inf, output_type="ndarray")
    pairs = np.sort(pairs, axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[:, 0], pairs[:, 1]
