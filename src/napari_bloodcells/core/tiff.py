"""The many kinds of TIFF, through tifffile: pages, planes, palettes, inverted grey, OME channels.

Returned is one picture as the file's own values; scaling to 8 bits, alpha and turning are done by the caller.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError

# tifffile reports damage through logging, which would print it beside our own one line where nobody set logging up.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ORIENTATION, _MAX_SAMPLE_VALUE = 274, 281
_UNKNOWN, _PREMULTIPLIED = 0, 1


def decode_tiff(
    file: Path | io.BytesIO, name: str, check_size: Callable[[int, int], None]
) -> tuple[NDArray[Any], int, int | None, tuple[str, ...]]:
    """The first picture of a TIFF.

    Parameters
    ----------
    file : path or bytes
        The TIFF.
    name : str
        Stands in errors and problems.
    check_size : callable
        Gets width and height before anything is decoded, and raises ``ImageError`` for a picture that is too large.

    Returns
    -------
    array : (H, W) or (H, W, S)
        Grey, grey with alpha, RGB or RGBA, in the file's own values (straight alpha).
    orientation : int
        EXIF orientation, 1 to 8.
    bits : int or None
        Bits in use per value, where the file says so and they are fewer than its type holds.
    problems : tuple of str
        What was worked around, one line each.
    """
    import tifffile

    problems: tuple[str, ...] = ()
    with tifffile.TiffFile(file) as tif:
        if not tif.pages:
            raise ImageError(f"{name}: holds no picture.")
        page: Any = tif.pages[0]
        check_size(int(page.imagewidth), int(page.imagelength))
        n_pages = len(tif.pages)
        channels = channel_pages(tif)
        _check_whole(tif, page, name)
        if channels:
            array = np.stack([tif.pages[i].asarray(maxworkers=1) for i in channels], axis=-1)
        else:
            array = page.asarray(maxworkers=1)
            if n_pages > 1 and not _is_pyramid(tif, n_pages):
                problems = (f"{name}: holds {n_pages} pictures; the first is read.",)
        orientation = int(_tag(page, _ORIENTATION) or 1)
        return as_shown(array, page, name), orientation, bits_in_use(page), problems


def as_shown(array: NDArray[Any], page: Any, name: str) -> NDArray[Any]:
    """Samples last, colors looked up, inverted grey and CMYK resolved, alpha straight."""
    array = array.reshape([n for n in array.shape[:-3] if n != 1] + list(array.shape[-3:]))
    if array.ndim == 3 and int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1:
        array = np.moveaxis(array, 0, -1)
    photometric = page.photometric.name
    if photometric == "PALETTE" and page.colormap is not None:
        colors = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return np.moveaxis(colors[:, array.reshape(array.shape[:2])], 0, -1)
    if photometric == "MINISWHITE":
        inverted: NDArray[Any] = ~array if array.dtype == np.bool_ else (2 ** int(page.bitspersample) - 1) - array
        return inverted
    if photometric == "SEPARATED" and array.ndim == 3 and array.shape[-1] >= 4:
        top = float(np.iinfo(array.dtype).max)
        ink = array[..., :4].astype(np.float32) / top
        return ((1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255 + 0.5).astype(np.uint8)
    extra = [int(e) for e in page.extrasamples] if page.extrasamples else []
    if array.ndim == 3 and extra:
        wanted = array.shape[-1] - len(extra)
        if wanted not in (1, 3):
            raise ImageError(f"{name}: has {array.shape[-1]} channels; a photograph has 1 or 3, and perhaps alpha.")
        if extra[0] == _UNKNOWN or len(extra) > 1:  # nobody says that it is transparency
            return array[..., :wanted]
        if extra[0] == _PREMULTIPLIED and array.dtype.kind == "u":
            alpha = array[..., -1:].astype(np.float64)
            color = array[..., :-1] * (np.iinfo(array.dtype).max / np.maximum(alpha, 1))
            straight = np.minimum(color, np.iinfo(array.dtype).max)
            return np.concatenate([straight.astype(array.dtype), array[..., -1:]], -1)
    return array


def channel_pages(tif: Any) -> list[int]:
    """Pages of red, green and blue where each is a page of its own (OME or ImageJ ``C`` of 3), else nothing."""
    if len(tif.pages) < 3 or not (tif.is_ome or tif.is_imagej):
        return []
    series = tif.series[0]
    shape = dict(zip(series.axes, series.shape, strict=False))
    if shape.get("C") != 3 or any(n != 1 for axis, n in shape.items() if axis not in "CYX"):
        return []
    pages = [p.index for p in series.pages if p is not None]
    return pages if len(pages) == 3 else []


def _is_pyramid(tif: Any, n_pages: int) -> bool:
    """Whether the further pages are smaller copies of the first (a slide scanner's file)."""
    series = tif.series[0]
    return len(tif.series) == 1 and len(series.levels) == n_pages


def _check_whole(tif: Any, page: Any, name: str) -> None:
    """tifffile fills missing strips with zeros; a cell count must not be made from those."""
    handle = tif.filehandle
    size = int(handle.size) if handle.size is not None else os.path.getsize(handle.path)
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n]
    if not ends or max(ends) > size or (0 in page.databytecounts and page.is_memmappable):
        raise ImageError(f"{name}: is cut off: it has {size} bytes of {max(ends, default=0)}.")


def bits_in_use(page: Any) -> int | None:
    """Bits in use per value, where the file says so and they are fewer than its type holds."""
    bits = page.bitspersample
    depth = int(bits if isinstance(bits, int) else bits[0])
    if page.dtype is not None and page.dtype.kind == "u" and page.photometric.name != "PALETTE":
        if 1 < depth < 8 or 8 < depth < 16:
            return depth
        most = _tag(page, _MAX_SAMPLE_VALUE)
        most = max(most) if isinstance(most, tuple) else most
        if depth == 16 and isinstance(most, int) and 255 < most < 65535:
            return most.bit_length()
    return None


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value
