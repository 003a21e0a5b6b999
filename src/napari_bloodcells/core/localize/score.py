"""How good found boxes are: recall and precision of cells, average precision of boxes, with intervals over fields.

A cell counts as found where the middle of a found box lies in its true box (what a differential needs); average
precision asks for boxes that fit (IoU 0.5 and 0.75), with the area under the whole curve as in VOC since 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, centers_inside, iou

LEVELS = (0.5, 0.75)


@dataclass(frozen=True)
class FieldScore:
    """One class on one field.

    Attributes
    ----------
    wanted, hit : int
        True cells, and those that a found box has its middle in.
    found, good : int
        Found boxes (those over ignored cells left out), and those with their middle in a true one.
    scores : (N,) float32
        Of the found boxes.
    fits : (2, N) bool
        Whether each found box is the best of a true box, at each IoU of ``LEVELS``.
    """

    wanted: int
    hit: int
    found: int
    good: int
    scores: NDArray[np.float32]
    fits: NDArray[np.bool_]


def score_field(found: Boxes, truth: NDArray[np.float32], ignored: NDArray[np.float32] | None = None) -> FieldScore:
    """Compare the boxes found on one field with the true ones (N, 4).

    A found box over an ``ignored`` cell (one that the source may or may not have boxed) is neither right nor wrong.

    >>> score_field(Boxes(np.array([[0, 0, 10, 10], [50, 50, 60, 60]])), np.array([[1, 1, 11, 11]])).hit
    1
    """
    truth = np.asarray(truth, np.float32).reshape(-1, 4)
    inside = centers_inside(found.xyxy, truth)
    keep: NDArray[np.bool_] = np.ones(len(found), np.bool_)
    if ignored is not None and len(ignored):
        over = centers_inside(found.xyxy, ignored).any(1) & ~inside.any(1)
        keep = np.logical_not(over)
    order = np.argsort(-found.scores[keep], kind="stable")
    overlap = iou(found.xyxy[keep][order], truth)
    fits = np.stack([_claim(overlap, level) for level in LEVELS])
    return FieldScore(
        len(truth), int(inside.any(0).sum()), int(keep.sum()), int(inside[keep].any(1).sum()),
        found.scores[keep][order], fits,
    )  # fmt: skip


def _claim(overlap: NDArray[np.float32], level: float) -> NDArray[np.bool_]:
    """Which found boxes (best first) claim a true box that none before them claimed: (N,)."""
    free = np.ones(overlap.shape[1], np.bool_)
    result = np.zeros(len(overlap), np.bool_)
    for i, row in enumerate(overlap):
        best = np.where(free, row, -1)
        if len(best) and best.max() >= level:
            free[best.argmax()] = False
            result[i] = True
    return result


def recall(fields: Sequence[FieldScore]) -> float:
    """Share of the true cells that were found."""
    return sum(f.hit for f in fields) / max(sum(f.wanted for f in fields), 1)


def precision(fields: Sequence[FieldScore]) -> float:
    """Share of the found boxes that are cells; 1 where nothing was found."""
    n = sum(f.found for f in fields)
    return sum(f.good for f in fields) / n if n else 1.0


def average_precision(fields: Sequence[FieldScore], level: int = 0) -> float:
    """Area under the precision-recall curve at ``LEVELS[level]`` (Everingham et al. 2015, section 3.2.1)."""
    wanted = sum(f.wanted for f in fields)
    scores = np.concatenate([f.scores for f in fields]) if fields else np.zeros(0)
    fits = np.concatenate([f.fits[level] for f in fields]) if fields else np.zeros(0)
    if not wanted or not len(scores):
        return 0.0
    hits = np.cumsum(fits[np.argsort(-scores, kind="stable")])
    curve = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(curve[::-1])[::-1]
    steps = np.diff(np.concatenate([[0], hits])) / wanted
    return float((steps * envelope).sum())


def bootstrap(
    fields: Sequence[FieldScore], measure: Callable[[Sequence[FieldScore]], float], n: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of ``measure`` from ``n`` resamplings of the fields (percentiles)."""
    rng = np.random.default_rng(seed)
    values = [measure([fields[i] for i in rng.integers(len(fields), size=len(fields))]) for _ in range(n)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
