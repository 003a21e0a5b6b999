"""A picture on its way through the pipeline: its pixels, perhaps at half size, and how large it is as a whole.

A photograph through an oil lens has two to three times the resolution that the networks use, and a JPEG is decoded
at half size in less than half of the time.  So a large JPEG is read at half size first, on this disk and at an address
alike; only where the scale that was measured on it turns out too coarse for the crops it is read once more as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.counting.copies import bytes_digest, file_digest
from napari_bloodcells.core.images import (
    DEFAULT_MAX_PIXELS,
    photograph_of_bytes,
    read_photograph,
    to_rgb8,
)
from napari_bloodcells.core.remote import file_name, is_address, read_remote

HALVED_FROM = 560
"""Long side in pixels from which a JPEG is read at half size first."""


@dataclass(frozen=True)
class Picture:
    """Pixels (H, W, 3) uint8 RGB at ``1 / reduce`` of a picture of ``height`` x ``width`` pixels.

    A box in pixels of the whole picture is divided by ``reduce`` to lie in ``pixels``.  ``remarks`` say what was worked
    around in reading it; ``digest`` is that of its file, where it was asked for.  ``data`` are the bytes of a reduced
    one that was fetched, so that they need not be fetched twice.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int
    reduce: int = 1
    path: str = ""
    max_pixels: int = DEFAULT_MAX_PIXELS
    remarks: tuple[str, ...] = ()
    digest: str | None = None
    data: bytes | None = None

    @property
    def held(self) -> int:
        """Bytes of memory that it takes."""
        return self.pixels.nbytes + len(self.data or b"")

    @staticmethod
    def of_array(array: NDArray[np.generic], name: str) -> Picture:
        """An array that the caller holds; raises ``ImageError`` where it is no picture."""
        pixels = to_rgb8(array, name)
        return Picture(pixels, pixels.shape[0], pixels.shape[1])

    @staticmethod
    def of_file(path: str, max_pixels: int = DEFAULT_MAX_PIXELS, halve: bool = True, digest: bool = False) -> Picture:
        """Read a file, a large JPEG at half size if ``halve``; raises ``ImageError`` where it cannot be read."""
        halved = HALVED_FROM if halve else None
        data = None
        if is_address(path):
            data = read_remote(path, 16 * max_pixels + 2**26)
            read = photograph_of_bytes(data, file_name(path), max_pixels=max_pixels, halve_from=halved)
            same = bytes_digest(data) if digest else None
            data = data if read.reduce > 1 else None
        else:
            read = read_photograph(path, max_pixels=max_pixels, halve_from=halved)
            same = file_digest(path) if digest else None
        return Picture(read.pixels, read.height, read.width, read.reduce, path, max_pixels, read.problems, same, data)

    def whole(self) -> Picture:
        """The same at its full size."""
        if self.reduce == 1:
            return self
        if self.data is None:
            read = read_photograph(self.path, max_pixels=self.max_pixels)
        else:
            read = photograph_of_bytes(self.data, file_name(self.path), max_pixels=self.max_pixels)
        return replace(self, pixels=read.pixels, reduce=1, data=None)
