"""Labeled photographs made ready for the localizer's training: reduced, divided by their white, kept in memory.

A field keeps no more pixels than training can use (a red cell at most 36 pixels across): BCCD becomes 213x160.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.crops import WHITE_LEVEL, local_white
from napari_bloodcells.core.datasets.folder import IGNORED
from napari_bloodcells.core.localize.learned import WBC_PER_RED_CELL
from napari_bloodcells.core.localize.net import CLASSES
from napari_bloodcells.core.localize.targets import IGNORE
from napari_bloodcells.core.localize.tiles import RBC, WBC, LabeledField

LARGEST_RED_CELL = 36.0


def labeled_field(
    image: NDArray[np.uint8], boxes: Boxes, known: frozenset[str], source: str, red_cell: float | None = None
) -> LabeledField:
    """Reduce a photograph and its boxes for training.

    Parameters
    ----------
    image : (H, W, 3) uint8
    boxes : Boxes
        Labeled ``WBC``, ``RBC``, ``Platelets`` or ``ignore``; others are left out.
    known
        Which of these three the source boxed.
    source
        Name of the data set.
    red_cell : float, optional
        Diameter of a red cell in pixels; from the boxes where it is not given.

    Returns
    -------
    LabeledField
    """
    use = [i for i, label in enumerate(boxes.labels) if label in CLASSES or label == IGNORED]
    xyxy = boxes.xyxy[use]
    labels = np.array([_number(boxes.labels[i]) for i in use], np.intp)
    if red_cell is None:
        red_cell = red_cell_of(xyxy, labels, image.shape)
    factor = min(LARGEST_RED_CELL / red_cell, 1.0)
    height, width = image.shape[:2]
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    scale = np.array([size[0] / width, size[1] / height], np.float32)
    return LabeledField(
        divide_white(np.asarray(small)),
        (xyxy * np.tile(scale, 2)).astype(np.float32).reshape(-1, 4),
        labels,
        np.array([name in known for name in CLASSES]),
        float(red_cell * factor),
        source,
    )


def _number(label: str) -> int:
    return IGNORE - WBC if label == IGNORED else CLASSES.index(label)


def divide_white(image: NDArray[np.uint8]) -> Image.Image:
    """``image`` (H, W, 3) uint8 with its empty ground brought to ``WHITE_LEVEL`` in every channel."""
    scale = WHITE_LEVEL / local_white(image)
    table = np.clip(np.arange(256)[:, None] * scale + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([table[image[..., c], c] for c in range(3)], axis=-1))


def red_cell_of(xyxy: NDArray[np.float32], labels: NDArray[np.intp], shape: tuple[int, ...]) -> float:
    """Diameter of a red cell in pixels: from the red cells' boxes, else from the white cells', else a guess."""
    longest = (xyxy[:, 2:] - xyxy[:, :2]).max(1) if len(xyxy) else np.zeros(0, np.float32)
    if (labels == RBC).sum() >= 3:
        return float(np.median(longest[labels == RBC]))
    if (labels == WBC).any():
        return float(np.median(longest[labels == WBC])) / WBC_PER_RED_CELL
    return max(shape[:2]) / 8
