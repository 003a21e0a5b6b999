"""The fields of an image layer, as the core wants them: ``uint8`` RGB, one after the other, at full resolution.

An RGB image is one field, an RGB stack is a series, a multiscale image is counted at its first level.  What is not a
color photograph of a smear is refused with a word on what to do.  Files are read by the core itself, so that the
window and the command count the very same pixels.  Pixels may lie on a slow disk: where all of an image is judged
(``refuse_grey``, ``digest``), it is looked at as coarsely as will do.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import BloodcellsError, ImageError
from napari_bloodcells.napari.cell import Box

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_bloodcells.core.slides import ArraySlide
    from napari_bloodcells.core.slides.slide import Region

METADATA = "bloodcells"
"""Key in ``layer.metadata`` under which the plugin keeps what it knows of a layer."""

LARGE = 24_000_000
"""Pixels from which no more than a part of an image is read where a part will do; a field of a camera has fewer."""

_LOG = logging.getLogger(__name__)
_GREY_SAMPLES = 64
_DIGEST_GRID = 256
_SQUARE = 64
_SQUARES = 5
"""Squares along each side that stand for a large lazy array without smaller levels: every n-th pixel of all of it would
read every chunk (400 for 20,000 x 20,000 pixels in chunks of 1,024)."""


@dataclass(frozen=True)
class Fields:
    """The fields behind one image layer.

    Attributes
    ----------
    layer : Image
    names : tuple of str
        One per field, as they stand in the column ``image``.
    paths : tuple of Path
        The files, one per field; empty where the layer is not one file (or series of files).
    sizes : tuple of (height, width)
    series : bool
        Whether the layer has an axis of planes.
    """

    layer: Image
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    series: bool

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Field ``index`` as (H, W, 3) uint8 RGB, at full resolution."""
        from napari_bloodcells.core.pixels import to_rgb8

        height, width = self.sizes[index]
        data = full_resolution(self.layer)
        plane = np.asarray(data[index] if self.series else data)
        return to_rgb8(plane[:height, :width], self.names[index])

    def cut(self, index: int, box: Box) -> NDArray[Any]:
        """The pixels of ``box`` of field ``index``, as the layer holds them (at least one by one)."""
        height, width = self.sizes[index]
        x_min, y_min = (int(np.clip(v, 0, limit - 1)) for v, limit in ((box[0], width), (box[1], height)))
        x_max, y_max = max(x_min + 1, int(np.ceil(box[2]))), max(y_min + 1, int(np.ceil(box[3])))
        data = full_resolution(self.layer)
        plane = data[index] if self.series else data
        return np.asarray(plane[y_min : min(y_max, height), x_min : min(x_max, width)])

    def slide(self, index: int) -> ArraySlide | None:
        """Field ``index`` as a slide for the core, where it is not in memory and as large as a TIFF that is one."""
        from napari_bloodcells.core.slides import ArraySlide, is_large

        height, width = self.sizes[index]
        levels = self.layer.data if self.layer.multiscale else [self.layer.data]
        if isinstance(levels[0], np.ndarray) or not is_large(width, height, len(levels) > 1):
            return None
        if self.series:
            import dask.array as da

            levels = [da.asanyarray(level)[index] for level in levels]
        return ArraySlide(list(levels), self.names[index])

    def regions(self, index: int) -> Callable[[Region], NDArray[np.uint8]]:
        """Reads any region of field ``index`` (left, top, right, bottom, inside of it) as (h, w, 3) uint8 RGB.

        Only the region is read where that is possible; values of more than 8 bits are judged by the whole field.
        """
        from napari_bloodcells.core.pixels import to_rgb8

        if (slide := self.slide(index)) is not None:
            return slide.read
        if self.in_parts:
            return lambda region: to_rgb8(self.cut(index, region), self.names[index])
        whole = self.read(index)
        return lambda region: np.ascontiguousarray(whole[region[1] : region[3], region[0] : region[2]])

    @property
    def in_parts(self) -> bool:
        """Whether a part can be read without the whole: bytes in memory, or a lazy array too large for a file of one
        field."""
        data = full_resolution(self.layer)
        large = max(height * width for height, width in self.sizes) > LARGE
        return data.dtype == np.uint8 and (large or isinstance(data, np.ndarray))

    def window(self, index: int, box: Box) -> tuple[NDArray[np.uint8], Box]:
        """The pixels around ``box`` (half a side more on each) as uint8 RGB, and the box in them."""
        from napari_bloodcells.core.pixels import to_rgb8

        height, width = self.sizes[index]
        more = max(box[2] - box[0], box[3] - box[1]) / 2
        left, top = int(max(0, box[0] - more)), int(max(0, box[1] - more))
        wide: Box = (left, top, min(width, box[2] + more), min(height, box[3] + more))
        inner: Box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        return to_rgb8(self.cut(index, wide), self.names[index]), inner

    def digest(self) -> bytes:
        """A digest of (a grid of) the pixels, by which an image without a file is known; they are read once."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        found = hashlib.sha256("\n".join(map(str, self.sizes)).encode())
        for index in range(min(len(self), 8)):
            for part in self._coarsely(index, _DIGEST_GRID):
                found.update(np.ascontiguousarray(part).tobytes())
        return found.digest()

    def refuse_grey(self) -> None:
        """Raise ``ImageError`` where red, green and blue of the first field are the same everywhere."""
        parts = [part[..., :3] for part in self._coarsely(0, _GREY_SAMPLES) if part.size]
        if parts and all((part == part[..., :1]).all() for part in parts):
            raise ImageError(
                f"{self.layer.name}: red, green and blue are the same everywhere, so this is a grey image; "
                "the stain cannot be seen without its colors."
            )

    def _coarsely(self, index: int, n: int) -> Iterator[NDArray[Any]]:
        """Pixels spread over field ``index``, about ``n`` along a side: of the smallest level that has so many; where
        that is large and not in memory, whole squares instead."""
        levels = list(self.layer.data) if self.layer.multiscale else [self.layer.data]
        level = next((level for level in reversed(levels) if min(level.shape[-3:-1]) >= n), levels[0])
        plane = level[index] if self.series else level
        height, width = self.sizes[index] if level is levels[0] else plane.shape[:2]
        if isinstance(level, np.ndarray) or height * width <= LARGE:
            yield np.asarray(plane[:: max(1, height // n), :: max(1, width // n)])
            return
        tops, lefts = ([k * (side - _SQUARE) // (_SQUARES - 1) for k in range(_SQUARES)] for side in (height, width))
        for top, left in product(tops, lefts):
            yield np.asarray(plane[top : top + _SQUARE, left : left + _SQUARE])


class FieldPixels:
    """One field as an array (height, width, 3) uint8 that is read when numpy asks for it."""

    dtype = np.dtype(np.uint8)

    def __init__(self, fields: Fields, index: int) -> None:
        self.shape = (*fields.sizes[index], 3)
        self._fields, self._index = fields, index

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return self._fields.read(self._index)


def fields_of(layer: Image, *, look: bool = True) -> Fields:
    """The fields of an image layer.

    Parameters
    ----------
    layer : Image
    look : bool
        Whether pixels are read to tell a grey image; without it ``refuse_grey`` is left to a thread.

    Raises
    ------
    ImageError
        The layer holds no color photograph, or has more axes than a series of fields.
    """
    name = layer.name
    if not layer.rgb:
        raise ImageError(
            f"{name}: is a grey image, and the stain cannot be seen without its colors; open the color photograph "
            "(a color image whose channels are split can be merged by a right click, Merge to RGB)."
        )
    data = full_resolution(layer)
    shape = tuple(int(n) for n in data.shape)
    if len(shape) > 4:
        raise ImageError(f"{name}: has {len(shape) - 1} axes; a smear is one field or one series of fields.")
    series = len(shape) == 4
    count = shape[0] if series else 1
    known = layer.metadata.get(METADATA, {})
    sizes = tuple((int(h), int(w)) for h, w in known.get("sizes", ())) or (shape[-3:-1],) * count
    paths = tuple(Path(p) for p in known.get("paths", ()))
    names = tuple(str(n) for n in known.get("images", ()))
    if not paths and not series and layer.source.path and Path(layer.source.path).is_file():
        paths = (Path(layer.source.path),)
    if len(names) != count:
        names = tuple(p.name for p in paths) if len(paths) == count else _array_names(name, count)
    fields = Fields(layer, names, paths if len(paths) == count else (), sizes, series)
    if look:
        fields.refuse_grey()
    return fields


def full_resolution(layer: Image) -> Any:
    """The array of a layer; of a multiscale one, its first level."""
    return layer.data[0] if layer.multiscale else layer.data


def same_on_disk(fields: Fields) -> bool:
    """Whether the files of ``fields`` show what the layer shows, so that the core may read them itself.

    Sizes are compared for all, and pixels for the field in view (an image that was turned or cropped after opening,
    or a file that was replaced, must not give boxes in other places).
    """
    if not fields.paths:
        return False
    if fields.layer.metadata.get(METADATA, {}).get("reader") == "core":
        return all(path.is_file() for path in fields.paths)
    from napari_bloodcells.core.images import read_image
    from napari_bloodcells.core.slides import is_slide

    try:
        if is_slide(fields.paths[0]):
            return _same_slide(fields)
        image = read_image(fields.paths[0])
    except BloodcellsError as error:
        _LOG.info("%s", error)
        return False
    if image.shape[:2] != fields.sizes[0]:
        return False
    shown = fields.read(0)
    step = max(1, min(image.shape[:2]) // _GREY_SAMPLES)
    return _alike(image[::step, ::step], shown[::step, ::step])


def _same_slide(fields: Fields) -> bool:
    """Whether the first file, a slide, shows what the layer shows; squares spread over it are compared."""
    from napari_bloodcells.core.slides import open_slide

    height, width = fields.sizes[0]
    across, down = (sorted({v * max(length - _SQUARE, 0) // 4 for v in range(5)}) for length in (width, height))
    with open_slide(fields.paths[0]) as slide:
        if (slide.width, slide.height) != (width, height):
            return False
        shown = fields.regions(0)
        squares = [(x, y, min(x + _SQUARE, width), min(y + _SQUARE, height)) for y in down for x in across]
        return all(_alike(slide.read(square), shown(square)) for square in squares)


def _alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return bool(np.abs(a.astype(int) - b.astype(int)).mean() < 3)  # decoders of one JPEG differ by a count or two


def _array_names(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name} [{i + 1}]" for i in range(count))
