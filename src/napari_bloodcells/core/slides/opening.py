"""Which files are slides, and how each kind is opened.

A file is a slide by its suffix (scanners' formats, through openslide), or by being a TIFF that is too large for a
photograph and stored in pieces that can be read one by one (``tiffslide.py``).  Everything else is read as a whole by
``images.py``, with its limit of pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import check_regular
from napari_bloodcells.core.find import SCANNER_SUFFIXES, SLIDE_SUFFIXES
from napari_bloodcells.core.slides.slide import Slide

LARGE_PIXELS = 100_000_000
"""A TIFF of more pixels is a slide where it can be read in pieces; the largest cameras have 60 million."""
LARGE_SIDE = 8_000
"""A TIFF in tiles or with smaller copies of itself is a slide from this side on."""
SMALLEST_FILE = 4_000_000
"""A TIFF of fewer bytes is no slide, so its header need not be read twice."""
_TIFF_SUFFIXES = (".tif", ".tiff")


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
