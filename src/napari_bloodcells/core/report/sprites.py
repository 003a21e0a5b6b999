"""Pictures for a report page: all cells on a few sheets, every field as a small picture, bounded in size.

One sheet of a hundred cells is one data URI, so 5,000 cells are fifty pictures to the browser, decoded only when
they scroll into view.  The more cells or fields, the smaller each is drawn; the page stays some megabytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from napari_bloodcells.core.report.inputs import Loader

SHEET_COLUMNS = 10
PER_SHEET = SHEET_COLUMNS * SHEET_COLUMNS
CONTEXT = 1.25
"""Side of a tile in sides of its box: some surroundings tell a touching red cell from cytoplasm."""
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
        pixels = load(name) if wanted or shown else None
        pictures.sizes.append((0, 0) if pixels is None else (pixels.shape[1], pixels.shape[0]))
        pictures.fields.append(_field(pixels, width) if pixels is not None and shown else "")
        if pixels is not None:
            for row in wanted:
                tiles[row] = _tile(pixels, boxes[row], tile)
    if tiles:
        pictures.sheets = list(_sheets(tiles, min(len(cells), MAX_TILES), tile))
    return pictures


def _step(steps: Iterable[tuple[int, int]], n: int) -> int:
    """The value of the first step that is large enough for ``n``, or of the last."""
    listed = list(steps)
    return next((value for limit, value in listed if n <= limit), listed[-1][1])


def cut_square(pixels: NDArray[np.uint8], box: Sequence[float], context: float = CONTEXT) -> NDArray[np.uint8]:
    """The square around ``box`` (x_min y_min x_max y_max, pixels), ``context`` times its longer side, edges repeated.

    Returns an (S, S, 3) uint8 array, S at least 1.
    """
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    side = max(1, round(max(x_max - x_min, y_max - y_min) * context))
    height, width = pixels.shape[:2]
    side = min(side, 4 * max(height, width))
    left, top = round((x_min + x_max) / 2 - side / 2), round((y_min + y_max) / 2 - side / 2)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    lines = np.clip(np.arange(top, top + side), 0, height - 1)
    square: NDArray[np.uint8] = pixels[np.ix_(lines, columns)]
    return square


def _tile(pixels: NDArray[np.uint8], box: NDArray[np.float64], size: int) -> bytes:
    from PIL import Image

    return Image.fromarray(cut_square(pixels, box.tolist())).resize((size, size), Image.Resampling.LANCZOS).tobytes()


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


def _field(pixels: NDArray[np.uint8], width: int) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return data_uri(picture)


def data_uri(picture: Image, quality: int = QUALITY) -> str:
    """``picture`` as a data URI: WebP, or JPEG where Pillow was built without it.  No EXIF goes along."""
    from PIL import features

    kind = "WEBP" if features.check("webp") else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality, **({"method": 2} if kind == "WEBP" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
