"""One image after its cells were found: in pixels of the whole picture, in reading order, with the labels that its data
set knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, iou
from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.remote import file_name, is_address

if TYPE_CHECKING:
    from torch import Tensor

    from napari_bloodcells.core.localize import Field


@dataclass(frozen=True)
class Located:
    """One image after localizing and cropping; its pixels are gone."""

    record: FieldRecord
    boxes: Boxes
    labels: tuple[str | None, ...]
    crops: Tensor | None


def failed(job: FieldJob, error: BloodcellsError) -> Located:
    """An image that could not be counted, with the error in words."""
    return Located(FieldRecord(job.image, status=str(error)), Boxes(), (), None)


def without_names(job: FieldJob, record: FieldRecord) -> FieldRecord:
    """The record with the name of its image instead of those of its files, where they differ (``--anonymous``).

    >>> job = FieldJob("sample 1/field 2", "/data/Smith.jpg", "/data/Smith.xml")
    >>> without_names(job, FieldRecord(job.image, "Smith.xml: is empty (0 bytes).")).status
    'sample 1/field 2: is empty (0 bytes).'
    """
    sources = [file for file in (job.source, job.annotation) if isinstance(file, str)]
    files = [file_name(file) if is_address(file) else display_name(file) for file in sources]
    files = [name for name in files if name.rpartition(".")[0] not in job.image]

    def plain(text: str) -> str:
        for name in files:
            text = text.replace(name, job.image)
        return text

    if not files:
        return record
    told, odd = (tuple(plain(text) for text in texts) for texts in (record.warnings, record.problems))
    return replace(record, status=plain(record.status), warnings=told, problems=odd)


def whole_field(picture: Picture, um_per_pixel: float | None = None, scale: str = "um") -> tuple[Boxes, Field]:
    """A picture taken as one cell, boxed as training does for crops of that ``scale`` (``CropSpec``)."""
    from napari_bloodcells.core.central import box_of_image
    from napari_bloodcells.core.localize import Field

    box = Boxes(box_of_image(picture.pixels, scale)[None] * picture.reduce, ("WBC",), source="whole")
    return box, Field.of((picture.height, picture.width), box, um_per_pixel=um_per_pixel)


def enlarged(field: Field, picture: Picture) -> Field:
    """What was found on a reduced picture, in pixels of the whole one."""
    if picture.reduce == 1:
        return field
    limit = np.array([picture.width, picture.height] * 2, np.float32)

    def scaled(boxes: Boxes) -> Boxes:
        return replace(boxes, xyxy=np.minimum(boxes.xyxy * picture.reduce, limit))

    scale = None if field.um_per_pixel is None else field.um_per_pixel / picture.reduce
    parts = scaled(field.wbc), scaled(field.rbc), scaled(field.platelets)
    return replace(field, wbc=parts[0], rbc=parts[1], platelets=parts[2], um_per_pixel=scale)


def reading_order(xyxy: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Order of boxes (N, 4) from left to right: the number of a cell does not hang on its score."""
    center = xyxy[:, :2] + xyxy[:, 2:]
    order: NDArray[np.intp] = np.lexsort((center[:, 1], center[:, 0]))
    return order


def match_labels(
    boxes: Boxes, labels: Sequence[tuple[tuple[float, float, float, float] | None, str]]
) -> tuple[str | None, ...]:
    """What the data set calls each box: the type of its own box that overlaps by half or more.

    A type without a box belongs to the only cell of the image; where several were found, to none of them.

    >>> field = Boxes([[0, 0, 10, 10], [50, 50, 60, 60]])
    >>> match_labels(field, [((1, 0, 10, 10), "monocyte")]), match_labels(field, [(None, "monocyte")])
    (('monocyte', None), (None, None))
    """
    if not len(boxes) or not labels:
        return (None,) * len(boxes)
    known = [(box, name) for box, name in labels if box is not None]
    result: list[str | None] = [None] * len(boxes)
    if known:
        overlap = iou(boxes.xyxy, np.array([box for box, _ in known], np.float32))
        for cell in range(len(boxes)):
            best = int(overlap[cell].argmax())
            if overlap[cell, best] >= 0.5:
                result[cell] = known[best][1]
    elif len(boxes) == 1 and len(labels) == 1:
        result[0] = labels[0][1]
    return tuple(result)
