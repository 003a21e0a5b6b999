"""Slides of scanners (``.svs``, ``.ndpi``, ``.mrxs``, ...) through openslide, the extra ``wsi``."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.slides.companions import companions
from napari_bloodcells.core.slides.slide import Region, possible_scale

CACHE_BYTES = 128 * 2**20


class ScannerSlide:
    """One slide in openslide's hands; implements ``Slide``."""

    remarks: tuple[str, ...] = ()

    def __init__(self, path: Path | str) -> None:
        self.name = display_name(path)
        try:
            import openslide
        except ImportError:
            raise ImageError(
                f"{self.name}: slides of scanners need openslide: pip install 'napari-bloodcells[wsi]'."
            ) from None
        self._error = openslide.OpenSlideError
        if Path(path).suffix == ".mrxs" and not companions(path):
            raise ImageError(
                f"{self.name}: its folder {display_name(Path(path).with_suffix(''))} with the pixels is not beside it; "
                "put both into one folder."
            )
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as problem:
            raise ImageError(f"{self.name}: is no slide that openslide can read ({problem}).") from None
        self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        self.width, self.height = self._slide.dimensions
        self.levels: tuple[tuple[int, int], ...] = tuple(self._slide.level_dimensions)
        found = [self._number(openslide.PROPERTY_NAME_MPP_X), self._number(openslide.PROPERTY_NAME_MPP_Y)]
        self.um_per_pixel = possible_scale(found[0], found[1], self.name)

    def _number(self, name: str) -> float | None:
        value: Any = self._slide.properties.get(name)
        try:
            return None if value is None else float(value)
        except ValueError:
            return None

    def read(self, region: Region, level: int = 0) -> NDArray[np.uint8]:
        """See ``Slide``."""
        left, top, right, bottom = region
        factor = self._slide.level_downsamples[level]
        place = round(left * factor), round(top * factor)  # openslide takes the corner in pixels of the finest level
        try:
            picture = self._slide.read_region(place, level, (right - left, bottom - top))
        except self._error as problem:
            raise ImageError(f"{self.name}: is damaged and cannot be read ({problem}).") from None
        return on_white(np.asarray(picture))

    def __enter__(self) -> ScannerSlide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._slide.close()


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) with straight alpha on white: (H, W, 3); what a scanner did not photograph is transparent.

    >>> on_white(np.array([[[10, 20, 30, 255], [0, 0, 0, 0]]], np.uint8)).tolist()
    [[[10, 20, 30], [255, 255, 255]]]
    """
    alpha = rgba[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    color, share = rgba[..., :3].astype(np.uint16), alpha.astype(np.uint16)
    return ((color * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
