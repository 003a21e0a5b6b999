"""Huge TIFFs tile by tile, or strip by strip: OME-TIFF, BigTIFF and any other whose pieces can be decoded alone.

tifffile reads the headers and decodes single segments; the pixels of a page are never asked for as a whole.  Decoded
segments stay in a cache of bounded size, so that neighboring regions do not decode them again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.pixels import to_rgb8
from napari_bloodcells.core.slides.slide import Region, possible_scale
from napari_bloodcells.core.slides.tiffheader import Layer, layers, n_pictures, readable, segment_size, stated_scale
from napari_bloodcells.core.tiff import as_shown, bits_in_use, check_colors

CACHE_BYTES = 320 * 2**20
_ORIENTATION = 274
_SAMPLED = 64


class TiffSlide:
    """One huge TIFF; implements ``Slide``.

    Raises
    ------
    ImageError
        It is no TIFF, is cut off, or cannot be read piece by piece.
    """

    def __init__(self, path: Path | str) -> None:
        import tifffile

        self.name = display_name(path)
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8] | None] = OrderedDict()
        self._held = 0
        try:
            self._tif = tifffile.TiffFile(path)
        except Exception as problem:  # tifffile raises whatever damaged data leads it into
            raise ImageError(f"{self.name}: is no TIFF that can be read ({_short(problem)}).") from None
        try:
            self._layers = layers(self._tif)
            self._check()
            self.levels: tuple[tuple[int, int], ...] = tuple((layer.width, layer.height) for layer in self._layers)
            self.width, self.height = self.levels[0]
            self.um_per_pixel = possible_scale(*stated_scale(self._tif), self.name)
            n = n_pictures(self._tif, self._layers[0])
            self.remarks: tuple[str, ...] = (f"{self.name}: holds {n} pictures; the first is read.",) if n > 1 else ()
            self._bits = self._bits_in_use()
        except ImageError:
            self._tif.close()
            raise
        except Exception as problem:
            self._tif.close()
            raise ImageError(f"{self.name}: is damaged or cut off and cannot be read ({_short(problem)}).") from None

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """See ``Slide``."""
        left, top, right, bottom = region
        layer = self._layers[level]
        across, down = layer.segment
        pixels = np.full((bottom - top, right - left, 3), 255, np.uint8)
        for row in range(top // down, -(-bottom // down)):
            for column in range(left // across, -(-right // across)):
                piece = self._piece(level, row, column)
                if piece is None:
                    continue
                x, y = column * across, row * down
                low_x, low_y = max(left, x), max(top, y)
                seen = piece[low_y - y : bottom - y, low_x - x : right - x]
                pixels[low_y - top : low_y - top + seen.shape[0], low_x - left : low_x - left + seen.shape[1]] = seen
        return pixels

    def _piece(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        """One tile or strip as RGB, from the cache where it is there; None where the file left it out."""
        key = (level, row, column)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        try:
            raw = self._decoded(self._layers[level], row, column)
            piece = None if raw is None else to_rgb8(raw, self.name, bits=self._bits)
        except ImageError:
            raise
        except Exception as problem:
            raise ImageError(f"{self.name}: is damaged and cannot be read ({_short(problem)}).") from None
        with self._lock:
            self._cache[key] = piece
            self._held += 0 if piece is None else piece.nbytes
            while self._held > CACHE_BYTES and len(self._cache) > 1:
                _, old = self._cache.popitem(last=False)
                self._held -= 0 if old is None else old.nbytes
        return piece

    def _decoded(self, layer: Layer, row: int, column: int) -> NDArray[Any] | None:
        """One piece with the file's own values, samples last."""
        page = layer.pages[0]
        if layer.starts:
            rows = [self._rows(layer, row, start) for start in layer.starts]
            return as_shown(rows[0] if len(rows) == 1 else np.stack(rows, axis=-1), page, self.name)
        across, down = layer.segment
        columns = -(-layer.width // across)
        index = row * columns + column
        if len(layer.pages) > 1:
            planes = [self._segment(each, index) for each in layer.pages]
        elif int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1:
            each_plane = columns * -(-layer.height // down)
            planes = [self._segment(page, index + n * each_plane) for n in range(int(page.samplesperpixel))]
        else:
            whole = self._segment(page, index)
            if whole is None:
                return None
            return as_shown(whole[..., 0] if whole.shape[-1] == 1 else whole, page, self.name)
        there = [plane[..., 0] for plane in planes if plane is not None]
        if len(there) < len(planes):
            return None
        if len(layer.pages) > 1:
            return as_shown(np.stack(there, axis=-1), page, self.name)
        return as_shown(np.stack(there), page, self.name)

    def _segment(self, page: Any, index: int) -> NDArray[Any] | None:
        """Decoded segment number ``index`` of a page as (h, w, samples)."""
        offset, size = page.dataoffsets[index], page.databytecounts[index]
        if not size:
            return None
        data = self._bytes(offset, size)
        segment = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
        result: NDArray[Any] | None = None if segment is None else segment[0]
        return result

    def _rows(self, layer: Layer, row: int, start: int) -> NDArray[Any]:
        """Some rows of an uncompressed plane, which begins at byte ``start``."""
        page = layer.pages[0]
        samples, down = int(page.samplesperpixel), layer.segment[1]
        rows = min(down, layer.height - row * down)
        kind = page.dtype.newbyteorder(self._tif.byteorder)
        line = layer.width * samples * kind.itemsize
        data = self._bytes(start + row * down * line, rows * line)
        array = np.frombuffer(data, kind).reshape(rows, layer.width, samples).astype(page.dtype, copy=False)
        return array[..., 0] if samples == 1 else array

    def _bytes(self, offset: int, size: int) -> bytes:
        handle = self._tif.filehandle
        with self._lock:
            handle.seek(offset)
            data: bytes = handle.read(size)
        if len(data) < size:
            raise ImageError(f"{self.name}: is cut off: {size - len(data)} bytes are missing.")
        return data

    def _check(self) -> None:
        """Refuse what could not be read region by region, or would be read as blank because it is cut off."""
        top = self._layers[0]
        check_colors(top.pages[0], self.name)
        for page in top.pages:
            if not readable(page) or segment_size(page) != top.segment:
                raise ImageError(
                    f"{self.name}: cannot be read region by region ({page.dtype}, {page.compression.name.lower()} in "
                    f"pieces of {top.segment[0]} x {top.segment[1]}); save it as a tiled TIFF of 8 bits."
                )
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n]
            ends += [start + int(page.nbytes) for start in top.starts]
            size = int(self._tif.filehandle.size)
            if not ends or max(ends) > size:
                raise ImageError(f"{self.name}: is cut off: it has {size} bytes of {max(ends, default=0)}.")
        tag = top.pages[0].tags.get(_ORIENTATION)
        if tag is not None and int(tag.value) != 1:
            raise ImageError(f"{self.name}: is stored turned (orientation {tag.value}); save it upright.")

    def _bits_in_use(self) -> int | None:
        """Bits per value: stated, or judged once for the whole slide by the brightest of pieces spread over it."""
        layer = self._layers[0]
        page = layer.pages[0]
        stated = bits_in_use(page)
        if stated is not None or page.dtype.itemsize == 1:
            return stated
        columns, rows = -(-layer.width // layer.segment[0]), -(-layer.height // layer.segment[1])
        step = max(1, columns * rows // _SAMPLED)
        pieces = (self._decoded(layer, i // columns, i % columns) for i in range(0, columns * rows, step))
        brightest = max((int(piece.max()) for piece in pieces if piece is not None), default=0)
        return next(bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)

    def __enter__(self) -> TiffSlide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cache.clear()
        self._tif.close()


def _short(problem: Exception) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 100 else text[:97] + "..."
