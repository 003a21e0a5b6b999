"""Crops of cells for the gallery: cut from the image when they come into view, and kept.

Pixels are read and cut in a thread, a few cells at a time, so that neither scrolling nor a key ever waits for a file;
the window makes pictures of them in small slices of time.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QImage, QPixmap

from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.napari.cell import Box, Cell
from napari_bloodcells.napari.fields import Fields

MARGIN = 0.15
"""Ground around the box, in sides of the box."""
GROUND = 230
_SLICE_S = 0.02
_TICK_MS = 4
_AT_ONCE = 32
_KEPT = 12_000
_LOG = logging.getLogger(__name__)


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
        self.side = side
        self._cutter = None if fields is None else Cutter(fields)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="crops")
        self._reading: Future[list[NDArray[np.uint8]]] | None = None
        self._batch: list[Cell] = []
        self._cut: deque[tuple[Cell, NDArray[np.uint8]]] = deque()
        self._made: OrderedDict[tuple[int, Box], QPixmap] = OrderedDict()
        self._wanted: OrderedDict[int, Cell] = OrderedDict()
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self.work)

    @property
    def are_made(self) -> bool:
        """Whether every picture that was asked for is there."""
        return not (self._wanted or self._cut or self._reading)

    def get(self, cell: Cell) -> QPixmap | None:
        """The picture of a cell, or None while it is being made."""
        pixmap = self._made.get((cell.id, cell.box))
        if pixmap is None and self._cutter is not None and cell not in self._batch:
            self._wanted[cell.id] = cell
            if not self._timer.isActive():
                self._timer.start()
        return pixmap

    def work(self) -> None:
        """Have wanted crops cut, the last asked for first (they are in view), and make pictures for a slice of time."""
        self._collect()
        end = time.perf_counter() + _SLICE_S
        made: list[int] = []
        while self._cut and time.perf_counter() < end:
            cell, pixels = self._cut.popleft()
            self._made[cell.id, cell.box] = self._picture(pixels)
            made.append(cell.id)
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        if self.are_made:
            self._timer.stop()
        if made:
            self.ready.emit(tuple(made))

    def close(self) -> None:
        """Make no more."""
        self._timer.stop()
        self._wanted.clear()
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _collect(self) -> None:
        if self._reading is not None and self._reading.done():
            reading, batch, self._reading, self._batch = self._reading, self._batch, None, []
            self._cut.extend(zip(batch, reading.result(), strict=True))
        if self._wanted and self._reading is None and self._cutter is not None:
            self._batch = [self._wanted.popitem()[1] for _ in range(min(_AT_ONCE, len(self._wanted)))]
            self._reading = self._reader.submit(self._cutter.cut, tuple(self._batch))

    def _picture(self, pixels: NDArray[np.uint8]) -> QPixmap:
        height, width = pixels.shape[:2]
        picture = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        kept, smooth = Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation
        return QPixmap.fromImage(picture.scaled(self.side, self.side, kept, smooth))


class Cutter:
    """Cuts squares out of the fields of a layer; to be used by one thread.

    Bytes are read around the cell alone; other kinds are brought to bytes by the whole field (``to_rgb8``), and a
    field that lies in a file has to be read whole, so the last one is kept.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._index = -1
        self._field: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)

    def cut(self, cells: Sequence[Cell]) -> list[NDArray[np.uint8]]:
        """A square around each cell, (side, side, 3) uint8; grey where the field cannot be read any more."""
        squares: dict[int, NDArray[np.uint8]] = {}
        for cell in sorted(cells, key=lambda c: c.image):
            try:
                squares[cell.id] = self._square(cell)
            except (BloodcellsError, OSError, ValueError) as error:
                _LOG.warning("%s", error)
                squares[cell.id] = np.full((8, 8, 3), GROUND, np.uint8)
        return [squares[cell.id] for cell in cells]

    def _square(self, cell: Cell) -> NDArray[np.uint8]:
        if self._fields.in_parts:
            window, box = self._fields.window(cell.image, cell.box)
            return square_around(window, box)
        if cell.image != self._index:
            self._field, self._index = self._fields.read(cell.image), cell.image
        return square_around(self._field, cell.box)


def square_around(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The square part of ``image`` around ``box`` with some ground; what lies outside is filled with light grey.

    >>> square_around(np.zeros((50, 50, 3), np.uint8), (-5, 0, 15, 10)).shape
    (26, 26, 3)
    """
    side = max(2, round(max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * MARGIN)))
    left, top = round((box[0] + box[2] - side) / 2), round((box[1] + box[3] - side) / 2)
    height, width = image.shape[:2]
    square = np.full((side, side, 3), GROUND, np.uint8)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x1 > x0 and y1 > y0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return square
