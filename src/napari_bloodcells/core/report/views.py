"""What a report draws of one image: squares around its cells and a small copy, of a photograph or of a whole slide.

A photograph is at hand as an array; of a slide only what is asked for is read, so that a report on slides takes no
more memory than one on photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.slides import Slide

CONTEXT = 1.25
"""Side of a square in sides of its box: some surroundings tell a touching red cell from cytoplasm."""

_LARGEST = 2_048
"""Pixels of a slide that a square is wide at most: a cell has some hundred, and a table is not to be believed."""


class View(AbstractContextManager["View"], Protocol):
    """One image; a context manager.

    Attributes
    ----------
    size : (width, height)
        In pixels.
    """

    size: tuple[int, int]

    def square(self, box: Sequence[float], context: float = CONTEXT) -> NDArray[np.uint8]:
        """The square around ``box`` (x_min y_min x_max y_max, pixels): (S, S, 3) uint8, S at least 1.

        It is ``context`` times as wide as the longer side of the box; beyond the image its edge is repeated.
        """

    def small(self, longest: int) -> NDArray[np.uint8]:
        """The whole image with a longer side of ``longest`` pixels or less: (h, w, 3) uint8."""


def view_of(source: NDArray[np.uint8] | Slide) -> View:
    """The view of an array (H, W, 3) uint8, or of an open slide, which it closes at its end."""
    return ArrayView(source) if isinstance(source, np.ndarray) else SlideView(source)


class ArrayView(View):
    """A photograph.

    >>> ArrayView(np.zeros((6, 8, 3), np.uint8)).square([0, 0, 4, 2], context=1).shape
    (4, 4, 3)
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.size = (pixels.shape[1], pixels.shape[0])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def square(self, box: Sequence[float], context: float = CONTEXT) -> NDArray[np.uint8]:
        left, top, side = _square(box, context, self.size)
        return _with_edges(self.pixels, left, top, side)

    def small(self, longest: int) -> NDArray[np.uint8]:
        return _thumbnail(self.pixels, longest)


class SlideView(View):
    """A whole slide: squares are read from its finest level, the small copy from the smallest that is large enough."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.size = (slide.width, slide.height)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.slide.__exit__(kind, value, traceback)

    def square(self, box: Sequence[float], context: float = CONTEXT) -> NDArray[np.uint8]:
        left, top, side = _square(box, context, self.size, _LARGEST)
        (width, height), last = self.size, side - 1
        x = min(max(left, 0), width - 1), min(max(left + last, 0), width - 1)
        y = min(max(top, 0), height - 1), min(max(top + last, 0), height - 1)
        return _with_edges(self.slide.read((x[0], y[0], x[1] + 1, y[1] + 1)), left - x[0], top - y[0], side)

    def small(self, longest: int) -> NDArray[np.uint8]:
        from napari_bloodcells.core.slides.overview import thumbnail

        return _thumbnail(thumbnail(self.slide, Silent(), longest), longest)


def _square(
    box: Sequence[float], context: float, size: tuple[int, int], largest: int | None = None
) -> tuple[int, int, int]:
    """Left, top and side of the square around a box; one that a table makes too large is bounded."""
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    largest = 4 * max(size) if largest is None else largest
    side = min(max(1, round(max(x_max - x_min, y_max - y_min) * context)), largest)
    return round((x_min + x_max) / 2 - side / 2), round((y_min + y_max) / 2 - side / 2), side


def _with_edges(pixels: NDArray[np.uint8], left: int, top: int, side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    lines = np.clip(np.arange(top, top + side), 0, height - 1)
    square: NDArray[np.uint8] = pixels[np.ix_(lines, columns)]
    return square


def _thumbnail(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.asarray(picture)
