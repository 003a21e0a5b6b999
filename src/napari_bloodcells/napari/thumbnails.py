"""Small pictures of cells for the gallery, made when they are first shown and kept.

Making one from an image in memory takes a fraction of a millisecond; from a series that is read from disk, as long as
reading the field.  So they are made in slices of time (``work``) while the view shows grey squares, and the window
never waits.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QImage, QPixmap

from napari_bloodcells.napari.cell import Box, Cell
from napari_bloodcells.napari.fields import Fields

MARGIN = 0.15
"""Ground around the box, in sides of the box."""
_SLICE_S = 0.02
_KEPT = 12_000
_PLANES = 4


class Thumbnails(QObject):
    """Pictures of the cells of one image layer.

    Signals
    -------
    ready : tuple of int
        Ids of the cells whose pictures were made.
    """

    ready = Signal(tuple)

    def __init__(self, fields: Fields | None, side: int, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.fields = fields
        self.side = side
        self._made: OrderedDict[tuple[int, Box], QPixmap] = OrderedDict()
        self._planes: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._wanted: OrderedDict[int, Cell] = OrderedDict()
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.work)

    def get(self, cell: Cell) -> QPixmap | None:
        """The picture of a cell, or None while it is being made."""
        pixmap = self._made.get((cell.id, cell.box))
        if pixmap is None and self.fields is not None:
            self._wanted[cell.id] = cell
            if not self._timer.isActive():
                self._timer.start()
        return pixmap

    def work(self) -> None:
        """Make wanted pictures for one slice of time, the last asked for first (they are in view)."""
        end = time.perf_counter() + _SLICE_S
        made: list[int] = []
        while self._wanted and time.perf_counter() < end:
            cell_id, cell = self._wanted.popitem()
            self._made[cell_id, cell.box] = self._make(cell)
            made.append(cell_id)
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        if not self._wanted:
            self._timer.stop()
        if made:
            self.ready.emit(tuple(made))

    def _make(self, cell: Cell) -> QPixmap:
        image = square_around(self._plane(cell.image), cell.box)
        height, width = image.shape[:2]
        picture = QImage(image.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        kept, smooth = Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation
        return QPixmap.fromImage(picture.scaled(self.side, self.side, kept, smooth))

    def _plane(self, index: int) -> NDArray[np.uint8]:
        assert self.fields is not None
        if index not in self._planes:
            self._planes[index] = self.fields.read(index)
            while len(self._planes) > _PLANES:
                self._planes.popitem(last=False)
        self._planes.move_to_end(index)
        return self._planes[index]


def square_around(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The square part of ``image`` around ``box`` with some ground; what lies outside is filled with light grey.

    >>> square_around(np.zeros((50, 50, 3), np.uint8), (-5, 0, 15, 10)).shape
    (26, 26, 3)
    """
    side = max(2, round(max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * MARGIN)))
    left, top = round((box[0] + box[2] - side) / 2), round((box[1] + box[3] - side) / 2)
    height, width = image.shape[:2]
    square = np.full((side, side, 3), 230, np.uint8)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x1 > x0 and y1 > y0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return square
