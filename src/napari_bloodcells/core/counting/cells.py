"""From what was counted on one image to the tables: one row per cell, one row per image.

A ``FieldRecord`` is all that is kept of an image: small, plain, rounded as it will be written, and the same through
JSON and back.  The command, the plugin, the cluster and ``--resume`` make their tables of these records, in the
two functions below and nowhere else; the columns of ``cells`` are named in ``cellstable.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.classes import UNIDENTIFIED
from napari_bloodcells.core.counting.cellstable import PIXEL_DECIMALS, PROBABILITY_DECIMALS, cell_columns

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme

OK = "ok"
_ROWS = 4096


@dataclass(frozen=True)
class CellRecord:
    """One cell.

    Attributes
    ----------
    box : tuple of 4 float
        ``x_min y_min x_max y_max`` in pixels of the image, to two decimals.
    name : str
        Its class, or ``unidentified``.
    confidence : float, 0 to 1
        The highest of the probabilities.
    probabilities : tuple of float
        One per class of the scheme, in its order, to four decimals.
    source : str
        Where the box is from: ``xml``, ``found``, ``whole``, ``drawn``.
    distance : float
        From the training data, in units of the 99th percentile of cells held out of it.
    label : str or None
        The class that the data set gives, where it has one.
    """

    box: tuple[float, float, float, float]
    name: str
    confidence: float
    probabilities: tuple[float, ...]
    source: str
    distance: float
    label: str | None = None


@dataclass(frozen=True)
class SlideArea:
    """What of a whole slide was counted.

    Attributes
    ----------
    field_side : int
        Side of a field of the grid in pixels of the slide.
    fields : tuple of str
        The grid, row by row, one letter a field: ``#`` counted, ``o`` stained but no monolayer (or no longer wanted),
        ``.`` empty.
    counted_mm2, stained_mm2 : float
    scale_from : str
        Whence ``um_per_pixel`` is: ``given``, ``file`` or ``red cells``.
    """

    field_side: int
    fields: tuple[str, ...]
    counted_mm2: float
    stained_mm2: float
    scale_from: str


@dataclass(frozen=True)
class FieldRecord:
    """One image: ``status`` is ``ok`` or the error in words; the other fields say what was found on it.

    ``n_rbc`` and ``n_platelets`` are None where nothing counts them; ``um_per_pixel`` where it is not known; ``slide``
    but for whole slides; ``digest`` (of its file, hexadecimal) where no other image may be a copy of it.
    """

    image: str
    status: str = OK
    width: int = 0
    height: int = 0
    um_per_pixel: float | None = None
    n_rbc: int | None = None
    n_platelets: int | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cells: tuple[CellRecord, ...] = ()
    slide: SlideArea | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as ``dataclasses.asdict`` gives them, which would copy every single number."""
        slide = None if self.slide is None else vars(self.slide).copy()
        return {**vars(self), "cells": tuple(vars(cell).copy() for cell in self.cells), "slide": slide}

    @staticmethod
    def from_json(values: dict[str, Any]) -> FieldRecord:
        """The record that ``to_json`` was called on."""
        cells = tuple(
            CellRecord(**{**cell, "box": tuple(cell["box"]), "probabilities": tuple(cell["probabilities"])})
            for cell in values["cells"]
        )
        texts = {name: tuple(values[name]) for name in ("problems", "warnings")}
        area = values.get("slide")
        slide = None if area is None else SlideArea(**{**area, "fields": tuple(area["fields"])})
        return FieldRecord(**{**values, **texts, "cells": cells, "slide": slide})


@dataclass(frozen=True)
class Verdict:
    """When a cell keeps its class: ``threshold`` is the least probability, ``limit`` the largest distance."""

    names: tuple[str, ...]
    threshold: float = 0.0
    limit: float = float("inf")

    def name(self, probabilities: Sequence[float], distance: float) -> str:
        """The class of a cell, or ``unidentified``; of two equal probabilities the first in the scheme's order.

        >>> verdict = Verdict(("neutrophil", "monocyte"), threshold=0.6, limit=2.0)
        >>> verdict.name([0.7, 0.3], 0.5), verdict.name([0.55, 0.45], 0.5), verdict.name([0.99, 0.01], 3.0)
        ('neutrophil', 'unidentified', 'unidentified')
        """
        best = max(range(len(self.names)), key=lambda i: (probabilities[i], -i))
        sure = probabilities[best] >= self.threshold and not distance > self.limit
        return self.names[best] if sure else UNIDENTIFIED


def cell_record(
    box: NDArray[np.floating[Any]],
    probabilities: NDArray[np.float32],
    distance: float,
    verdict: Verdict,
    source: str,
    label: str | None = None,
) -> CellRecord:
    """The record of one cell, rounded as it is written; its class is judged on the rounded values.

    Rounding first makes the class that of the file, and swallows differences in the last bits between machines.
    """
    rounded = tuple(round(float(p), PROBABILITY_DECIMALS) for p in probabilities)
    far = round(float(distance), PROBABILITY_DECIMALS)
    x_min, y_min, x_max, y_max = (round(float(v), PIXEL_DECIMALS) for v in box)
    name = verdict.name(rounded, far)
    return CellRecord((x_min, y_min, x_max, y_max), name, max(rounded), rounded, source, far, label)


def cells_table(records: Iterable[FieldRecord], scheme: ClassScheme) -> pd.DataFrame:
    """The ``cells`` table: one row per cell, in the order of the images; columns as in ``cellstable.py``."""
    import pandas as pd

    columns = cell_columns(scheme.names, labeled=True)
    kinds = {name: "float64" for name in columns if name not in ("image", "cell", "class", "box_source", "label")}

    def frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=columns).astype({**kinds, "cell": "int64"})

    rows: list[tuple[Any, ...]] = []
    parts: list[pd.DataFrame] = []
    for record in records:
        for number, cell in enumerate(record.cells, start=1):
            known = (cell.name, cell.confidence, *cell.probabilities, cell.source, cell.distance, cell.label or "")
            rows.append((record.image, number, *cell.box, *known))
        if len(rows) >= _ROWS:  # a table takes a fifth of the memory of its rows
            parts.append(frame(rows))
            rows = []
    if rows or not parts:  # an empty part has no types, and would take those of the others
        parts.append(frame(rows))
    table = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    return table if (table["label"] != "").any() else table.drop(columns="label")


def images_table(records: Iterable[FieldRecord], scheme: ClassScheme) -> pd.DataFrame:
    """The ``images`` table: one row per image, read or not.

    Columns: ``image``; ``status`` (``ok`` or the error); ``n_wbc`` (cells of a white class, and unidentified ones);
    one count per class and ``unidentified``; ``n_rbc``, ``n_platelets`` (empty where not counted); ``um_per_pixel``;
    ``width``, ``height`` (pixels); ``problems`` (of the photograph) and ``warnings`` (of its files: what was worked
    around in reading photograph and annotation, and of which image it is a copy), in words.
    """
    import pandas as pd

    names = list(scheme.names)
    rows = []
    for record in records:
        counts = _image_counts((cell.name for cell in record.cells), scheme)
        scale = None if record.um_per_pixel is None else round(record.um_per_pixel, 5)
        size = (record.width, record.height) if record.width else (None, None)
        words = ("; ".join(record.problems), "; ".join(record.warnings))
        shown = counts if record.status == OK else [None] * len(counts)
        rows.append((record.image, record.status, *shown, record.n_rbc, record.n_platelets, scale, *size, *words))
    columns = ["image", "status", "n_wbc", *names, UNIDENTIFIED, "n_rbc", "n_platelets", "um_per_pixel"]
    table = pd.DataFrame(rows, columns=[*columns, "width", "height", "problems", "warnings"])
    whole = ["n_wbc", *names, UNIDENTIFIED, "n_rbc", "n_platelets", "width", "height"]
    return table.astype({**dict.fromkeys(whole, "Int64"), "um_per_pixel": "float64"})


def recount_images(images: pd.DataFrame, cells: pd.DataFrame, scheme: ClassScheme) -> pd.DataFrame:
    """The ``images`` table with its counts of cells made anew from ``cells``, as they are after a review.

    Parameters
    ----------
    images : DataFrame with the columns ``image`` and ``status``
        An image that was not read keeps empty counts.
    cells : DataFrame with the columns ``image`` and ``class``
    scheme : ClassScheme
    """
    import pandas as pd

    labels: dict[str, list[str]] = {str(name): [] for name in images["image"]}
    for image, label in zip(cells["image"], cells["class"], strict=True):
        labels.setdefault(str(image), []).append(str(label))
    columns = ["n_wbc", *scheme.names, UNIDENTIFIED]
    rows = [
        _image_counts(labels[str(name)], scheme) if status == OK else [None] * len(columns)
        for name, status in zip(images["image"], images["status"], strict=True)
    ]
    counts = pd.DataFrame(rows, columns=columns, index=images.index).astype("Int64")
    return images.assign(**{name: counts[name] for name in columns})


def _image_counts(labels: Iterable[str], scheme: ClassScheme) -> list[int]:
    """Of one image: cells of a white class and unidentified ones; each class; the unidentified."""
    tally = Counter(labels)
    white = {cell.name for cell in scheme.classes if cell.kind == "wbc"} | {UNIDENTIFIED}
    return [sum(n for name, n in tally.items() if name in white), *(tally[n] for n in (*scheme.names, UNIDENTIFIED))]
