"""One scale for a whole slide: what the file says, checked against the red cells of a few fixed squares.

A slide that was exported from a smaller copy often still states the resolution of the scanner, a factor of two or four
off; red cells are not that variable.  So the file is believed unless the red cells say plainly otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.localize import Localizer
from napari_bloodcells.core.slides.slide import Region, Slide
from napari_bloodcells.core.slides.survey import BLOCK, Survey

SQUARE = 3
"""Side of a square in blocks: 768 pixels, about the size of a photograph."""
SQUARES = 12
CONTRADICTED = 1.5
"""The red cells of a patient may be a third larger or smaller than 7.5 um; a factor beyond this is an error."""
_CELLS = (0.1, 0.75)


@dataclass(frozen=True)
class SlideScale:
    """Micrometers per pixel, whence (``given``, ``file``, ``red cells``), and what there is to say about it.

    ``red_cells_found`` tells whether the localizer boxes red cells at all.
    """

    um_per_pixel: float
    source: str
    red_cells_found: bool
    problems: tuple[str, ...] = ()


def slide_scale(slide: Slide, survey: Survey, localizer: Localizer, given: float | None) -> SlideScale:
    """The scale of a slide.

    Raises
    ------
    ImageError
        Nobody gives a scale, the file states none, and no red cells are found.
    """
    fields = [localizer.find(slide.read(square)) for square in sample_squares(slide, survey)]
    red = any(len(field.rbc) for field in fields)
    sizes = [field.um_per_pixel for field in fields if field.um_per_pixel is not None]
    measured = round(float(np.median(sizes)), 5) if sizes else None
    if given is not None:
        return SlideScale(given, "given", red)
    stated = slide.um_per_pixel
    if stated is not None and (measured is None or 1 / CONTRADICTED < measured / stated < CONTRADICTED):
        return SlideScale(stated, "file", red)
    if measured is None:
        raise ImageError(
            f"{slide.name}: its scale is not known: the file does not state it and no red cells were found to measure "
            "it; give it with --um-per-pixel."
        )
    problems: tuple[str, ...] = ()
    if stated is not None:
        problems = (f"the file states {stated:.3g} um per pixel, the red cells say {measured:.3g}, which is used",)
    return SlideScale(measured, "red cells", red, problems)


def sample_squares(slide: Slide, survey: Survey) -> list[Region]:
    """Some squares with cells, spread over the slide; they depend on nothing but the slide.

    Squares that are stained as a layer of cells is are taken before others.
    """
    rows, columns = survey.stained.shape
    squares: list[tuple[float, Region]] = []
    for row in range(0, max(rows - SQUARE, 0) + 1, SQUARE):
        for column in range(0, max(columns - SQUARE, 0) + 1, SQUARE):
            share = float(survey.stained[row : row + SQUARE, column : column + SQUARE].mean())
            right = min((column + SQUARE) * BLOCK, slide.width)
            bottom = min((row + SQUARE) * BLOCK, slide.height)
            squares.append((share, (column * BLOCK, row * BLOCK, right, bottom)))
    low, high = _CELLS
    good = [region for share, region in squares if low <= share <= high]
    if not good:
        most = sorted(squares, key=lambda item: -item[0])[:SQUARES]
        good = [region for share, region in most if share > 0]
    if not good:
        return []
    places = np.unique(np.linspace(0, len(good) - 1, min(SQUARES, len(good))).round().astype(int))
    return [good[place] for place in places.tolist()]
