"""Counting the fields of an image layer with the core, in whatever thread this is called.

The same ``count`` as the command: files are given to it as files, so that VOC boxes, labels and pixels are the same;
what has no file is given as arrays.  Images too large to be looked at in one piece go tile by tile (``tiling.py``).
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
from napari_bloodcells.core.progress import Progress, Silent
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.fields import LARGE, Fields, same_on_disk
from napari_bloodcells.napari.quiet_import import load_torch
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import frame_cells, image_records
from napari_bloodcells.napari.tiling import join_tiles, tile_image, window_around

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.bundle import Model
    from napari_bloodcells.core.counting.result import CountResult

OK = "ok"
TILES_AT_ONCE = 4


class Stoppable(Silent):
    """Passes on only the wish to stop: the steps are those of the whole image."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self._progress.cancelled()


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
    from napari_bloodcells import count

    model = shelf.get(request.model, request.device)
    options = _options(request)
    if max(h * w for h, w in fields.sizes) > LARGE:
        result, cells, images = _count_tiles(fields, request, progress, model)
    else:
        sources: Any = list(fields.paths) if same_on_disk(fields) else None
        if sources is None:
            if request.boxes == "xml":
                raise UsageError(
                    f"{fields.layer.name}: has no VOC file, because it does not show a file as it lies on disk; "
                    "have the cells found."
                )
            sources = {name: fields.read(i) for i, name in enumerate(fields.names)}
        result = count(sources, model, request.boxes, request.device, progress, options)
        cells, images = _renamed(result, fields)
    info = {
        "model": result.run["model"],
        "boxes": request.boxes,
        "sizes": [list(s) for s in fields.sizes],
        "um_per_pixel": scales_of(images),
        "fields": image_records(images),
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
    fields: Fields, index: int, cells: Sequence[Cell], request: CountRequest, shelf: ModelShelf
) -> list[Cell]:
    """What the model says of boxes drawn by hand on one field: the cells with their classes filled in."""
    from dataclasses import replace

    from napari_bloodcells import count

    model = shelf.get(request.model, request.device)
    image, (left, top) = window_around(fields.read(index), [c.box for c in cells])
    shifted = np.array([[c.box[0] - left, c.box[1] - top, c.box[2] - left, c.box[3] - top] for c in cells], np.float32)
    boxes = Boxes(shifted, ("WBC",) * len(cells), source="drawn")
    result = count({"field": image}, model, {"field": boxes}, request.device, None, _options(request))
    said = frame_cells(result.cells, result.scheme, ["field"])
    if len(said) != len(cells):
        raise BloodcellsError(str(result.images["status"].iloc[0]))
    return [
        replace(
            cell,
            name=new.name,
            machine=new.name,
            confidence=new.confidence,
            probabilities=new.probabilities,
            distance=new.distance,
        )
        for cell, new in zip(cells, said, strict=True)
    ]


def _options(request: CountRequest) -> Any:
    from napari_bloodcells.core.counting.options import CountOptions

    return CountOptions(threshold=request.threshold, um_per_pixel=request.um_per_pixel, batch_size=8)


def _renamed(result: CountResult, fields: Fields) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables with the names of the fields of the layer; ``count`` sorts files, so they are told by their paths."""
    if len(result.images) != len(fields):
        raise UsageError(f"{fields.layer.name}: {len(fields)} fields, but {len(result.images)} were counted.")
    if not result.files:  # arrays were given under these names
        return result.cells, result.images
    own = {os.path.abspath(path): name for path, name in zip(fields.paths, fields.names, strict=True)}
    names = {image: own[os.path.abspath(file)] for image, file in result.files.items()}
    cells, images = (frame.assign(image=frame["image"].map(names)) for frame in (result.cells, result.images))
    return cells, images


def _count_tiles(
    fields: Fields, request: CountRequest, progress: Progress, model: Model
) -> tuple[CountResult, pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    from napari_bloodcells import count

    if request.boxes in ("xml", "whole"):
        raise UsageError(f"{fields.layer.name}: is too large for this; have the cells found.")
    boxes = "classical" if request.boxes == "classical" else "find"
    tables, images, result = [], [], None
    for index, name in enumerate(fields.names):
        tiles = tile_image(fields, index)
        progress.start(f"tiles of {name}", len(tiles))
        parts, scales, bad = [], [], []
        for first in range(0, len(tiles), TILES_AT_ONCE):
            sources = {tile.name: tile.read() for tile in tiles[first : first + TILES_AT_ONCE]}
            result = count(sources, model, boxes, request.device, Stoppable(progress), _options(request))
            progress.advance(f"tiles of {name}", len(sources))
            parts.append(result.cells)
            scales.append(result.images["um_per_pixel"])
            bad += [s for s in result.images["status"] if s != OK]
        tables.append(join_tiles(pd.concat(parts, ignore_index=True), tiles).assign(image=name))
        status = bad[0] if len(bad) == len(tiles) else OK
        images.append({"image": name, "status": status, "um_per_pixel": pd.concat(scales).median()})
    assert result is not None
    return result, pd.concat(tables, ignore_index=True), pd.DataFrame(images)
