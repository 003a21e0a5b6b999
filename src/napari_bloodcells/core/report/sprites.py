"""Pictures for a report page: all cells on a few sheets, every field as a small picture, bounded in size.

One sheet of a hundred cells is one data URI, so 5,000 cells are fifty pictures to the browser, decoded only when
they scroll into view.  The more cells or fields, the smaller each is drawn; the page stays some megabytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.report.views import View, view_of

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from napari_bloodcells.core.report.inputs import Loader

SHEET_COLUMNS = 10
PER_SHEET = SHEET_COLUMNS * SHEET_COLUMNS
QUALITY = 78
MAX_TILES = 20_000
MAX_FIELDS = 2_000
_TILE_SIZES = ((400, 128), (1_500, 96), (6_000, 72), (MAX_TILES, 56))
_FIELD_WIDTHS = ((40, 800), (120, 560), (400, 360), (MAX_FIELDS, 240))
_EMPTY = (236, 234, 230)


@dataclass
class Pictures:
    """Encoded pictures of one sample.

    ``sheets`` are data URIs of ``tile`` x ``tile`` pixels per cell, ``SHEET_COLUMNS`` a row, in the order of the
    cells; ``fields`` one data URI per image, "" where it could not be read or is left out; ``sizes`` the width and
    height of each image in pixels.
    """

    tile: int
    sheets: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)


def draw_pictures(cells: pd.DataFrame, images: Sequence[str], load: Loader) -> Pictures:
    """Draw all cells and fields of one sample; each image is read once.

    Parameters
    ----------
    cells : DataFrame
        With ``image`` and the box columns; the order of its rows is that of the tiles.
    images : sequence of str
        Names of the images, in the order in which ``fields`` shall be.
    load : Loader
    """
    tile = _step(_TILE_SIZES, len(cells))
    width = _step(_FIELD_WIDTHS, len(images))
    pictures = Pictures(tile)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(cells["image"]):
        rows.setdefault(str(name), []).append(row)
    boxes = cells[list(BOX_COLUMNS)].to_numpy(float)
    tiles: dict[int, bytes] = {}
    for number, name in enumerate(images):
        wanted = [row for row in rows.get(name, []) if row < MAX_TILES]
        shown = number < MAX_FIELDS
        source = load(name) if wanted or shown else None
        pictures.sizes.append((0, 0))
        pictures.fields.append("")
        if source is None:
            continue
        with view_of(source) as view:
            pictures.sizes[-1] = view.size
            tiles.update(_tiles(view, {row: boxes[row].tolist() for row in wanted}, tile))
            if shown:
                pictures.fields[-1] = _field(view, width)
    if tiles:
        pictures.sheets = list(_sheets(tiles, min(len(cells), MAX_TILES), tile))
    return pictures


def _step(steps: Iterable[tuple[int, int]], n: int) -> int:
    """The value of the first step that is large enough for ``n``, or of the last."""
    listed = list(steps)
    return next((value for limit, value in listed if n <= limit), listed[-1][1])


def _tiles(view: View, boxes: dict[int, list[float]], size: int) -> Iterator[tuple[int, bytes]]:
    """The squares that can be read: a damaged part of a slide has no picture."""
    from PIL import Image

    for row, box in boxes.items():
        with suppress(ImageError):
            square = Image.fromarray(view.square(box)).resize((size, size), Image.Resampling.LANCZOS)
            yield row, square.tobytes()


def _sheets(tiles: dict[int, bytes], n: int, size: int) -> Iterable[str]:
    from PIL import Image

    for start in range(0, n, PER_SHEET):
        count = min(PER_SHEET, n - start)
        lines = -(-count // SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * size, lines * size), _EMPTY)
        for place in range(count):
            raw = tiles.get(start + place)
            if raw is not None:
                corner = (place % SHEET_COLUMNS * size, place // SHEET_COLUMNS * size)
                sheet.paste(Image.frombytes("RGB", (size, size), raw), corner)
        yield data_uri(sheet)


def _field(view: View, width: int) -> str:
    from PIL import Image

    try:
        return data_uri(Image.fromarray(view.small(width)))
    except ImageError:
        return ""


def data_uri(picture: Image, quality: int = QUALITY) -> str:
    """``picture`` as a data URI: WebP, or JPEG where Pillow was built without it.  No EXIF goes along."""
    from PIL import features

    kind = "WEBP" if features.check("webp") else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality, **({"method": 2} if kind == "WEBP" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
