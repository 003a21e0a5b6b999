"""YOLO text boxes (``chula``, ``raabin``, ``pig``): ``class x_center y_center width height`` in shares of the image.

What the class numbers mean is read from ``classes.txt``, ``obj.names`` or ``data.yaml`` in the folder, else from the
one nearest to the text file or its image (LabelImg writes it there); without one they are those of TXL-PBC and Raabin:
0 white cell, 1 red cell, 2 platelet.  A table of boxes beside them (``classes.csv``) says the type and certainty of
each white cell.  Of a polygon (``class x y x y x y ...``) the bounding box is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_bloodcells.core.boxes import Boxes, iou
from napari_bloodcells.core.datasets.base import DataSet, FieldTruth, Sample, scale_of_red_cells
from napari_bloodcells.core.datasets.boxtable import TypedBox, typed_boxes
from napari_bloodcells.core.datasets.folder import Folder, box_kind, drawn_classes, field_kind
from napari_bloodcells.core.errors import AnnotationError, ImageError
from napari_bloodcells.core.files import display_name, read_regular, whole_text
from napari_bloodcells.core.images import image_size

MAX_BYTES = 16_000_000
_DEFAULT_NAMES = ("WBC", "RBC", "Platelets")
_SAME_BOX = 0.5


def read(folder: Folder) -> DataSet | None:
    """The data set of a folder with YOLO files, or None where there are none."""
    files = {image: text for image in folder.images if (text := _text_of(image))}
    if not files:
        return None
    names_of = _names_of(files, folder.root)
    if None in names_of.values():
        folder.problems.append("no classes.txt: taken are 0 white cell, 1 red cell, 2 platelet.")
    typed = typed_boxes(folder)
    samples: list[Sample] = []
    fields: list[FieldTruth] = []
    present: set[str] = set()
    used: list[str] = []
    rejected: list[str] = []
    for image, text in files.items():
        try:
            height, width = image_size(image)
            told = len(folder.problems)
            numbers, xyxy = read_yolo(text, height, width, folder.problems)
        except (AnnotationError, ImageError) as problem:
            folder.problems.append(whole_text(problem, folder.root))
            continue
        names = names_of[image] or _DEFAULT_NAMES
        labels = [names[n] if n < len(names) else "" for n in numbers]
        if "" in labels:
            folder.problems.append(f"{text.name}: a class number beyond the {len(names)} names; box left out.")
        keep = [i for i, label in enumerate(labels) if label]
        if not keep and len(folder.problems) > told:
            rejected.append(text.name)  # not a field without cells
            continue
        used += [labels[i] for i in keep]
        boxes = Boxes(xyxy[keep], tuple(field_kind(labels[i]) for i in keep), source="yolo")
        present.update(boxes.labels)
        group, split = folder.grouping.of(image), folder.split(image)
        fields.append(FieldTruth(image, boxes, group, split))
        um_per_pixel = scale_of_red_cells(boxes.named("RBC"), height, width)
        for i, kind in zip(keep, boxes.labels, strict=True):
            if kind != "WBC":
                continue
            x0, y0, x1, y1 = (float(v) for v in xyxy[i])
            label, sure = (labels[i], True) if box_kind(labels[i]) is None else _type_of(xyxy[i], typed.get(image, []))
            samples.append(
                Sample(
                    image, (x0, y0, x1, y1), folder.label(label), group, folder.name, split, sure, um_per_pixel, label
                )
            )
    if rejected:
        more = f" ({len(rejected) - 1} more files likewise)" if len(rejected) > 1 else ""
        folder.problems.insert(0, f"{rejected[0]}: none of its lines can be used; its image is left out{more}.")
    folder.tell_unknown(used)
    # Kinds that no file holds were not drawn in this source, whatever the list of names says.
    fields = [replace(field, classes=drawn_classes(present)) for field in fields]
    return DataSet(folder.name, folder.root, tuple(samples), "yolo", tuple(fields), tuple(folder.problems))


def read_yolo(path: Path, height: int, width: int, problems: list[str]) -> tuple[list[int], np.ndarray]:
    """Class numbers (N) and boxes (N, 4) in pixels of one YOLO file; bad lines are named in ``problems``.

    Raises
    ------
    AnnotationError
        If the file cannot be opened.
    """
    name = display_name(path)
    if path.is_file() and path.stat().st_size == 0:
        return [], np.zeros((0, 4), np.float32)  # a field without cells
    numbers: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    for line_number, line in enumerate(read_regular(path, MAX_BYTES, AnnotationError).splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            number, (x, y, w, h) = int(parts[0]), _box_of([float(part) for part in parts[1:]])
        except ValueError:
            problems.append(f"{name}: line {line_number} is no box; left out.")
            continue
        if number < 0 or not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
            problems.append(f"{name}: line {line_number} is a box without an area; left out.")
            continue
        x0, y0 = max((x - w / 2) * width, 0.0), max((y - h / 2) * height, 0.0)
        x1, y1 = min((x + w / 2) * width, float(width)), min((y + h / 2) * height, float(height))
        if x1 <= x0 or y1 <= y0:
            problems.append(f"{name}: line {line_number} is a box outside of the image; left out.")
            continue
        numbers.append(number)
        boxes.append((x0, y0, x1, y1))
    return numbers, np.array(boxes, np.float32).reshape(-1, 4)


def _box_of(numbers: list[float]) -> list[float]:
    """Center and size of a box (its confidence may follow) or around a polygon; ValueError where it is neither."""
    if len(numbers) in (4, 5):
        return numbers[:4]
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError
    x, y = numbers[::2], numbers[1::2]
    if not all(map(math.isfinite, numbers)):
        return [math.nan] * 4
    return [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]


def _text_of(image: Path) -> Path | None:
    """The YOLO file of an image: in the ``labels`` folder beside ``images``, or beside the image itself."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].casefold() == "images":
            path = Path(*parts[:i], "labels", *parts[i + 1 : -1], image.stem + ".txt")
            if path.is_file():
                return path
            break
    beside = image.with_suffix(".txt")
    return beside if beside.is_file() else None


def _names_of(files: Mapping[Path, Path], root: Path) -> dict[Path, tuple[str, ...] | None]:
    """What the numbers in each image's text file mean, or None where no list of names is there."""
    everywhere = _class_names(root)
    if everywhere is not None:
        return dict.fromkeys(files, everywhere)
    in_folder: dict[Path, tuple[str, ...] | None] = {root: None}

    def nearest(folder: Path) -> tuple[str, ...] | None:
        if folder not in in_folder:
            in_folder[folder] = _class_names(folder) or nearest(folder.parent)
        return in_folder[folder]

    return {image: nearest(text.parent) or nearest(image.parent) for image, text in files.items()}


def _class_names(root: Path) -> tuple[str, ...] | None:
    for path in (root / "classes.txt", root / "obj.names", root / "labels" / "classes.txt", root / "_classes.txt"):
        if path.is_file() and path.stat().st_size:
            lines = read_regular(path, MAX_BYTES, AnnotationError).decode("utf-8-sig", "replace").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
            if names:
                return names
    for path in (root / "data.yaml", root / "data.yml"):
        if path.is_file():
            return _yaml_names(read_regular(path, MAX_BYTES, AnnotationError).decode("utf-8-sig", "replace"))
    return None


def _yaml_names(text: str) -> tuple[str, ...] | None:
    """The ``names`` of an Ultralytics ``data.yaml``, in its three spellings: ``[a, b]``, ``- a`` and ``0: a``."""
    inline = re.search(r"^names:\s*[\[{]([^\]}]*)[\]}]", text, re.MULTILINE)
    if inline:
        entries = inline.group(1).split(",")
    else:
        block = re.search(r"^names:[ \t]*\r?\n((?:[ \t]*(?:-|\d+:).*(?:\r?\n|$))+)", text, re.MULTILINE)
        entries = block.group(1).splitlines() if block else []
    names = tuple(re.sub(r"^\s*(?:-|\d+:)?\s*", "", entry).strip().strip("'\"") for entry in entries if entry.strip())
    return names or None


def _type_of(box: np.ndarray, typed: list[TypedBox]) -> tuple[str | None, bool]:
    """Type and certainty from the table's box that is this one, if any is."""
    if not typed:
        return None, True
    overlap = iou(box[None], np.array([t.box for t in typed], np.float32))[0]
    best = int(overlap.argmax())
    return (typed[best].label, typed[best].sure) if overlap[best] >= _SAME_BOX else (None, True)
