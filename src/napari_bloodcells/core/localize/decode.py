"""From the network's maps to boxes: peaks, their boxes, and one box for each cell.

Everything happens in numpy in double precision on the few grid points above the threshold, so that the same maps give
the same boxes on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.localize.net import CLASSES, STRIDE

Found = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class DecodeSettings:
    """For each class of ``CLASSES``: the lowest score kept, and the overlap from which two boxes are one cell."""

    lowest: tuple[float, float, float] = (0.05, 0.10, 0.10)
    overlap: tuple[float, float, float] = (0.45, 0.55, 0.40)
    most: int = 4000
    room: int = 100
    """Peaks of one class that are looked at, the highest ones: so many, or in a large field one for so many pixels of
    the working image, where a red cell has 150 at the least."""


def decode(
    heat: NDArray[np.float32], sides: NDArray[np.float32], settings: DecodeSettings, height: int, width: int
) -> tuple[Found, ...]:
    """Boxes of every class.

    Parameters
    ----------
    heat : (3, h, w) float32
        Logits.
    sides : (12, h, w) float32
        Logarithms of the distances to the sides.
    settings
    height, width
        Of the working image in pixels; boxes end there.

    Returns
    -------
    tuple of (boxes (N, 4) float32 in pixels of the working image, scores (N,) float32), one for each class,
    highest score first.
    """
    lowest = np.array(settings.lowest)
    floor = np.log(lowest / (1 - lowest))[:, None, None]
    padded = np.full((len(heat), heat.shape[1] + 2, heat.shape[2] + 2), -np.inf, np.float32)  # np.pad takes 20 times
    padded[:, 1:-1, 1:-1] = heat
    around = np.maximum(padded[:, :, :-2], padded[:, :, 2:])
    np.maximum(around, padded[:, :, 1:-1], out=around)
    peak = (heat >= around[:, 1:-1]) & (heat >= around[:, :-2]) & (heat >= around[:, 2:]) & (heat > floor)
    kinds, rows, columns = np.nonzero(peak)
    logits = heat[kinds, rows, columns].astype(np.float64)
    order = np.lexsort((-logits, kinds))  # each class apart, its highest peak first
    most = max(settings.most, height * width // settings.room)
    order = order[np.arange(len(order)) - np.searchsorted(kinds, kinds) < most]
    kinds, rows, columns, logits = kinds[order], rows[order], columns[order], logits[order]
    reach = sides.reshape(len(heat), 4, *heat.shape[1:])[kinds, :, rows, columns].astype(np.float64)
    reach = np.exp(np.minimum(np.maximum(reach, -4), 7))
    middle = np.stack([columns + 0.5, rows + 0.5], axis=1) * STRIDE
    boxes = np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], axis=1)
    boxes = np.minimum(np.maximum(boxes, 0), np.array([width, height, width, height], np.float64))
    real = ((boxes[:, 2:] - boxes[:, :2]) > 0.5).all(1)
    scores = 1 / (1 + np.exp(-logits))
    result = []
    for c in range(len(CLASSES)):
        here = np.flatnonzero(real & (kinds == c))
        kept = here[suppress(boxes[here], settings.overlap[c])]
        result.append((boxes[kept].astype(np.float32), scores[kept].astype(np.float32)))
    return tuple(result)


def suppress(boxes: NDArray[np.float64], overlap: float) -> NDArray[np.intp]:
    """Positions of the boxes (N, 4), best first, that no better box overlaps by more than ``overlap`` (IoU), nor
    covers by more than 0.8 of their area.

    >>> suppress(np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10.0]]), 0.5).tolist()
    [0, 2]
    """
    n = len(boxes)
    if n < 2:
        return np.arange(n)
    first, second = _clashing(boxes, overlap)
    dropped = np.zeros(n, np.bool_)
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        if not dropped[i]:
            dropped[j] = True
    return np.flatnonzero(~dropped)


def _clashing(boxes: NDArray[np.float64], overlap: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of boxes that are one cell, the better box first, in its order: of a few boxes all pairs are looked at, of
    many those whose middles are close."""
    sides = np.ascontiguousarray(boxes.T)
    n = len(boxes)
    if n <= 150:
        ranks = np.arange(n)
        first, second = np.nonzero(_clash(sides[:, :, None], sides[:, None], overlap) & (ranks[:, None] < ranks))
        return first, second
    from scipy.spatial import cKDTree

    reach = float((boxes[:, 2:] - boxes[:, :2]).max())
    pairs = cKDTree((boxes[:, :2] + boxes[:, 2:]) / 2).query_pairs(reach, p=np.inf, output_type="ndarray")
    pairs = np.sort(pairs, axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    pairs = pairs[_clash(sides[:, pairs[:, 0]], sides[:, pairs[:, 1]], overlap)]
    return pairs[:, 0], pairs[:, 1]


def _clash(better: NDArray[np.float64], other: NDArray[np.float64], overlap: float) -> NDArray[np.bool_]:
    """Whether boxes, sides first (4, ...), overlap by more than ``overlap`` (IoU), or 0.8 of the other is covered."""
    width = np.minimum(better[2], other[2]) - np.maximum(better[0], other[0])
    height = np.minimum(better[3], other[3]) - np.maximum(better[1], other[1])
    inner = np.maximum(width, 0) * np.maximum(height, 0)
    area, covered = ((box[2] - box[0]) * (box[3] - box[1]) for box in (better, other))
    clash: NDArray[np.bool_] = (inner > overlap * (area + covered - inner)) | (inner > 0.8 * covered)
    return clash
