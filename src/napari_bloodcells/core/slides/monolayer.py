"""Where on a slide white cells are to be counted: the monolayer, in which red cells barely touch.

Toward the thick end of a smear red cells lie on each other and hide nuclei; at the thin end they are scattered, and
white cells are torn or swept there in clumps.  Three figures of a field tell: the share that is stained, how many red
cells it has, and how many of them lie on another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BEST_STAINED = 0.45
"""What people chose to count in: of BCCD's fields 0.35 to 0.55 are stained, 0.46 in the middle (``MonolayerRule``)."""


@dataclass(frozen=True)
class MonolayerRule:
    """Limits of a monolayer; beside each, the 5th and the 95th percentile of BCCD's 367 fields with a scale.

    355 of these keep to all three (``python -m benchmarks.quality.monolayer DATA/bccd/JPEGImages``).

    Attributes
    ----------
    most_stained : float
        Share of the field darker than the ground: 0.35 to 0.55.
    fewest_red : float
        Red cells in a square of 100 um: 43 to 134.
    most_overlapping : float
        Share of the red cells whose box shares more than a quarter with another's: 0 to 0.36, in fields
        of 15 red cells; a slide's field has hundreds.
    """

    most_stained: float = 0.70
    fewest_red: float = 20.0
    most_overlapping: float = 0.40

    def holds(self, stained: float, red_cells: NDArray[np.float64] | None, area_um2: float) -> bool:
        """Whether a field is of the monolayer.

        Parameters
        ----------
        stained : float, 0 to 1
        red_cells : (N, 4) or None
            Boxes of the red cells in the field; None where nothing finds them.
        area_um2 : float
            Of the field.
        """
        if stained > self.most_stained:
            return False
        if red_cells is None:
            return True
        if len(red_cells) * 1e4 / area_um2 < self.fewest_red:
            return False
        return overlapping(red_cells) <= self.most_overlapping


def overlapping(boxes: NDArray[np.float64], share: float = 0.25) -> float:
    """Share of ``boxes`` (N, 4) of which another covers more than ``share`` (of the smaller of the two).

    >>> overlapping(np.array([[0, 0, 10, 10], [6, 0, 16, 10], [9, 40, 19, 50], [18, 40, 28, 50.0]]))
    0.5
    """
    if len(boxes) < 2:
        return 0.0
    from scipy.spatial import cKDTree

    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = float((boxes[:, 2:] - boxes[:, :2]).max())
    first, second = cKDTree(center).query_pairs(reach, p=np.inf, output_type="ndarray").T
    low = np.maximum(boxes[first, :2], boxes[second, :2])
    high = np.minimum(boxes[first, 2:], boxes[second, 2:])
    inner = np.clip(high - low, 0, None).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    clash = inner > share * np.minimum(area[first], area[second])
    return len(np.union1d(first[clash], second[clash])) / len(boxes)


def by_promise(stained: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order in which fields are counted when not all are wanted: those stained as a monolayer is first.

    In steps of 0.1, so that neighbors in the same zone follow each other.

    >>> by_promise(np.array([0.95, 0.43, 0.05, 0.47])).tolist()
    [1, 3, 2, 0]
    """
    return np.argsort(np.floor(np.abs(stained - BEST_STAINED) * 10 + 1e-9), kind="stable")
