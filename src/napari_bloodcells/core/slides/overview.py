"""A whole slide as one small picture, with the area that was counted and the cells in it, for ``count --overlay``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.progress import Progress, check_cancelled
from napari_bloodcells.core.slides.slide import Slide

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 2048
"""Long side of an overview in pixels, at most."""
GREY = "#777777"
EDGE = "#0072B2"
_SHADE = 0.45
_CHUNK = 2048


def draw_overview(
    slide: Slide, area: Mapping[str, Any], cells: pd.DataFrame, colors: Mapping[str, str], progress: Progress
) -> NDArray[np.uint8]:
    """The slide at ``LONGEST`` pixels or less, pale where it was not counted.

    Parameters
    ----------
    slide : Slide
    area : mapping
        A ``SlideArea`` as JSON has it (``run.json``, ``slides``).
    cells : DataFrame
        The slide's rows of the table of cells; each becomes a dot.
    colors : mapping of class to color
    progress : Progress
        Is asked whether to stop.

    Returns
    -------
    (h, w, 3) uint8
    """
    from PIL import Image, ImageDraw

    pixels = thumbnail(slide, progress)
    height, width = pixels.shape[:2]
    across, down = width / slide.width, height / slide.height
    fields = np.array([[mark == "#" for mark in row] for row in area["fields"]])
    x = _edges(fields.shape[1], area["field_side"] * across, width)
    y = _edges(fields.shape[0], area["field_side"] * down, height)
    counted = np.repeat(np.repeat(fields, np.diff(y), axis=0), np.diff(x), axis=1)
    pale = 255 - (255 - pixels.astype(np.float32)) * np.float32(_SHADE)
    picture = Image.fromarray(np.where(counted[..., None], pixels, pale.astype(np.uint8)))
    draw = ImageDraw.Draw(picture)
    line = max(2, max(picture.size) // 700)
    for row, column in np.argwhere(fields).tolist():
        left, top, right, bottom = x[column], y[row], x[column + 1], y[row + 1]
        for neighbor, edge in (
            ((row - 1, column), (left, top, right, top)),
            ((row + 1, column), (left, bottom, right, bottom)),
            ((row, column - 1), (left, top, left, bottom)),
            ((row, column + 1), (right, top, right, bottom)),
        ):
            inside = 0 <= neighbor[0] < fields.shape[0] and 0 <= neighbor[1] < fields.shape[1]
            if not (inside and fields[neighbor]):
                draw.line(edge, fill=EDGE, width=line)
    radius = max(3, max(picture.size) // 400)
    for cell in cells.to_dict("records"):
        center_x = (cell["x_min"] + cell["x_max"]) / 2 * across
        center_y = (cell["y_min"] + cell["y_max"]) / 2 * down
        spot = (center_x - radius, center_y - radius, center_x + radius, center_y + radius)
        draw.ellipse(spot, fill=colors.get(cell["class"], GREY), outline="white")
    return np.asarray(picture)


def _edges(n: int, side: float, length: int) -> list[int]:
    """Where ``n`` fields begin and end in a picture; the last one reaches to its border.

    >>> _edges(2, 40.2, 100)
    [0, 40, 100]
    """
    return [*(min(round(i * side), length) for i in range(n)), length]


def thumbnail(slide: Slide, progress: Progress, longest: int = LONGEST) -> NDArray[np.uint8]:
    """The whole slide with a long side of ``longest`` pixels or a little less: (h, w, 3) uint8.

    Made of the smallest copy in the file that is large enough, square by square.
    """
    from PIL import Image

    enough = [n for n, size in enumerate(slide.levels) if max(size) >= longest] or [0]
    level = min(enough, key=lambda n: max(slide.levels[n]))
    width, height = slide.levels[level]
    factor = max(1, -(-max(width, height) // longest))
    small = np.zeros((-(-height // factor), -(-width // factor), 3), np.uint8)
    side = max(_CHUNK // factor, 1) * factor
    for top in range(0, height, side):
        for left in range(0, width, side):
            check_cancelled(progress)
            part = slide.read((left, top, min(left + side, width), min(top + side, height)), level)
            reduced = np.asarray(Image.fromarray(part).reduce(factor))
            row, column = top // factor, left // factor
            small[row : row + reduced.shape[0], column : column + reduced.shape[1]] = reduced
    return small
