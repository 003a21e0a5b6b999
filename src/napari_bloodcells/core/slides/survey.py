"""A first look over a slide: how much of each block of it is stained, so that empty ground is never read closely.

The look is taken at about a quarter of the resolution: a smaller copy that the file holds, or every fourth pixel of
every fourth row.  It runs over the slide band by band and keeps a histogram of green (which red cells and nuclei absorb
most) for each block.  Ground is what is brightest where there are cells: a scanner fills in a white of its own where it
saw nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.progress import Progress, check_cancelled
from napari_bloodcells.core.slides.slide import Slide

BLOCK = 256
"""Side of a block in pixels of the slide."""
COARSEST = 4.5
"""No copy smaller than by this factor serves: a red cell must be some pixels wide."""
STAINED = 0.85
"""Darker than this share of the ground is stained; red cells let 0.5 to 0.75 of green pass."""
_STEP = 4
_BINS = 64
_BAND = 4
_TEXTURE = 8
_ACROSS = 8192


@dataclass(frozen=True)
class Survey:
    """Where a slide is stained.

    Attributes
    ----------
    stained : (rows, columns) float32, 0 to 1
        Share of each block of ``BLOCK`` x ``BLOCK`` pixels that is darker than the ground.
    ground : float, 0 to 255
        Green of the empty ground.
    """

    stained: NDArray[np.float32]
    ground: float

    def part(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.float32]:
        """``stained`` of the blocks that a rectangle of the slide touches."""
        return self.stained[top // BLOCK : -(-bottom // BLOCK), left // BLOCK : -(-right // BLOCK)]


def survey_slide(slide: Slide, progress: Progress) -> Survey:
    """Look over the whole slide; ``Cancelled`` where ``progress`` asks to stop."""
    rows, columns = -(-slide.height // BLOCK), -(-slide.width // BLOCK)
    counts = np.zeros((rows, columns, _BINS), np.uint32)
    for row, column, block in _blocks(slide, progress):
        counts[row, column] = np.bincount(block.ravel() >> 2, minlength=_BINS)
    ground = _ground(counts)
    return Survey(_below(counts, STAINED * ground), ground)


def _blocks(slide: Slide, progress: Progress) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Row, column and a reduced green channel of each block, band by band."""
    level = _level(slide)
    step = _STEP if level == 0 else 1
    width, height = slide.levels[level]
    across, down = width / slide.width, height / slide.height
    x = _edges(slide.width, across, width)
    y = _edges(slide.height, down, height)
    for band in range(0, len(y) - 1, _BAND):
        for first in range(0, len(x) - 1, _ACROSS // BLOCK):
            check_cancelled(progress)
            last_x, last_y = min(first + _ACROSS // BLOCK, len(x) - 1), min(band + _BAND, len(y) - 1)
            pixels = slide.read((x[first], y[band], x[last_x], y[last_y]), level)[..., 1]
            for row in range(band, last_y):
                for column in range(first, last_x):
                    part = pixels[
                        y[row] - y[band] : y[row + 1] - y[band], x[column] - x[first] : x[column + 1] - x[first]
                    ]
                    yield row, column, part[::step, ::step]


def _level(slide: Slide) -> int:
    """The smallest copy that is fine enough."""
    fit = [n for n, (width, _) in enumerate(slide.levels) if slide.width / width <= COARSEST]
    return max(fit, key=lambda n: slide.width / slide.levels[n][0])


def _edges(length: int, factor: float, limit: int) -> list[int]:
    """Where the blocks begin and end in pixels of a level.

    >>> _edges(600, 0.25, 150)
    [0, 64, 128, 150]
    """
    starts = [*range(0, length, BLOCK), length]
    return [min(round(start * factor), limit) for start in starts]


def _ground(counts: NDArray[np.uint32]) -> float:
    """The green of the ground (98th percentile) in blocks where there is something besides it."""
    upto = counts.cumsum(-1)
    total = np.maximum(upto[..., -1:], 1)
    dark, light = ((upto < share * total).sum(-1) for share in (0.05, 0.95))
    textured = light - dark >= _TEXTURE
    pooled = counts[textured].sum(0) if textured.any() else counts.sum((0, 1))
    return 4.0 * float(np.searchsorted(pooled.cumsum(), 0.98 * pooled.sum())) + 2.0


def _below(counts: NDArray[np.uint32], green: float) -> NDArray[np.float32]:
    """Share of each block's pixels below ``green``, straight within a bin."""
    bins = int(green // 4)
    total = np.maximum(counts.sum(-1), 1)
    inside = counts[..., :bins].sum(-1) + counts[..., bins] * (green / 4 - bins)
    share: NDArray[np.float32] = (inside / total).astype(np.float32)
    return share
