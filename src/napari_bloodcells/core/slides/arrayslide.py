"""An array that is not in memory (dask, zarr, a memory map) as a slide: read region by region, like one in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.pixels import to_rgb8
from napari_bloodcells.core.slides.slide import Region

_SAMPLED, _PIECE = 8, 256


class ArraySlide:
    """One large array; implements ``Slide``.

    Parameters
    ----------
    levels : sequence of (H, W, 3) or (H, W, 4) arrays
        The finest first; anything with ``shape`` and ``dtype`` whose regions can be read one by one.
    name : str
        For messages.

    Raises
    ------
    ImageError
        A level is no color image.

    Examples
    --------
    >>> slide = ArraySlide([np.zeros((600, 800, 3), np.uint8)], "smear")
    >>> slide.levels, slide.read((0, 0, 20, 10)).shape
    (((800, 600),), (10, 20, 3))
    """

    um_per_pixel: float | None = None
    remarks: tuple[str, ...] = ()

    def __init__(self, levels: Sequence[Any], name: str) -> None:
        for level in levels:
            if len(level.shape) != 3 or level.shape[2] not in (3, 4):
                shape = " x ".join(map(str, level.shape))
                raise ImageError(f"{name}: has shape {shape}; a slide is height x width x 3 or 4 colors.")
        self.name = name
        self._levels = tuple(levels)
        self.levels: tuple[tuple[int, int], ...] = tuple((int(a.shape[1]), int(a.shape[0])) for a in levels)
        self.width, self.height = self.levels[0]

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """See ``Slide``."""
        return to_rgb8(self._part(region, level), self.name, bits=self._bits)

    def _part(self, region: Region, level: int = 0) -> NDArray[Any]:
        left, top, right, bottom = region
        try:
            return np.asarray(self._levels[level][top:bottom, left:right])
        except MemoryError:
            raise
        except Exception as problem:  # whatever stands behind a lazy array raises what it likes
            raise ImageError(
                f"{self.name}: cannot be read at {left}, {top} ({type(problem).__name__}: {problem})."
            ) from problem

    @cached_property
    def _bits(self) -> int | None:
        """Bits per value, judged once for the whole by the brightest of pieces spread over it, as of a huge TIFF."""
        kind = self._levels[0].dtype
        if kind == np.uint8 or kind == np.bool_:
            return None
        brightest = 0.0
        for top in range(0, self.height, max(_PIECE, self.height // _SAMPLED)):
            for left in range(0, self.width, max(_PIECE, self.width // _SAMPLED)):
                right, bottom = min(left + _PIECE, self.width), min(top + _PIECE, self.height)
                brightest = max(brightest, float(np.nanmax(self._part((left, top, right, bottom)), initial=0)))
        if np.issubdtype(kind, np.floating) and brightest <= 1:
            return None
        return next((bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits), None)

    def __enter__(self) -> ArraySlide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None
