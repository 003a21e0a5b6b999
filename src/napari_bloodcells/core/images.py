"""Photographs into arrays: any JPEG, PNG, BMP, WebP, GIF or TIFF becomes ``uint8`` RGB of shape (H, W, 3).

The format is told by the first bytes, never by the name, and only the decoders named here ever see the data.  What a
file means is settled once: EXIF orientation is applied, transparency lies on white (the empty ground of a smear),
grey is repeated, CMYK converted, and values of more than 8 bits are scaled as ``to_rgb8`` says.  An image that cannot
be read is an ``ImageError`` of one line; nothing is read from a pipe, and no decoder is started on an image that
declares more than ``max_pixels``.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import DataWarning, ImageError
from napari_bloodcells.core.files import check_regular, display_name, keeps_path, read_regular
from napari_bloodcells.core.find import IMAGE_SUFFIXES, find_images
from napari_bloodcells.core.pixels import to_rgb8

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Photograph",
    "find_images",
    "image_size",
    "photograph_of_bytes",
    "read_image",
    "read_image_bytes",
    "read_photograph",
    "to_rgb8",
]

# 150 million pixels are 450 MB as RGB; the largest sensors on microscopes have about 60 million.
DEFAULT_MAX_PIXELS = 150_000_000
_HEADER = 16
_REDUCTIONS = (1, 2, 4, 8)
_Reduction: TypeAlias = tuple[int, int | None]
"""``reduce`` and ``halve_from``."""
_EXIF_ORIENTATION = 274
_LYING = (5, 6, 7, 8)
"""Orientations whose rows are columns of the upright picture."""
_SMALLEST_DRAFT = 64  # of a few JPEG blocks a scaled decoding is not the mean of pixels


@dataclass(frozen=True)
class Photograph:
    """A photograph as it was read.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        RGB, upright, contiguous.
    problems : tuple of str
        What was worked around, one line each, naming the file.
    height, width : int
        Of the whole picture, upright, in pixels.
    reduce : int
        ``pixels`` are at this fraction of the size.
    """

    pixels: NDArray[np.uint8]
    problems: tuple[str, ...]
    height: int
    width: int
    reduce: int = 1


def read_image(path: Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS, reduce: int = 1) -> NDArray[np.uint8]:
    """Read a photograph from a file.

    Parameters
    ----------
    path : path
        A JPEG, PNG, BMP, WebP, GIF or TIFF file, whatever its name says.
    max_pixels : int
        Larger images are refused before they are decoded (guards against decompression bombs).
    reduce : 1, 2, 4 or 8
        Read at this fraction of the size.  Pixel ``i`` of the result covers exactly the columns
        ``[i * reduce, (i + 1) * reduce)`` of the whole image, so a coordinate is scaled by exactly ``1 / reduce``; the
        size is rounded up, the last row and column being the mean of what is left.  JPEG is scaled while it is
        decoded (three times faster at 4), other formats by the mean of each block.

    Returns
    -------
    (H, W, 3) uint8
        RGB, upright, contiguous.

    Raises
    ------
    ImageError
        If the file is no image, is damaged, cut off, too large or cannot be opened; one line naming the file.

    Warns
    -----
    DataWarning
        If the file holds several pictures, of which the first is read.
    """
    photograph = read_photograph(path, max_pixels=max_pixels, reduce=reduce)
    for problem in photograph.problems:
        warnings.warn(problem, DataWarning, stacklevel=2)
    return photograph.pixels


@keeps_path
def read_photograph(
    path: Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS, reduce: int = 1, halve_from: int | None = None
) -> Photograph:
    """As ``read_image``, but what was worked around is returned, not warned of: for threads, which share warnings.

    With ``halve_from`` a JPEG whose long side is so many pixels or more is read at half the size (instead of
    ``reduce``), any other picture as a whole; what is a JPEG its first bytes tell, not its name.
    """
    if reduce not in _REDUCTIONS:
        raise ValueError(f"reduce must be 1, 2, 4 or 8, not {reduce}")
    name = display_name(path)
    size = check_regular(path, ImageError)
    if size >= _HEADER and _is_tiff(_first_bytes(path, name)):
        return _read_tiff(Path(path), name, max_pixels, (reduce, halve_from))
    # No picture of max_pixels needs more than 16 bytes a pixel; a longer file is not read into memory at all.
    data = read_regular(path, 16 * max_pixels + 2**26, ImageError)
    return photograph_of_bytes(data, name, max_pixels=max_pixels, reduce=reduce, halve_from=halve_from)


def read_image_bytes(
    data: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, reduce: int = 1
) -> NDArray[np.uint8]:
    """Read a photograph from the bytes of its file; ``name`` stands in errors.  As ``read_image`` otherwise."""
    photograph = photograph_of_bytes(data, name, max_pixels=max_pixels, reduce=reduce)
    for problem in photograph.problems:
        warnings.warn(problem, DataWarning, stacklevel=2)
    return photograph.pixels


def photograph_of_bytes(
    data: bytes,
    name: str,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    reduce: int = 1,
    halve_from: int | None = None,
) -> Photograph:
    """As ``read_photograph``, from the bytes of the file."""
    if reduce not in _REDUCTIONS:
        raise ValueError(f"reduce must be 1, 2, 4 or 8, not {reduce}")
    if _is_tiff(data[:_HEADER]):
        return _read_tiff(io.BytesIO(data), name, max_pixels, (reduce, halve_from))
    if not data:
        raise ImageError(f"{name}: is empty (0 bytes).")
    try:
        return _decode(data, name, max_pixels, (reduce, halve_from))
    except ImageError:
        raise
    except Exception as problem:  # decoders raise whatever damaged data leads them into
        raise ImageError(f"{name}: is damaged or cut off and cannot be read ({_short(problem)}).") from None


@keeps_path
def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels of what ``read_image`` returns, from the file's head; may raise ``ImageError``."""
    name = display_name(path)
    check_regular(path, ImageError)
    try:
        if _is_tiff(_first_bytes(path, name)):
            height, width = read_photograph(path).pixels.shape[:2]
            return height, width
        with open(path, "rb") as file:
            header = file.read(_HEADER)
            if not header:
                raise ImageError(f"{name}: is empty (0 bytes).")
            picture = _open(file, header, name)
            width, height = picture.size
            return (width, height) if picture.getexif().get(_EXIF_ORIENTATION, 1) in _LYING else (height, width)
    except ImageError:
        raise
    except Exception as problem:  # decoders raise whatever damaged data leads them into
        raise ImageError(f"{name}: is damaged or cut off and cannot be read ({_short(problem)}).") from None


def _decode(data: bytes, name: str, max_pixels: int, how: _Reduction) -> Photograph:
    from PIL import ImageOps

    picture = _open(io.BytesIO(data), data[:_HEADER], name)
    width, height = picture.size
    _check_size(width, height, name, max_pixels)
    reduce = reduced = _reduction(how, max(width, height) if picture.format == "JPEG" else 0)
    problems: tuple[str, ...] = ()
    if getattr(picture, "n_frames", 1) > 1:
        problems = (f"{name}: holds {picture.n_frames} pictures; the first is read.",)
        picture.seek(0)
    if picture.format == "PNG" and data[24] == 16:
        from imagecodecs import png_decode

        picture.load()  # Pillow finds the damage that makes libpng stop without a word, but keeps 8 bits only
        turned = _upright(png_decode(data), picture.getexif().get(_EXIF_ORIENTATION, 1))
        height, width = turned.shape[:2]
        return Photograph(_shrink(to_rgb8(turned, name), reduce), problems, height, width, reduced)
    orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    upright = orientation == 1 or not (width % reduce or height % reduce)
    if reduce > 1 and picture.format == "JPEG" and upright and min(width, height) >= _SMALLEST_DRAFT:
        # Turned images of a size that reduce does not divide would have their partial pixels on the wrong side.
        picture.draft(picture.mode, (max(1, width // reduce), max(1, height // reduce)))
        reduce = max(1, reduce // max(1, round(width / picture.size[0])))
    if orientation != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB":
        array: NDArray[np.uint8] = np.array(picture)
    elif picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        array = to_rgb8(np.asarray(picture.convert("RGBA")), name)
    elif picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        array = to_rgb8(np.asarray(picture), name)
    else:
        array = np.array(picture.convert("RGB"))
    if orientation in _LYING:
        width, height = height, width
    return Photograph(_shrink(array, reduce), problems, height, width, reduced)


def _open(file: BinaryIO, data: bytes, name: str) -> Any:
    """The picture in ``file``, its header read; ``data`` are its first bytes.

    The classes are called directly: ``Image.open`` would try every installed plugin and apply Pillow's own global
    size limit, which a library must not change.
    """
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    file.seek(0)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(file)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(file)
    if data.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(file)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile(file)
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        raise ImageError(f"{name}: is a HEIC or AVIF picture of a phone; save it as JPEG or PNG first.")
    raise ImageError(f"{name}: is no image that can be read (JPEG, PNG, BMP, WebP, GIF or TIFF).")


def _read_tiff(file: Path | io.BytesIO, name: str, max_pixels: int, how: _Reduction) -> Photograph:
    from napari_bloodcells.core.tiff import decode_tiff

    def check_size(width: int, height: int) -> None:
        _check_size(width, height, name, max_pixels)

    try:
        array, orientation, bits, problems = decode_tiff(file, name, check_size)
        whole = to_rgb8(_upright(array, orientation), name, bits=bits)
        height, width = whole.shape[:2]
        reduce = _reduction(how, 0)
        return Photograph(_shrink(whole, reduce), problems, height, width, reduce)
    except ImageError:
        raise
    except Exception as problem:  # tifffile and the codecs raise whatever damaged data leads them into
        raise ImageError(f"{name}: is damaged or cut off and cannot be read ({_short(problem)}).") from None


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width} x {height}).")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {max_pixels / 1e6:g} million; "
            "raise max_pixels (--max-pixels) if the file can be trusted."
        )


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """``array`` turned as EXIF orientation 1 to 8 says (any other value: as it is)."""
    if orientation in _LYING:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _reduction(how: _Reduction, side: int) -> int:
    """At which fraction of the size a picture is read; ``side`` is the long one of a JPEG, 0 for other kinds."""
    reduce, halve_from = how
    return reduce if halve_from is None else 1 + (side >= halve_from)


def _shrink(array: NDArray[np.uint8], reduce: int) -> NDArray[np.uint8]:
    if reduce == 1:
        return array
    from PIL import Image

    return np.array(Image.fromarray(array).reduce(reduce))


def _is_tiff(header: bytes) -> bool:
    return header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _first_bytes(path: Path | str, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEADER)
    except OSError as problem:
        raise ImageError(f"{name}: cannot be read: {(problem.strerror or str(problem)).lower()}.") from None


def _short(problem: Exception) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 100 else text[:97] + "..."
