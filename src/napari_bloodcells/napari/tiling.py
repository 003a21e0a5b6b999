"""Large images in overlapping tiles, so that a slide need not be looked at in one piece, and its cells joined again.

A tile overlaps its neighbors by more than a cell is wide.  Each cell belongs to the tile whose own (not overlapping)
part holds its center; two boxes of one cell whose centers fall on different sides are found by their overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.napari.cell import Box
from napari_bloodcells.napari.fields import LARGE, Fields, full_resolution

if TYPE_CHECKING:
    import pandas as pd

SIDE = 2048
OVERLAP = 384
"""Pixels; a white cell is 100 to 200 pixels wide under an oil lens."""
SAME = 0.4
"""Overlap (IoU) from which two boxes of neighboring tiles are one cell."""
_WINDOW = 1024


@dataclass(frozen=True)
class Tile:
    """One tile: where it lies (pixels of the whole), the part that is its own, and how it is read."""

    name: str
    left: int
    top: int
    own: Box
    read: Callable[[], NDArray[np.uint8]]


def tile_spans(length: int, side: int = SIDE, overlap: int = OVERLAP) -> list[tuple[int, int, float, float]]:
    """Start and end of the tiles along one axis, and of the part that each one owns.

    >>> tile_spans(100, side=60, overlap=20)
    [(0, 60, 0.0, 50.0), (40, 100, 50.0, 100.0)]
    """
    step = side - overlap
    starts = list(range(0, max(length - overlap, 1), step))
    spans = []
    for k, start in enumerate(starts):
        low = 0.0 if k == 0 else start + overlap / 2
        high = float(length) if k == len(starts) - 1 else start + side - overlap / 2
        spans.append((start, min(start + side, length), low, high))
    return spans


def tile_image(fields: Fields, index: int) -> list[Tile]:
    """The tiles of field ``index``, row by row; nothing is read yet."""
    height, width = fields.sizes[index]
    deep = full_resolution(fields.layer).dtype != np.uint8
    # What 16 bits mean is judged by the brightest pixel, so it has to be judged for the whole image, not by tile.
    whole = cache(lambda: fields.read(index)) if deep else None
    tiles = []
    for top, bottom, y_low, y_high in tile_spans(height):
        for left, right, x_low, x_high in tile_spans(width):
            name = f"{fields.names[index]} {left},{top}"
            box: Box = (float(left), float(top), float(right), float(bottom))
            tiles.append(Tile(name, left, top, (x_low, y_low, x_high, y_high), _reader(whole, fields, index, box)))
    return tiles


def _reader(whole: Callable[[], NDArray[np.uint8]] | None, fields: Fields, index: int, box: Box) -> Any:
    def read() -> NDArray[np.uint8]:
        from napari_bloodcells.core.pixels import to_rgb8

        if whole is None:
            return to_rgb8(fields.cut(index, box), fields.names[index])
        left, top, right, bottom = map(int, box)
        return whole()[top:bottom, left:right]

    return read


def join_tiles(cells: pd.DataFrame, tiles: Sequence[Tile]) -> pd.DataFrame:
    """The cells of all tiles in pixels of the whole image, each once, numbered from left to right."""
    place = {tile.name: tile for tile in tiles}
    left = cells["image"].map({name: t.left for name, t in place.items()}).to_numpy(float)
    top = cells["image"].map({name: t.top for name, t in place.items()}).to_numpy(float)
    own = np.array([place[name].own for name in cells["image"]], float).reshape(-1, 4)
    boxes = cells[list(BOX_COLUMNS)].to_numpy(float) + np.stack([left, top, left, top], 1)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((center >= own[:, :2]) & (center < own[:, 2:])).all(1)
    # A cell whose two boxes have their centers on the wrong sides would be owned by no tile: those near the seam are
    # taken too, after the owned ones, where no owned box overlaps them.
    near = ((center >= own[:, :2] - OVERLAP / 4) & (center < own[:, 2:] + OVERLAP / 4)).all(1)
    keep: list[int] = []
    for row in [*np.flatnonzero(inside), *np.flatnonzero(near & ~inside)]:
        if not keep or iou(boxes[[row]], boxes[keep]).max() < SAME:
            keep.append(int(row))
    order = sorted(keep, key=lambda row: (center[row, 0], center[row, 1]))
    joined = cells.iloc[order].reset_index(drop=True)
    joined[list(BOX_COLUMNS)] = boxes[order]
    return joined.assign(cell=np.arange(1, len(joined) + 1))


def window_around(image: NDArray[np.uint8], boxes: Sequence[Box]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The part of a large image around ``boxes``, with its left and top; a small image comes whole."""
    height, width = image.shape[:2]
    if height * width <= LARGE:
        return image, (0, 0)
    low, high = np.min([b[:2] for b in boxes], 0), np.max([b[2:] for b in boxes], 0)
    left, top = (int(max(0, v - _WINDOW)) for v in low)
    right, bottom = int(min(width, high[0] + _WINDOW)), int(min(height, high[1] + _WINDOW))
    return np.ascontiguousarray(image[top:bottom, left:right]), (left, top)
