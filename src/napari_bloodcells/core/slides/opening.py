"""Which files are slides, and how each kind is opened.

A file is a slide by its suffix (scanners' formats, through openslide), or by being a TIFF that is too large for a
photograph and stored in pieces that can be read one by one (``tiffslide.py``).  An array that is not in memory is one
where a caller says so (``arrayslide.py``).  Everything else is read as a whole by ``images.py``, with its limit of
pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import check_regular
from napari_bloodcells.core.find import SCANNER_SUFFIXES, SLIDE_SUFFIXES
from napari_bloodcells.core.slides.arrayslide import ArraySlide
from napari_bloodcells.core.slides.slide import Slide

LARGE_PIXELS = 100_000_000
"""A TIFF of more pixels is a slide where it can be read in pieces; the largest cameras have 60 million."""
LARGE_SIDE = 8_000
"""A TIFF in tiles or with smaller copies of itself is a slide from this side on."""
SMALLEST_FILE = 4_000_000
"""A TIFF of fewer bytes is no slide, so its header need not be read twice."""
_TIFF_SUFFIXES = (".tif", ".tiff")


def is_slide(source: object) -> bool:
    """Whether ``source`` is a slide or the path of one: by its suffix, a TIFF by its header; False for what is damaged.

    >>> is_slide("a/b.svs"), is_slide("a.jpg")
    (True, False)
    """
    if isinstance(source, ArraySlide):
        return True
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
    return is_large(shape.width, shape.height, shape.layered)


def is_large(width: int, height: int, layered: bool) -> bool:
    """Whether an image that can be read in pieces is a slide; ``layered``: with smaller copies of itself.

    >>> is_large(9_000, 9_000, False), is_large(9_000, 9_000, True), is_large(20_000, 6_000, False)
    (False, True, True)
    """
    return width * height > LARGE_PIXELS or (layered and max(width, height) > LARGE_SIDE)


def _is_long(path: str | Path) -> bool:
    try:
        return os.stat(path).st_size >= SMALLEST_FILE
    except (OSError, ValueError):
        return False


def open_slide(path: Path | str | ArraySlide) -> Slide:
    """Open a slide, to be used with ``with``; one of an array is open already.

    Raises
    ------
    ImageError
        It cannot be opened, is damaged, or needs the extra ``wsi``.
    """
    if isinstance(path, ArraySlide):
        return path
    if Path(path).suffix.casefold() in SCANNER_SUFFIXES:
        from napari_bloodcells.core.slides.scanner import ScannerSlide

        check_regular(path, ImageError)
        return ScannerSlide(path)
    from napari_bloodcells.core.slides.tiffslide import TiffSlide

    check_regular(path, ImageError)
    return TiffSlide(path)
