"""Remarks that belong beside a differential: why its numbers may be worth less than they look.

Few cells, many that no class was given to, cells unlike the training data, poor photographs.  Each remark is one
sentence for the person who signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_bloodcells.core.differential import Differential

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_CELLS = 100
WANTED_CELLS = 200
"""CLSI H20-A2 and most laboratories ask for 200 cells, or 100 at the least."""
MANY_UNIDENTIFIED = 0.05
FAR = 1.0
"""Distance from the training data, in units of its 99th percentile: 1 in 100 training cells lies beyond."""
MANY_FAR = 0.10


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
        The images of this sample, with ``status`` and, where there is one, ``problems`` (in words).

    Examples
    --------
    >>> remarks(Differential("a", (), (), total=60))
    ('Only 60 white cells were classified: fewer than 100; count more fields before you report.',)
    """
    said: list[str] = []
    n = differential.total
    if n < MINIMUM_CELLS:
        said.append(
            f"Only {n} white cells were classified: fewer than {MINIMUM_CELLS}; count more fields before you report."
        )
    elif n < WANTED_CELLS:
        said.append(f"{n} white cells were classified: fewer than the {WANTED_CELLS} that are wanted.")
    unidentified = differential.count_of("unidentified")
    if unidentified and unidentified > MANY_UNIDENTIFIED * (n + unidentified):
        share = 100 * unidentified / (n + unidentified)
        said.append(f"{unidentified} cells ({share:.0f} %) are unidentified; look at them before you report.")
    if cells is not None and "distance" in cells and len(cells):
        far = int((cells["distance"] > FAR).sum())
        if far > MANY_FAR * len(cells):
            share = 100 * far / len(cells)
            said.append(
                f"{far} cells ({share:.0f} %) are unlike those the model was trained on; "
                "check the stain and the microscope, or calibrate the model."
            )
    if images is not None:
        said.extend(_of_images(images))
    return tuple(said)


def _of_images(images: pd.DataFrame) -> list[str]:
    said = []
    failed = int((images["status"] != "ok").sum())
    if failed:
        said.append(f"{failed} of {len(images)} images could not be read and are not in the count.")
    if "problems" in images:
        texts = [text for text in images["problems"] if isinstance(text, str) and text]
        if texts:
            kinds = sorted({part.strip() for text in texts for part in text.split(";") if part.strip()})
            named = "; ".join(kinds[:3]) + (" ..." if len(kinds) > 3 else "")
            said.append(f"{len(texts)} of {len(images)} images have problems of quality: {named}.")
    return said
