"""What the header of a huge TIFF says: its levels, the pieces they lie in, and its scale; no pixel is decoded here.

Smaller copies of the picture (OME's SubIFDs, or pages marked as reduced) are the further levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_bloodcells.core.tiff import channel_pages, channel_starts

LARGEST_SEGMENT = 2**26
"""Pixels of a tile or strip; a larger one cannot be decoded in bounded memory."""
_RAW_ROWS = 64
_REDUCED, _MASK, _MOST_PAGES = 1, 4, 64
_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}


@dataclass(frozen=True)
class Shape:
    """What the header of a TIFF says: its size, and whether it lies in tiles or has smaller copies of itself."""

    width: int
    height: int
    layered: bool


def in_pieces(path: Path | str) -> Shape | None:
    """The size of a TIFF that can be read piece by piece; None for any other file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages[0]
            if not readable(page):
                return None
            layered = bool(page.is_tiled) or bool(page.subifds)
            return Shape(int(page.imagewidth), int(page.imagelength), layered)
    except Exception:  # whatever a damaged file leads tifffile into: the reader of photographs says what is wrong
        return None


def readable(page: Any) -> bool:
    """Whether a page of 8 or 16 bits lies in pieces of bounded size."""
    width, rows = segment_size(page)
    deep = page.dtype is not None and page.dtype.kind == "u" and page.dtype.itemsize <= 2
    return bool(deep and int(page.imagedepth) == 1 and width * rows <= LARGEST_SEGMENT)


def segment_size(page: Any) -> tuple[int, int]:
    """Width and height of the pieces: tiles, strips, or some rows of what is not compressed."""
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength)
    if is_raw(page):
        return int(page.imagewidth), min(_RAW_ROWS, int(page.imagelength))
    return int(page.imagewidth), min(int(page.rowsperstrip), int(page.imagelength))


def is_raw(page: Any) -> bool:
    """Uncompressed rows one after the other, which can be cut anywhere."""
    return bool(page.is_memmappable) and not page.is_tiled and int(page.planarconfig) == 1


@dataclass(frozen=True)
class Layer:
    """One level: its planes (one page of all colors, or one each for red, green and blue) and its pieces.

    Of what is not compressed ``starts`` are the bytes at which the planes begin, which may be more than the pages.
    """

    pages: tuple[Any, ...]
    width: int
    height: int
    segment: tuple[int, int]
    starts: tuple[int, ...] = ()


def layers(tif: Any) -> tuple[Layer, ...]:
    """The levels of the first picture of an open TIFF, the finest first."""
    channels = channel_pages(tif)
    if starts := channel_starts(tif):
        return (_layer((tif.pages[0],), starts),)
    found = []
    for level in tif.series[0].levels:
        pages = level.pages[:3] if channels else level.pages[:1]
        found.append(tuple(page.aspage() for page in pages))
    if len(found) == 1 and not channels:
        first = found[0][0]
        others = [page.aspage() for page in tif.pages[1:_MOST_PAGES]]
        reduced = [page for page in others if int(page.subfiletype) & _REDUCED and _same_picture(first, page)]
        found += [(page,) for page in reduced]
    return tuple(_layer(pages) for n, pages in enumerate(found) if n == 0 or readable(pages[0]))


def n_pictures(tif: Any, finest: Layer) -> int:
    """How many pictures of a slide's size an open TIFF holds, beside the levels, labels and macros of the first.

    ``finest`` is the one that is read; a further one is at least half as wide and no smaller copy.
    """
    first = finest.pages[0]
    n = tif.series[0].levels[0].size // (first.size * len(finest.starts or finest.pages))
    for series in tif.series[1:]:
        page = series.levels[0].keyframe
        copied = int(page.subfiletype) & (_REDUCED | _MASK) or _same_picture(first, page)
        if not copied and 2 * page.imagewidth >= first.imagewidth:
            n += series.levels[0].size // page.size
    return int(n)


def _same_picture(first: Any, page: Any) -> bool:
    """Whether a smaller page shows the first one, and is no picture of the label."""
    across, down = first.imagewidth / max(page.imagewidth, 1), first.imagelength / max(page.imagelength, 1)
    alike = page.samplesperpixel == first.samplesperpixel and page.dtype == first.dtype
    return bool(alike and across > 1.5 and 0.95 < across / down < 1.05)


def _layer(pages: tuple[Any, ...], starts: tuple[int, ...] = ()) -> Layer:
    page = pages[0]
    if is_raw(page) and not starts:
        starts = tuple(int(each.dataoffsets[0]) for each in pages)
    return Layer(pages, int(page.imagewidth), int(page.imagelength), segment_size(page), starts)


def stated_scale(tif: Any) -> tuple[float | None, float | None]:
    """Micrometers per pixel in x and y as OME or the resolution tags state them."""
    if tif.is_ome and (ome := _ome_scale(tif.ome_metadata)) is not None:
        return ome
    page = tif.pages[0]
    unit = page.tags.get("ResolutionUnit")
    um = _UM_PER_UNIT.get(int(unit.value)) if unit is not None else None
    if um is None:
        return None, None
    found: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        over, under = tag.value if tag is not None else (0, 1)
        found.append(um * under / over if over else None)
    return found[0], found[1]


def _ome_scale(xml: str) -> tuple[float | None, float | None] | None:
    from defusedxml import ElementTree

    try:
        root = ElementTree.fromstring(xml.encode())
        pixels = next(element for element in root.iter() if element.tag.endswith("}Pixels"))
        sizes = []
        for axis in "XY":
            unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            value = pixels.get(f"PhysicalSize{axis}")
            sizes.append(float(value) * unit if value and unit else None)
    except (ElementTree.ParseError, StopIteration, ValueError):
        return None
    return (sizes[0], sizes[1]) if any(sizes) else None
