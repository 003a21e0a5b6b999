"""Tables of boxes (``ankara/boxes.csv``, ``raabin/classes.csv``): ``image, x_min, y_min, x_max, y_max`` and what it is.

The type stands in ``label`` or ``class``, or in ``reader_1`` and ``reader_2`` where two people read the cell; ``sure``
says yes or no.  Readers who do not agree give no label, and a cell that is not sure is kept, but marked.

A count's corrected ``cells.csv`` is such a table too: sure is what a person looked at (``reviewed``).  The scale of its
fields is that of the count where its ``images.csv`` lies beside it, else that of the boxed red cells.  As the count
wrote it, without that column, it is no table of labels: a model would be measured by its own answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.datasets.base import DataSet, FieldTruth, Sample, scale_of_red_cells
from napari_bloodcells.core.datasets.folder import Folder, box_kind
from napari_bloodcells.core.datasets.tables import CLASS_COLUMNS, IMAGE_COLUMNS, column, has_boxes
from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import whole_text
from napari_bloodcells.core.images import image_size

_CORNERS = ("x min", "y min", "x max", "y max")
_NO = ("no", "n", "0", "0.0", "false", "")
_SCALE = "um per pixel"
_POSSIBLE_SCALE = (0.005, 5.0)


@dataclass(frozen=True)
class TypedBox:
    """One row: a box in pixels, what it is called (None: not known), and whether that is sure."""

    box: tuple[float, float, float, float]
    label: str | None
    sure: bool


def typed_boxes(folder: Folder) -> dict[Path, list[TypedBox]]:
    """The rows of all tables of boxes in the folder, by image."""
    found: dict[Path, list[TypedBox]] = defaultdict(list)
    for path, rows in folder.tables:
        image_column, class_column = column(rows, IMAGE_COLUMNS), column(rows, CLASS_COLUMNS)
        if image_column is None or not has_boxes(rows):
            continue
        if _is_of_machine(rows):
            told = f"{path.name}: cells of a count that nobody reviewed; the machine's classes are no labels."
            if told not in folder.problems:
                folder.problems.append(told)
            continue
        for number, row in enumerate(rows, 2):
            image = folder.index.find(row[image_column])
            if image is None:
                folder.problems.append(f"{path.name}: line {number}: no image {row[image_column]!r}; left out.")
                continue
            box = _corners(row)
            if box is None:
                folder.problems.append(f"{path.name}: line {number}: is a box without an area; left out.")
                continue
            label = row.get(class_column or "", "") or None
            other = row.get("reader 2")
            if other is not None and class_column == "reader 1" and (other or None) != label:
                label = None
            sure = all(row.get(name, "yes").casefold() not in _NO for name in ("sure", "reviewed"))
            found[image].append(TypedBox(box, label, sure))
    return dict(found)


def _is_of_machine(rows: list[dict[str, str]]) -> bool:
    """Whether a table of boxes is a count's as it was written: cells with a confidence, and no column ``reviewed``."""
    return {"cell", "confidence"} <= set(rows[0]) and "reviewed" not in rows[0]


def read_reviewed(folder: Folder) -> DataSet | None:
    """The data set of a folder that holds a count's cells at which a person has looked, or None where it does not.

    Asked before all others: whoever put the corrected table beside the photographs means it, also where XML lies there
    too, whose boxes seldom say more than that there is a white cell.
    """
    looked_at = any(
        row.get("reviewed", "").casefold() not in _NO for _, rows in folder.tables if has_boxes(rows) for row in rows
    )
    return read(folder) if looked_at else None


def read(folder: Folder) -> DataSet | None:
    """The data set of a folder with a table of boxes, or None where there is none."""
    typed = typed_boxes(folder)
    if not typed:
        return None
    counted = _counted_scales(folder)
    samples: list[Sample] = []
    fields: list[FieldTruth] = []
    drawn = frozenset(box_kind(t.label or "WBC") or "WBC" for boxes in typed.values() for t in boxes)
    for image in folder.images:
        if image not in typed:
            continue
        try:
            height, width = image_size(image)
        except ImageError as problem:
            folder.problems.append(whole_text(problem, folder.root))
            continue
        rows = typed[image]
        kinds = tuple(box_kind(t.label or "WBC") or "WBC" for t in rows)
        boxes = Boxes(np.array([t.box for t in rows], np.float32), kinds, source="table")
        group, split = folder.grouping.of(image), folder.split(image)
        fields.append(FieldTruth(image, boxes, group, split, drawn))
        um_per_pixel = counted.get((image, width, height)) or scale_of_red_cells(boxes.named("RBC"), height, width)
        for row, kind in zip(rows, kinds, strict=True):
            if kind == "WBC":
                label = row.label if row.label and box_kind(row.label) is None else None
                name = folder.label(label)
                samples.append(Sample(image, row.box, name, group, folder.name, split, row.sure, um_per_pixel, label))
    return DataSet(folder.name, folder.root, tuple(samples), "boxes", tuple(fields), tuple(folder.problems))


def _counted_scales(folder: Folder) -> dict[tuple[Path, int, int], float]:
    """Micrometers per pixel from the ``images.csv`` of a count, by image with its width and height."""
    found: dict[tuple[Path, int, int], float] = {}
    for _, rows in folder.tables:
        if not rows or not {"image", _SCALE, "width", "height"} <= set(rows[0]):
            continue
        for row in rows:
            image = folder.index.find(row["image"])
            try:
                scale, size = float(row[_SCALE]), (int(row["width"]), int(row["height"]))
            except ValueError:  # not measured, or not read
                continue
            if image is not None and _POSSIBLE_SCALE[0] <= scale <= _POSSIBLE_SCALE[1]:
                found[image, *size] = scale
    return found


def _corners(row: dict[str, str]) -> tuple[float, float, float, float] | None:
    try:
        x0, y0, x1, y1 = (float(row[c]) for c in _CORNERS)
    except ValueError:
        return None
    usable = all(map(math.isfinite, (x0, y0, x1, y1))) and x1 > x0 and y1 > y0
    return (x0, y0, x1, y1) if usable else None
