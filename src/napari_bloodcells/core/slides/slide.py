"""What an open slide can do: give any rectangle of its pixels, at any of its levels."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import display_name

POSSIBLE_SCALE = (0.02, 2.0)
"""Micrometers per pixel that a file may state; printers' resolutions (72 dpi are 353 um) are no scale."""

Region = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels of a level."""


class Slide(Protocol):
    """An open slide; a context manager.

    Attributes
    ----------
    name : str
        For messages.
    width, height : int
        Pixels of the finest level.
    levels : tuple of (width, height)
        The finest first.
    um_per_pixel : float or None
        What the file says, where that is possible.
    remarks : tuple of str
        What in the file is not read, one line each.
    """

    name: str
    width: int
    height: int
    levels: tuple[tuple[int, int], ...]
    um_per_pixel: float | None
    remarks: tuple[str, ...]

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """``region`` of a level (inside of it) as (h, w, 3) uint8 RGB; what the scanner left out is white.

        Raises
        ------
        ImageError
            This part of the file is damaged.
        """

    def __enter__(self) -> Slide: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def possible_scale(x: float | None, y: float | None, name: str) -> float | None:
    """Micrometers per pixel of the two axes as one figure; None where they are no scale of a microscope.

    >>> possible_scale(0.25, 0.25, "a.svs"), possible_scale(352.8, 352.8, "a.tif")
    (0.25, None)
    """
    low, high = POSSIBLE_SCALE
    if not x or not y or not (low <= x <= high and low <= y <= high):
        return None
    if not 0.9 < x / y < 1.1:
        raise ImageError(
            f"{display_name(name)}: its pixels are not square ({x:g} x {y:g} um); save it with square ones."
        )
    return float(np.sqrt(x * y))
