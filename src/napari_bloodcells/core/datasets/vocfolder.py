"""VOC folders (``bccd``): boxes from XML, cell types from a ``labels.csv`` by image number or from the boxes' names.

The table of BCCD's Kaggle copy names the cells of a field but not their boxes.  Where a field has one white cell, or
all its labels are equal, the join is plain.  The nine fields where it is not were read by eye, within the labels that
the table gives, and stand in ``groups/bccd_cells.csv`` with four cells whose label contradicts their own second
photograph (not sure).  Any other field whose labels and boxes do not fit stays without a label.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.datasets.base import DataSet, FieldTruth, Sample, scale_of_red_cells
from napari_bloodcells.core.datasets.folder import Folder, box_kind, drawn_classes, field_kind
from napari_bloodcells.core.datasets.tables import CLASS_COLUMNS, IMAGE_COLUMNS, column, has_boxes
from napari_bloodcells.core.errors import AnnotationError, DataWarning, ImageError
from napari_bloodcells.core.files import whole_text
from napari_bloodcells.core.images import image_size
from napari_bloodcells.core.voc import find_annotations, loses_a_box, match_annotations, read_voc

_Corners = tuple[float, float, float, float]


def read(folder: Folder) -> DataSet | None:
    """The data set of a folder with VOC files, or None where there are none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        matched = match_annotations(folder.images, find_annotations([folder.root]))
        folder.problems += [str(w.message) for w in caught]
    if not matched:
        return None
    labels = _labels(folder)
    samples: list[Sample] = []
    fields: list[FieldTruth] = []
    drawn: set[str] = set()
    names: list[str] = []
    for image in folder.images:
        if image not in matched:
            continue
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DataWarning)
                annotation = read_voc(matched[image])
            folder.problems += [str(w.message) for w in caught]
            height, width = image_size(image)
            annotation.check_size(height, width)
        except (AnnotationError, ImageError) as problem:
            folder.problems.append(f"{whole_text(problem, folder.root)} Its cells are left out.")
            continue
        if not len(annotation.boxes) and loses_a_box(" ".join(annotation.remarks)):
            folder.problems.append(f"{matched[image].name}: none of its boxes can be used; its image is left out.")
            continue  # not a field without cells
        names += annotation.boxes.labels
        truth, types = _kinds(annotation.boxes)
        cells = truth.named("WBC")
        group, split = folder.grouping.of(image), folder.split(image)
        drawn.update(truth.labels)
        fields.append(FieldTruth(image, truth, group, split))
        um_per_pixel = scale_of_red_cells(truth.named("RBC"), height, width)
        corners = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in cells.xyxy]
        joined = _join(image, corners, types, labels.get(image, []), folder.problems)
        for box, (label, sure) in zip(corners, joined, strict=True):
            samples.append(
                Sample(image, box, folder.label(label), group, folder.name, split, sure, um_per_pixel, label or None)
            )
    folder.tell_unknown(names)
    fields = [replace(field, classes=drawn_classes(drawn)) for field in fields]
    return DataSet(folder.name, folder.root, tuple(samples), "voc", tuple(fields), tuple(folder.problems))


def _kinds(boxes: Boxes) -> tuple[Boxes, list[str]]:
    """Boxes as they are on a field, and for each WBC the cell type that its box is named after (or nothing)."""
    kinds = [field_kind(label) for label in boxes.labels]
    types = ["" if box_kind(label) else label for label, kind in zip(boxes.labels, kinds, strict=True) if kind == "WBC"]
    return Boxes(boxes.xyxy, tuple(kinds), boxes.scores, boxes.source), types


def _join(
    image: Path, corners: list[_Corners], types: list[str], labels: list[str], problems: list[str]
) -> list[tuple[str, bool]]:
    """Label and certainty of each box."""
    by_eye = _read_by_eye()
    if any((image.stem, box) in by_eye for box in corners):
        return [by_eye.get((image.stem, box), ("", True)) for box in corners]
    if any(types):
        return [(label, True) for label in types]
    if len(labels) != len(corners) and labels:
        problems.append(f"{image.name}: {len(labels)} labels in the table but {len(corners)} boxes of white cells.")
    if labels and len(set(labels)) == 1 and len(labels) >= len(corners):
        return [(labels[0], True)] * len(corners)
    return [("", True)] * len(corners)


def _labels(folder: Folder) -> dict[Path, list[str]]:
    """The labels that a table gives to each image: one a row, or several in a row; of two tables the last."""
    found: dict[Path, list[str]] = {}
    for path, rows in folder.tables:
        image_column, class_column = column(rows, IMAGE_COLUMNS), column(rows, CLASS_COLUMNS)
        if image_column is None or class_column is None or has_boxes(rows):
            continue
        missing = 0
        given: dict[Path, list[str]] = defaultdict(list)
        for row in rows:
            image = folder.index.find(row[image_column])
            if image is None:
                missing += 1
                continue
            given[image] += [part.strip() for part in re.split(r"[,;/|]", row[class_column]) if part.strip()]
        found |= given
        if missing:
            folder.problems.append(f"{path.name}: {missing} rows have no image here; left out.")
    return found


@lru_cache(maxsize=1)
def _read_by_eye() -> dict[tuple[str, _Corners], tuple[str, bool]]:
    text = (files("napari_bloodcells.core.datasets") / "groups" / "bccd_cells.csv").read_text("utf-8")
    return {
        (row["image"], (float(row["x_min"]), float(row["y_min"]), float(row["x_max"]), float(row["y_max"]))): (
            row["label"],
            row["sure"] == "yes",
        )
        for row in csv.DictReader(text.splitlines())
    }
