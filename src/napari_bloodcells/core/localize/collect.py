"""From folders of data to labeled fields: the shared readers, this project's own remarks, and three parts by group.

What the readers left out or worked around is told, as ``train`` of a classifier does.

``remarks.csv`` holds what was seen by eye in public data where the source's own boxes are silent: white cells that it
left unboxed, and whether a photograph without boxes holds any (label ``none``: looked at, no white cell).  Single-cell
images serve too: the cell in the middle is found by its stain (``core.central``).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, iou, touches_border
from napari_bloodcells.core.central import central_box
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.datasets import open_datasets
from napari_bloodcells.core.datasets.base import DataSet, FieldTruth, part_of
from napari_bloodcells.core.datasets.folder import listed_parts
from napari_bloodcells.core.datasets.load import TOLD
from napari_bloodcells.core.errors import BloodcellsError, DataSetError, DataWarning
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.images import image_size, read_image
from napari_bloodcells.core.localize.fields import labeled_field
from napari_bloodcells.core.localize.learned import WBC_PER_RED_CELL
from napari_bloodcells.core.localize.tiles import LabeledField
from napari_bloodcells.core.progress import Progress, check_cancelled

MOST_SINGLE_CELLS = 560
"""Single-cell images taken of one source; they show one cell each and no other way of looking."""
VALIDATION_SHARE = 0.12
_PARTS = ("train", "val", "test")
_ANOTHER_SCALE = 1.6
"""Factor between two magnifications: a gap in the sizes of a source's fields, or what three cells of a field say."""
_SAME_BOX = 0.9
"""Overlap (IoU) of a box of the table of readers and one of the annotation that are the same box."""


@dataclass(frozen=True)
class TruthField:
    """A photograph and its boxes (labels ``WBC``, ``RBC``, ``Platelets``, ``ignore``) before it is read.

    ``single`` images show one cell in the middle whose box is still to be found; ``tight`` ones are that box.
    """

    truth: FieldTruth
    source: str
    part: str
    single: bool = False
    tight: bool = False


def collect(folders: Iterable[Path | str]) -> list[TruthField]:
    """All photographs of ``folders`` with their boxes, in ``train``, ``val`` and ``test`` parts.

    A publisher's test part stays out of training, and so does every photograph of a group that reaches into it.
    Parts are folders (``valid``, ``testing`` and the like, too) or the lists in ``ImageSets/Main`` of a VOC folder.
    Where there is no published part, one group in eight is kept for validation.  Of a group that several folders show
    (``kaggle`` is made of ``bccd``) all photographs are in the same part, the last of those.

    Raises
    ------
    DataSetError
        If a folder holds neither labels nor images that ``remarks.csv`` knows, or none holds a white cell, or a list
        of images cannot be read.

    Warns
    -----
    DataWarning
        For what the readers left out or worked around.
    """
    found: list[TruthField] = []
    for folder in map(Path, folders):
        found.extend(read_parts(folder))
    last: dict[str, str] = {}
    for item in found:
        last[item.truth.group] = max(last.get(item.truth.group, _PARTS[0]), item.part, key=_PARTS.index)
    found = [replace(item, part=last[item.truth.group]) for item in found]
    if not any("WBC" in item.truth.boxes.labels for item in found):
        raise DataSetError("No folder holds a boxed white cell to learn from.")
    return found


def read_parts(folder: Path) -> list[TruthField]:
    """The photographs of one folder, each with its part; see ``collect``."""
    remarks = read_remarks(folder.name)
    try:
        (dataset,) = open_datasets(folder)
    except DataSetError:
        images = [p for p in find_images([folder]) if p.stem in remarks]
        if not images:
            raise
        listed = listed_parts(folder, {p.stem for p in images})
        bare = tuple(
            FieldTruth(p, Boxes(), f"{folder.name}:{p.stem}", listed.get(p.stem), frozenset({"WBC"})) for p in images
        )
        dataset = DataSet(folder.name, folder, (), "images", bare)
    single = not dataset.fields
    truths = _single_cells(dataset) if single else [_remarked(t, remarks) for t in _without_unnamed(dataset)]
    parts = {t.group: _part(t) for t in truths}
    parts |= {t.group: "test" for t in truths if _part(t) == "test"}
    tight = single and _cut_to_the_cell([t.image for t in truths])
    return [TruthField(t, dataset.name, parts[t.group], single, tight) for t in truths]


def _cut_to_the_cell(images: list[Path]) -> bool:
    """Whether single-cell images are each cut to their own cell: then hardly two of them have one size."""
    some = images[:: max(len(images) // 30, 1)]
    sizes = {image_size(path) for path in some}
    return len(some) > 4 and len(sizes) > len(some) / 2


def _part(truth: FieldTruth) -> str:
    published = part_of(truth.split or "")
    if published:
        return published
    chance = int(hashlib.sha256(truth.group.encode()).hexdigest()[:8], 16) / 2**32
    return "val" if chance < VALIDATION_SHARE else "train"


def _single_cells(dataset: DataSet) -> list[FieldTruth]:
    """The photographs of a data set of single cells, evenly taken, their boxes still to be found."""
    scheme = load_scheme("pbc8")
    every = max(-(-len(dataset.samples) // MOST_SINGLE_CELLS), 1)
    truths = []
    for sample in dataset.samples[::every]:
        index = None if sample.label is None else scheme.index(sample.label)
        kind = "wbc" if index is None else scheme.classes[index].kind
        label = "Platelets" if kind == "platelet" else "WBC"
        truths.append(
            FieldTruth(
                sample.image,
                Boxes(np.zeros((1, 4), np.float32), (label,)),
                sample.group,
                sample.split,
                frozenset({label}),
            )
        )
    return truths


def _without_unnamed(dataset: DataSet) -> list[FieldTruth]:
    """The fields; a white cell's box that readers could neither name nor be sure of is neither asked for nor punished
    (in ``raabin`` these are pieces at the border, and boxes around red cells)."""
    unnamed: dict[Path, list[tuple[float, ...]]] = {}
    for sample in dataset.samples:
        if sample.label is None and not sample.sure and sample.box is not None:
            unnamed.setdefault(sample.image, []).append(sample.box)
    fields = []
    for truth in dataset.fields:
        if truth.image in unnamed:
            overlap = iou(truth.boxes.xyxy, np.array(unnamed[truth.image], np.float32)).max(1)
            marks = zip(truth.boxes.labels, overlap.tolist(), strict=True)
            labels = tuple("ignore" if name == "WBC" and share > _SAME_BOX else name for name, share in marks)
            truth = replace(truth, boxes=replace(truth.boxes, labels=labels))
        fields.append(truth)
    return fields


def read_remarks(source: str) -> dict[str, list[tuple[float, float, float, float, str]]]:
    """The remarks on one source, by the stem of the image; an image with the remark ``none`` has an empty list."""
    text = (files("napari_bloodcells.core.localize") / "remarks.csv").read_text("utf-8")
    result: dict[str, list[tuple[float, float, float, float, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["source"] == source:
            boxes = result.setdefault(row["image"], [])
            if row["label"] != "none":
                x0, y0, x1, y1 = (float(row[k]) for k in ("x_min", "y_min", "x_max", "y_max"))
                boxes.append((x0, y0, x1, y1, row["label"]))
    return result


def _remarked(truth: FieldTruth, remarks: dict[str, list[tuple[float, float, float, float, str]]]) -> FieldTruth:
    more = remarks.get(truth.image.stem, [])
    if not more:
        return truth
    xyxy = np.concatenate([truth.boxes.xyxy, np.array([box[:4] for box in more], np.float32)])
    return replace(truth, boxes=Boxes(xyxy, (*truth.boxes.labels, *(box[4] for box in more))))


def read_fields(items: Sequence[TruthField], progress: Progress) -> list[LabeledField]:
    """Read the photographs and make them ready for training; those that cannot be read are told and left out."""
    progress.start("reading", len(items))
    sizes = _red_cells(items)
    fields = []
    unread: list[str] = []
    for item in items:
        check_cancelled(progress)
        progress.advance("reading")
        try:
            image = read_image(item.truth.image)
        except BloodcellsError as problem:
            unread.append(str(problem))
            continue
        boxes = item.truth.boxes
        if item.single:
            boxes = Boxes(_single_box(image, item)[None], boxes.labels)
        fields.append(labeled_field(image, boxes, item.truth.classes, item.source, sizes.get(item.truth.image)))
    tell_unread(unread)
    return fields


def tell_unread(problems: Sequence[str]) -> None:
    """Warn of photographs that could not be read, the first ``TOLD`` of them by name."""
    for problem in problems[:TOLD]:
        warnings.warn(f"{problem} It is left out.", DataWarning, stacklevel=3)
    if len(problems) > TOLD:
        warnings.warn(f"{len(problems) - TOLD} more photographs cannot be read; left out.", DataWarning, stacklevel=3)


def _single_box(image: NDArray[np.uint8], item: TruthField) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    return np.array([0, 0, width, height], np.float32) if item.tight else central_box(image)


def _red_cells(items: Sequence[TruthField]) -> dict[Path, float]:
    """Diameter of a red cell in pixels on each photograph whose source boxes no red cells, from the white ones.

    A source is taken to have one magnification, as a single white cell tells little of it: monocytes are twice as
    large as lymphocytes.  It has several where the sizes of its fields leave a gap, and a field has its own where three
    whole white cells say so.
    """
    by_source: dict[str, list[TruthField]] = defaultdict(list)
    for item in items:
        if "RBC" not in item.truth.classes and not item.tight:
            by_source[item.source].append(item)
    sizes: dict[Path, float] = {}
    for here in by_source.values():
        singles = [item for item in here if item.single]
        sides = _sides_of_single(singles)
        if sides:
            sizes |= dict.fromkeys((item.truth.image for item in singles), float(np.median(sides)))
        sizes |= _sides_of_fields([item for item in here if not item.single])
    return {image: side / WBC_PER_RED_CELL for image, side in sizes.items()}


def _sides_of_single(items: Sequence[TruthField]) -> list[float]:
    """Longest sides of the white cells of at most 60 single-cell images."""
    sides: list[float] = []
    for item in items:
        if "WBC" in item.truth.boxes.labels and len(sides) < 60:
            with contextlib.suppress(BloodcellsError):
                sides += _longest(central_box(read_image(item.truth.image))[None])
    return sides


def _sides_of_fields(items: Sequence[TruthField]) -> dict[Path, float]:
    """The usual longest side of a white cell on each field of one source, where the source has any."""
    sides = {item.truth.image: _longest(item.truth.boxes.named("WBC").xyxy) for item in items}
    if not any(sides.values()):
        return {}
    whole: dict[Path, list[float]] = {}
    for item in items:
        white = item.truth.boxes.named("WBC").xyxy
        with contextlib.suppress(BloodcellsError):
            inside = _longest(white[~touches_border(white, *image_size(item.truth.image))])
            if inside:
                whole[item.truth.image] = inside
    clusters = _clusters({image: float(np.median(inside)) for image, inside in whole.items()})
    if len(clusters) < 2:
        clusters = [list(sides)]
    usual: dict[Path, float] = {}
    for cluster in sorted(clusters, key=len, reverse=True):
        median = float(np.median([v for image in cluster for v in sides[image]]))
        # what shows no whole white cell is taken to be as most are
        usual |= dict.fromkeys(cluster if usual else sides, median)
    for image, inside in whole.items():
        own = float(np.median(inside))
        if len(inside) >= 3 and not 1 / _ANOTHER_SCALE <= own / usual[image] <= _ANOTHER_SCALE:
            usual[image] = own
    return usual


def _clusters(sizes: dict[Path, float]) -> list[list[Path]]:
    """The photographs by size, parted where the next one is larger by the factor ``_ANOTHER_SCALE``."""
    clusters: list[list[Path]] = []
    last = 0.0
    for image in sorted(sizes, key=lambda path: sizes[path]):
        if not clusters or sizes[image] > last * _ANOTHER_SCALE:
            clusters.append([])
        clusters[-1].append(image)
        last = sizes[image]
    return clusters


def _longest(xyxy: NDArray[np.float32]) -> list[float]:
    longest = (xyxy[:, 2:] - xyxy[:, :2]).max(1) if len(xyxy) else np.zeros(0)
    return [float(side) for side in longest if side > 0]
