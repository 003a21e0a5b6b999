"""Counting the fields of an image layer with the core, in whatever thread this is called.

The same ``count`` as the command: files are given to it as files, so that VOC boxes, labels and pixels are the same,
and a slide is a slide; what has no file is given as arrays, which are read when their turn comes.  Nothing is cut or
joined here, so window and command cannot differ.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.errors import BloodcellsError, UsageError
from napari_bloodcells.core.progress import Progress
from napari_bloodcells.napari.carried import in_scheme
from napari_bloodcells.napari.cell import Box, Cell
from napari_bloodcells.napari.fields import LARGE, FieldPixels, Fields, same_on_disk
from napari_bloodcells.napari.quiet_import import load_torch
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import frame_cells, image_records

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.bundle import Model
    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.counting.result import CountResult
    from napari_bloodcells.core.slides.slide import Region

OK = "ok"
AT_ONCE = 8
"""Fields after which the window is told how far the count is; large ones come one by one."""
_AROUND = 1024
"""Pixels around a drawn cell in which the ground is looked for, where the field is large."""


@dataclass(frozen=True)
class CountRequest:
    """What the reviewer chose before Run.

    ``threshold`` and ``um_per_pixel`` are None where the model's own and the measured one shall be taken.
    """

    model: str = "default"
    boxes: str = "auto"
    device: str = "auto"
    threshold: float | None = None
    um_per_pixel: float | None = None


@dataclass(frozen=True)
class Counted:
    """A finished count: the review to work on, and what there is to say of it.

    ``failed`` are the reasons of the fields that could not be counted; what else there is to say of a field stands in
    the review (``images_frame``).
    """

    review: Review
    failed: tuple[str, ...]


class ModelShelf:
    """Models that were loaded once, so that a drawn box is classified without loading again."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str, int], Model] = {}

    def get(self, name: str, device: str) -> Model:
        """The model of that name on that device; loads it (and torch) the first time, and when it was replaced."""
        load_torch()
        from napari_bloodcells import load_model
        from napari_bloodcells.core.bundle import WEIGHTS, find_bundle

        place = find_bundle(name)
        written = (place / WEIGHTS if place.is_dir() else place).stat().st_mtime_ns
        if (name, device, written) not in self._models:
            self._models[name, device, written] = load_model(name, device=device)
        return self._models[name, device, written]


def count_fields(fields: Fields, request: CountRequest, progress: Progress, shelf: ModelShelf) -> Counted:
    """Count every field of an image layer.

    Raises
    ------
    BloodcellsError
        Nothing could be counted; the text says why.  ``Cancelled`` where ``progress`` asked to stop.
    """
    fields.refuse_grey()
    if not fields.paths:
        fields.digest()  # read here and kept: the window asks for it when it puts the cells on the canvas
    from napari_bloodcells import count

    model = shelf.get(request.model, request.device)
    large = max(h * w for h, w in fields.sizes) > LARGE
    sources: Any = list(fields.paths) if same_on_disk(fields) else None
    if sources is None:
        if request.boxes == "xml":
            raise UsageError(
                f"{fields.layer.name}: has no VOC file, because it does not show a file as it lies on disk; "
                "have the cells found."
            )
        sources = {name: fields.slide(i) or FieldPixels(fields, i) for i, name in enumerate(fields.names)}
    result = count(sources, model, request.boxes, request.device, progress, _options(request, 1 if large else AT_ONCE))
    names = _names(result, fields)
    cells, images = (frame.assign(image=frame["image"].map(names)) for frame in (result.cells, result.images))
    info = {
        "model": result.run["model"],
        "boxes": request.boxes,
        "sizes": [list(s) for s in fields.sizes],
        "um_per_pixel": scales_of(images),
        "fields": image_records(images),
        "slides": [names[name] for name in result.run.get("slides", ())],
    }
    review = Review(result.scheme, fields.names, frame_cells(cells, result.scheme, fields.names), info=info)
    failed = tuple(str(s) for s in images["status"] if s != OK)
    if len(failed) == len(fields):
        raise BloodcellsError(failed[0])
    return Counted(review, failed)


def scales_of(images: pd.DataFrame) -> list[float | None]:
    """Micrometers per pixel of each image of an ``images`` table, None where it is not known."""
    return [None if math.isnan(scale) else float(scale) for scale in images["um_per_pixel"]]


def classify_boxes(
    fields: Fields, index: int, cells: Sequence[Cell], scheme: ClassScheme, request: CountRequest, shelf: ModelShelf
) -> list[Cell]:
    """What the model says of boxes drawn by hand on one field: the cells with their classes, of ``scheme``, filled in.

    Of a large field only the surroundings of the boxes are looked at.
    """
    from dataclasses import replace

    from napari_bloodcells import count

    model = shelf.get(request.model, request.device)
    left, top, right, bottom = _surroundings(fields.sizes[index], [c.box for c in cells])
    image = fields.regions(index)((left, top, right, bottom))
    shifted = np.array([[c.box[0] - left, c.box[1] - top, c.box[2] - left, c.box[3] - top] for c in cells], np.float32)
    boxes = Boxes(shifted, ("WBC",) * len(cells), source="drawn")
    result = count({"field": image}, model, {"field": boxes}, request.device, None, _options(request))
    said = frame_cells(result.cells, result.scheme, ["field"])
    if len(said) != len(cells):
        raise BloodcellsError(str(result.images["status"].iloc[0]))
    named = [in_scheme(new, result.scheme, scheme) for new in said]  # the review may be another model's
    return [
        replace(
            cell,
            name=new.name,
            machine=new.name,
            confidence=new.confidence,
            probabilities=new.probabilities,
            distance=new.distance,
        )
        for cell, new in zip(cells, named, strict=True)
    ]


def _surroundings(size: tuple[int, int], boxes: Sequence[Box]) -> Region:
    """The part around ``boxes`` of a large field of ``size`` (height, width); all of a small one."""
    height, width = size
    if height * width <= LARGE:
        return 0, 0, width, height
    low, high = np.min([b[:2] for b in boxes], 0), np.max([b[2:] for b in boxes], 0)
    left, top = (int(max(0, v - _AROUND)) for v in low)
    return left, top, int(min(width, high[0] + _AROUND)), int(min(height, high[1] + _AROUND))


def _options(request: CountRequest, at_once: int = AT_ONCE) -> Any:
    from napari_bloodcells.core.counting.options import CountOptions

    return CountOptions(threshold=request.threshold, um_per_pixel=request.um_per_pixel, batch_size=at_once)


def _names(result: CountResult, fields: Fields) -> dict[str, str]:
    """From the images of a count to the fields of the layer; ``count`` sorts files, so they are told by their paths."""
    if len(result.images) != len(fields):
        raise UsageError(f"{fields.layer.name}: {len(fields)} fields, but {len(result.images)} were counted.")
    if not result.files:  # arrays were given under these names
        return {name: name for name in fields.names}
    own = {os.path.abspath(path): name for path, name in zip(fields.paths, fields.names, strict=True)}
    return {image: own[os.path.abspath(file)] for image, file in result.files.items()}
