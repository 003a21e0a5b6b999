"""Which files are slides, and what a slide can do: give any rectangle of its pixels, at any of its levels.

A file is a slide by its suffix (scanners' formats, through openslide), or by being a TIFF that is too large for a
photograph and stored in pieces that can be read one by one (``tiffslide.py``).  Everything else is read as a whole by
``images.py``, with its limit of pixels.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import check_regular, display_name
from napari_bloodcells.core.find import SCANNER_SUFFIXES, SLIDE_SUFFIXES

LARGE_PIXELS = 100_000_000
"""A TIFF of more pixels is a slide where it can be read in pieces; the largest cameras have 60 million."""
LARGE_SIDE = 8_000
"""A TIFF in tiles or with smaller copies of itself is a slide from this side on."""
POSSIBLE_SCALE = (0.02, 2.0)
"""Micrometers per pixel that a file may state; printers' resolutions (72 dpi are 353 um) are no scale."""
SMALLEST_FILE = 4_000_000
"""A TIFF of fewer bytes is no slide, so its header need not be read twice."""
_TIFF_SUFFIXES = (".tif", ".tiff")

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
    """

    name: str
    width: int
    height: int
    levels: tuple[tuple[int, int], ...]
    um_per_pixel: float | None

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


def is_slide(source: object) -> bool:
    """Whether ``source`` is the path of a slide: by its suffix, a TIFF by its header; False for what is damaged.

    >>> is_slide("a/b.svs"), is_slide("a.jpg")
    (True, False)
    """
    if not isinstance(source, (str, Path)):
        return False
    suffix = Path(source).suffix.casefold()
    if suffix in SLIDE_SUFFIXES:
        return True
    if suffix not in _TIFF_SUFFIXES or not _is_long(source):
        return False
    from napari_bloodcells.core.slides.tiffheader import in_pieces

    shape = in_pieces(source)
    if shape is None:
        return False
    return shape.width * shape.height > LARGE_PIXELS or (shape.layered and max(shape.width, shape.height) > LARGE_SIDE)


def _is_long(path: str | Path) -> bool:
    try:
        return os.stat(path).st_size >= SMALLEST_FILE
    except (OSError, ValueError):
        return False


def open_slide(path: Path | str) -> Slide:
    """Open a slide, to be used with ``with``.

    Raises
    ------
    ImageError
        It cannot be opened, is damaged, or needs the extra ``wsi``.
    """
    if Path(path).suffix.casefold() in SCANNER_SUFFIXES:
        from napari_bloodcells.core.slides.scanner import ScannerSlide

        check_regular(path, ImageError)
        return ScannerSlide(path)
    from napari_bloodcells.core.slides.tiffslide import TiffSlide

    check_regular(path, ImageError)
    return TiffSlide(path)


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
