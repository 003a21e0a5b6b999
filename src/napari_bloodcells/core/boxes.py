"""Boxes around cells, and the one place where their convention is fixed.

Coordinates are ``x_min, y_min, x_max, y_max`` in pixels as a VOC file holds them, taken as continuous edges: the
pixel in column ``i`` covers ``[i, i + 1)``, so a box ``(0, 0, 640, 480)`` covers a whole 640x480 field and its width
is ``x_max - x_min``.  LabelImg, which wrote BCCD, stores edges this way (clamped to at least 1); the MATLAB VOC kit
counts pixels from 1 inclusive, a difference of at most one pixel that its files do not declare.  Nothing is added or
subtracted on reading or writing, so a box goes through ``read_voc``, ``cells.csv`` and ``write_voc`` unchanged.
(napari puts pixel *centers* on integers: its layers shift by half a pixel, in ``napari_bloodcells.napari`` only.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image.

    Attributes
    ----------
    xyxy : (N, 4) float32
        ``x_min y_min x_max y_max`` in pixels, continuous edges (see the module's text).
    labels : tuple of N str
        What the file calls each box: ``WBC``, ``RBC``, ``Platelets``, or a cell type.
    scores : (N,) float32, 0 to 1
        Confidence of each box; 1 for boxes that came from a file.
    source : str
        ``xml`` (or another annotation file), ``found``, ``whole`` or ``drawn``.
    """

    xyxy: NDArray[np.float32] = field(default_factory=_no_boxes)
    labels: tuple[str, ...] = ()
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    source: str = "xml"

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy, np.float32).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        if len(scores) == 0 and len(xyxy):
            scores = np.ones(len(xyxy), np.float32)
        labels = self.labels if self.labels or not len(xyxy) else ("WBC",) * len(xyxy)
        if not len(xyxy) == len(labels) == len(scores):
            raise ValueError(f"{len(xyxy)} boxes, {len(labels)} labels and {len(scores)} scores do not fit together")
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", tuple(labels))

    def __len__(self) -> int:
        return len(self.xyxy)

    def take(self, index: NDArray[np.bool_] | NDArray[np.intp] | list[int]) -> Boxes:
        """The boxes that ``index`` (a mask or positions) selects, in its order."""
        keep = np.arange(len(self))[np.asarray(index)] if len(self) and len(index) else np.zeros(0, int)
        return Boxes(self.xyxy[keep], tuple(self.labels[i] for i in keep), self.scores[keep], self.source)

    def named(self, label: str) -> Boxes:
        """The boxes that carry ``label`` (case does not matter)."""
        return self.take([i for i, name in enumerate(self.labels) if name.casefold() == label.casefold()])


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every box of ``a`` (N, 4) with every box of ``b`` (M, 4): (N, M), 0 to 1.

    >>> iou(np.array([[0, 0, 10, 10]]), np.array([[0, 0, 10, 5], [20, 20, 30, 30]])).tolist()
    [[0.5, 0.0]]
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    area_a = (a[:, 2:] - a[:, :2]).prod(-1)
    area_b = (b[:, 2:] - b[:, :2]).prod(-1)
    union = area_a[:, None] + area_b[None] - overlap
    result: NDArray[np.float32] = np.where(union > 0, overlap / np.where(union > 0, union, 1), 0)
    return result


def centers_inside(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the middle of each of ``boxes`` (N, 4) lies in each of ``others`` (M, 4): (N, M) bool."""
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    within = (middle >= others[None, :, :2]) & (middle <= others[None, :, 2:])
    return within[..., 0] & within[..., 1]


def touches_border(xyxy: NDArray[np.float32], height: int, width: int, margin: float = 1.5) -> NDArray[np.bool_]:
    """Which boxes (N, 4) reach within ``margin`` pixels of the border of a ``height`` x ``width`` image: (N,) bool."""
    low = (xyxy[:, 0] <= margin) | (xyxy[:, 1] <= margin)
    high = (xyxy[:, 2] >= width - margin) | (xyxy[:, 3] >= height - margin)
    result: NDArray[np.bool_] = low | high
    return result
