"""Remarks that belong beside a differential: why its numbers may be worth less than they look.

Few cells, many that no class was given to, cells unlike the training data, poor photographs, boxes lost to defects of
their files.  Each remark is one sentence for the person who signs.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from napari_bloodcells.core.differential import Differential
from napari_bloodcells.core.voc import loses_a_box

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_CELLS = 100
WANTED_CELLS = 200
"""CLSI H20-A2 and most laboratories ask for 200 cells, or 100 at the least."""
MANY_UNIDENTIFIED = 0.05
FAR = 1.0
"""Distance from the training data, in units of its 99th percentile: 1 in 100 training cells lies beyond."""
MANY_FAR = 0.10
SCALE_OFF = 1.5
"""Times the median of its sample from which an image's scale is doubted."""
MOST_KINDS = 5
_WORST = ("not a stained smear", "out of focus", "over-exposed", "dark", "no cells found")
"""Problems of a photograph, the worst first."""


def remarks(
    differential: Differential, cells: pd.DataFrame | None = None, images: pd.DataFrame | None = None
) -> tuple[str, ...]:
    """What to keep in mind about one differential.

    Parameters
    ----------
    differential : Differential
    cells : DataFrame, optional
        The cells of this sample; the column ``distance`` is used where there is one.
    images : DataFrame, optional
        The images of this sample, with ``status`` and, where there are any, ``problems`` and ``warnings`` (in words).

    Examples
    --------
    >>> remarks(Differential("a", (), (), total=60))
    ('Only 60 white cells were classified: fewer than 100; count more fields before you report.',)
    """
    said = [*count_remarks(differential)]
    if cells is not None and "distance" in cells and len(cells):
        far = int((cells["distance"] > FAR).sum())
        if far > MANY_FAR * len(cells):
            share = 100 * far / len(cells)
            said.append(
                f"{_plural(far, 'cell', 'cells')} ({share:.0f} %) {'is' if far == 1 else 'are'} unlike those the model "
                "was trained on: perhaps abnormal; look at each first, then check the stain and the microscope, or "
                "adapt or calibrate the model."
            )
    if images is not None:
        said.extend(_of_images(images))
    return tuple(said)


def count_remarks(differential: Differential) -> tuple[str, ...]:
    """Those of the remarks that hang on the classes of the cells, and so change when a cell is corrected.

    They come first in ``remarks``, and the report page makes them anew (``stats.js``).
    """
    said: list[str] = []
    n = differential.total
    if not n:
        said.append("No white cell was classified.")
    elif n < MINIMUM_CELLS:
        said.append(
            f"Only {_cells_were(n)} classified: fewer than {MINIMUM_CELLS}; count more fields before you report."
        )
    elif n < WANTED_CELLS:
        said.append(f"{_cells_were(n)} classified: fewer than the {WANTED_CELLS} that are wanted.")
    unidentified = differential.count_of("unidentified")
    if unidentified and unidentified > MANY_UNIDENTIFIED * (n + unidentified):
        share = 100 * unidentified / (n + unidentified)
        cells_are = _plural(unidentified, "cell", "cells")
        verb = "is" if unidentified == 1 else "are"
        said.append(
            f"{cells_are} ({share:.0f} %) {verb} unidentified: perhaps abnormal; look at each before you report."
        )
    return tuple(said)


def lost_boxes(images: pd.DataFrame, table: str) -> tuple[str, ...]:
    """One line for the end of a run, where images lost boxes; ``table`` is the file that says which.

    Of a photograph with boxes in its XML no cell is found elsewhere, so a lost box may be a cell that nobody counts.
    """
    n = _that_lost_boxes(images)
    if not n:
        return ()
    return (
        f"{_plural(n, 'image', 'images')} lost boxes to defects of the XML, so cells may be missing from the count "
        f"({table}, column warnings, says which boxes); mend the XML and count again, or take --boxes find.",
    )


def _that_lost_boxes(images: pd.DataFrame) -> int:
    if "warnings" not in images:
        return 0
    return sum(isinstance(text, str) and loses_a_box(text) for text in images["warnings"])


def _cells_were(n: int) -> str:
    return _plural(n, "white cell was", "white cells were")


def _plural(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _of_images(images: pd.DataFrame) -> list[str]:
    said = []
    n = _plural(len(images), "image", "images")
    failed = int((images["status"] != "ok").sum())
    if failed:
        were = "could not be read and is" if failed == 1 else "could not be read and are"
        said.append(f"{failed} of {n} {were} not in the count.")
    if lost := _that_lost_boxes(images):
        said.append(f"{lost} of {n} lost boxes to defects of the XML, so cells may be missing from the count.")
    if "problems" in images:
        texts = [text for text in images["problems"] if isinstance(text, str) and text]
        each = [[part.strip() for part in text.split(";") if part.strip()] for text in texts]
        quality = [[part for part in parts if not _on_scale(part)] for parts in each]
        kinds = Counter(part for parts in quality for part in dict.fromkeys(parts))
        if kinds:
            bad = sum(map(bool, quality))
            order = sorted(kinds, key=lambda kind: (_badness(kind), -kinds[kind], kind))
            named = ", ".join(f"{kind} ({kinds[kind]})" for kind in order[:MOST_KINDS])
            more = " ..." if len(order) > MOST_KINDS else ""
            have = "has" if bad == 1 else "have"
            said.append(f"{bad} of {n} {have} problems of quality: {named}{more}.")
        unscaled = sum(any(map(_on_scale, parts)) for parts in each)
        if unscaled:
            have = "has" if unscaled == 1 else "have"
            said.append(f"{unscaled} of {n} {have} no measured scale; --um-per-pixel gives it.")
    return [*said, *_of_scale(images)]


def _on_scale(problem: str) -> bool:
    """Whether a problem says that no scale was measured (by the learned localizer, by the classical one)."""
    return "no scale measured" in problem or "to measure the scale" in problem


def _badness(problem: str) -> int:
    return next((k for k, kind in enumerate(_WORST) if problem.startswith(kind)), len(_WORST))


def _of_scale(images: pd.DataFrame) -> list[str]:
    """Images whose scale is not that of the others: one smear is photographed with one objective."""
    if "um_per_pixel" not in images:
        return []
    scales = images.loc[images["um_per_pixel"] > 0, ["image", "um_per_pixel"]]
    middle = scales["um_per_pixel"].median()
    ratio = scales["um_per_pixel"] / middle
    off = scales[(ratio > SCALE_OFF) | (ratio < 1 / SCALE_OFF)]
    if not len(off):
        return []
    pairs = list(zip(off["image"], off["um_per_pixel"], strict=True))[:3]
    named = ", ".join(f"{name} ({scale:.3g})" for name, scale in pairs) + (" ..." if len(off) > 3 else "")
    have = "has a scale" if len(off) == 1 else "have scales"
    return [
        f"{_plural(len(off), 'image', 'images')} {have} far from the median of {middle:.3g} um per pixel: {named}; "
        "their cells may be wrong: give --um-per-pixel, or leave them out."
    ]
