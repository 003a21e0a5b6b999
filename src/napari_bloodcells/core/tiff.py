"""The many kinds of TIFF, through tifffile: pages, planes, palettes, inverted grey, YCbCr and Lab, OME channels.

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

_ORIENTATION, _MAX_SAMPLE_VALUE, _YCBCR_COEFFICIENTS, _REFERENCE_BLACK_WHITE = 274, 281, 529, 532
_UNKNOWN, _PREMULTIPLIED = 0, 1
_JPEG = (6, 7, 33007, 34892)
_GIVE_RGB = (*_JPEG, 22610, 33004, 33005, 34712, 34933, 34934, 50001, 50002, 52546)
"""Compressions whose decoders give RGB, whatever the file says of its colors: JPEG, JPEG XR, JPEG 2000, PNG, WebP."""


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
        n_pages = _n_pictures(tif)
        channels, starts = channel_pages(tif), channel_starts(tif)
        _check_whole(tif, page, name)
        check_colors(page, name)
        if channels:
            array = np.stack([tif.pages[i].asarray(maxworkers=1) for i in channels], axis=-1)
        elif starts:
            array = np.stack([_plane_at(tif, page, start, name) for start in starts], axis=-1)
        else:
            array = page.asarray(maxworkers=1)
            if n_pages > 1 and not _is_pyramid(tif, n_pages):
                problems = (f"{name}: holds {n_pages} pictures; the first is read.",)
        orientation = int(_tag(page, _ORIENTATION) or 1)
        return as_shown(array, page, name), orientation, bits_in_use(page), problems


def as_shown(array: NDArray[Any], page: Any, name: str) -> NDArray[Any]:
    """Samples last, colors looked up, inverted grey, CMYK, YCbCr and Lab resolved, alpha straight."""
    array = array.reshape([n for n in array.shape[:-3] if n != 1] + list(array.shape[-3:]))
    if array.ndim == 3 and int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1:
        array = np.moveaxis(array, 0, -1)
    photometric = page.photometric.name
    if photometric == "PALETTE" and page.colormap is not None and (array.ndim == 2 or array.shape[-1] == 1):
        colors = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return np.moveaxis(colors[:, array.reshape(array.shape[:2])], 0, -1)
    if photometric == "MINISWHITE":
        inverted: NDArray[Any] = ~array if array.dtype == np.bool_ else (2 ** int(page.bitspersample) - 1) - array
        return inverted
    if photometric == "SEPARATED" and array.ndim == 3 and array.shape[-1] >= 4:
        top = float(np.iinfo(array.dtype).max)
        ink = array[..., :4].astype(np.float32) / top
        return ((1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255 + 0.5).astype(np.uint8)
    if array.ndim == 3 and array.shape[-1] >= 3 and (space := _other_colors(page)):
        return _from_ycbcr(array, page) if space == "YCBCR" else _from_lab(array, space)
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


def check_colors(page: Any, name: str) -> None:
    """Refuse colors that would be shown as others: YCbCr or Lab that is not of 8 bits or has fewer values of color."""
    space = _other_colors(page)
    if space and (space == "ITULAB" or page.bitspersample != 8 or page.is_subsampled):
        raise ImageError(f"{name}: stores its colors as {space}, in a kind that cannot be read; save it as RGB.")


def _other_colors(page: Any) -> str:
    """The color space of decoded pixels that are not RGB yet (YCBCR, CIELAB, ICCLAB, ITULAB); else nothing."""
    space = str(getattr(page.photometric, "name", ""))
    compression = int(page.compression)
    if space not in ("YCBCR", "CIELAB", "ICCLAB", "ITULAB"):
        return ""
    planes = compression in _JPEG and int(page.planarconfig) == 2  # each decoded alone, as gray
    return space if planes or compression not in _GIVE_RGB else ""


def _from_ycbcr(array: NDArray[Any], page: Any) -> NDArray[np.uint8]:
    """RGB of 8-bit YCbCr, by section 21 of TIFF 6.0 and the file's own coefficients."""
    red, green, blue = _fractions(page, _YCBCR_COEFFICIENTS, (0.299, 0.587, 0.114))
    levels = _fractions(page, _REFERENCE_BLACK_WHITE, (0, 255, 128, 255, 128, 255))
    tops = (255, 127, 127)
    luma, cb, cr = (
        (array[..., n].astype(np.float32) - levels[2 * n]) * (tops[n] / (levels[2 * n + 1] - levels[2 * n] or 1))
        for n in range(3)
    )
    r = luma + cr * (2 - 2 * red)
    b = luma + cb * (2 - 2 * blue)
    g = (luma - blue * b - red * r) / (green or 1)
    return np.stack([(np.clip(each, 0, 255) + 0.5).astype(np.uint8) for each in (r, g, b)], axis=-1)


def _from_lab(array: NDArray[Any], space: str) -> NDArray[np.uint8]:
    """RGB of 8-bit Lab; ``a`` and ``b`` are signed (CIELAB) or have 128 added (ICCLAB)."""
    from PIL import Image

    lab = np.ascontiguousarray(array[..., :3]).view(np.uint8)
    if space == "ICCLAB":
        lab = lab ^ np.array([0, 128, 128], np.uint8)
    return np.asarray(Image.frombytes("LAB", (lab.shape[1], lab.shape[0]), lab.tobytes()).convert("RGB"))


def _fractions(page: Any, code: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """A tag of so many fractions as ``default`` has; that where there is none, or no such."""
    found = _tag(page, code)
    if not isinstance(found, tuple) or len(found) != 2 * len(default) or 0 in found[1::2]:
        return default
    return tuple(over / under for over, under in zip(found[::2], found[1::2], strict=True))


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


def channel_starts(tif: Any) -> tuple[int, ...]:
    """Bytes at which red, green and blue begin where they follow one another behind the first header; else none.

    So ImageJ and Fiji write channels; above 4 GB there is no other header.
    """
    page = tif.pages[0]
    told = tif.imagej_metadata if tif.is_imagej else None
    if not told or told.get("channels") != 3 or told.get("slices", 1) != 1 or told.get("frames", 1) != 1:
        return ()
    if int(page.samplesperpixel) != 1 or not page.is_final or channel_pages(tif):
        return ()
    if len(tif.pages) > 1 and tif.series[0].dataoffset is None:
        return ()
    return tuple(int(page.dataoffsets[0]) + n * int(page.nbytes) for n in range(3))


def _plane_at(tif: Any, page: Any, start: int, name: str) -> NDArray[Any]:
    """One channel of an uncompressed picture, which begins at byte ``start``."""
    tif.filehandle.seek(start)
    data = tif.filehandle.read(int(page.nbytes))
    if len(data) < int(page.nbytes):
        raise ImageError(f"{name}: is cut off: {int(page.nbytes) - len(data)} bytes are missing.")
    plane = np.frombuffer(data, page.dtype.newbyteorder(tif.byteorder)).astype(page.dtype, copy=False)
    return plane.reshape(int(page.imagelength), int(page.imagewidth))


def _n_pictures(tif: Any) -> int:
    """How many pictures there are: headers, or what ImageJ wrote behind a single one."""
    n = len(tif.pages)
    return int(tif.series[0].size // tif.pages[0].size) if n == 1 and tif.is_imagej else n


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
