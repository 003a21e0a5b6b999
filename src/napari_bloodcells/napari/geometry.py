"""Boxes of the core and rectangles of napari, and the half pixel between them.

The core counts continuous edges: pixel ``i`` covers ``[i, i + 1)``.  napari puts the *center* of pixel ``i`` on the
coordinate ``i``, so an edge at ``x`` stands at ``x - 0.5`` on its canvas.  The shift is made here and nowhere else.
Rectangles are (4, 2) in the order row, column, or (4, 3) with the plane of a series in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.napari.cell import Box

HALF_PIXEL = 0.5


def rectangle(box: Box, plane: int | None = None) -> NDArray[np.float64]:
    """The rectangle of ``box`` on napari's canvas; ``plane`` where the layer has that axis.

    >>> rectangle((0, 0, 640, 480))[[0, 2]].tolist()
    [[-0.5, -0.5], [479.5, 639.5]]
    """
    x_min, y_min, x_max, y_max = (side - HALF_PIXEL for side in box)
    corners = [[y_min, x_min], [y_min, x_max], [y_max, x_max], [y_max, x_min]]
    if plane is not None:
        corners = [[float(plane), *corner] for corner in corners]
    return np.array(corners, np.float64)


def rectangles(boxes: Sequence[Box], planes: Sequence[int] | None = None) -> list[NDArray[np.float64]]:
    """``rectangle`` of each box."""
    if planes is None:
        return [rectangle(box) for box in boxes]
    return [rectangle(box, plane) for box, plane in zip(boxes, planes, strict=True)]


def box_of(shape: NDArray[np.float64]) -> Box:
    """The upright box around a shape of any kind, to a hundredth of a pixel.

    >>> box_of(rectangle((10, 20, 30.25, 40)))
    (10.0, 20.0, 30.25, 40.0)
    """
    low = np.asarray(shape, np.float64)[:, -2:].min(0) + HALF_PIXEL
    high = np.asarray(shape, np.float64)[:, -2:].max(0) + HALF_PIXEL
    y_min, x_min, y_max, x_max = (round(float(v), 2) for v in (*low, *high))
    return (x_min, y_min, x_max, y_max)


def plane_of(shape: NDArray[np.float64]) -> int:
    """The plane of a series on which a shape lies; 0 where the layer has no such axis."""
    shape = np.asarray(shape)
    return round(float(shape[0, -3])) if shape.shape[1] > 2 else 0


def inside(box: Box, width: int, height: int) -> Box | None:
    """``box`` cut at the border of the field; None where less than a pixel is left.

    >>> inside((-5, 10, 20, 30), 100, 100), inside((200, 0, 300, 9), 100, 100)
    ((0.0, 10, 20, 30), None)
    """
    x_min, x_max = max(box[0], 0.0), min(box[2], float(width))
    y_min, y_max = max(box[1], 0.0), min(box[3], float(height))
    return (x_min, y_min, x_max, y_max) if x_max - x_min >= 1 and y_max - y_min >= 1 else None
