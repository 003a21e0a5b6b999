"""Kaggle's TRAIN images as more training cells of ``bccd``: its originals turned, warped and at half their resolution.

No copy of an original that Kaggle's TEST or TEST_SIMPLE shows is taken, nor of one that is held out in ``parts.csv``.
The images have no boxes; the shipped localizer gives them, the largest cell being the labeled one (as in row A).  What
it finds takes minutes and is kept beside the packs of crops, each image's as long as image and localizer stay the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.datasets import DataSet, Sample, load_dataset
from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.files import make_folder, write_atomic
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import Field
from napari_bloodcells.core.localize.learned import LearnedLocalizer, load_learned
from napari_bloodcells.core.training.pack import cache_folder

SOURCE = "kaggle"


@dataclass(frozen=True)
class Found:
    """The labeled cell of an image: its box, None where no cell was found, and micrometers per pixel where known."""

    box: tuple[float, float, float, float] | None
    um_per_pixel: float | None


def largest_cell(field: Field) -> NDArray[np.float32]:
    """Box (1, 4) of the largest white cell found: the labeled one, at times with another beside it."""
    boxes = field.wbc.xyxy
    largest = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1)))
    return boxes[largest : largest + 1]


def training_copies(data: Path, held_out: Collection[str]) -> DataSet:
    """The labeled copies that show no original of the groups ``held_out`` or of Kaggle's own test parts, with boxes."""
    every = load_dataset(data / SOURCE).labeled()
    banned = set(held_out) | {s.group for s in every.samples if s.split != "TRAIN"}
    kept = every.where(lambda s: s.split == "TRAIN" and s.group not in banned)
    return replace(kept, samples=tuple(boxed(kept.samples, load_learned())))


def boxed(samples: Sequence[Sample], localizer: LearnedLocalizer) -> Iterator[Sample]:
    """The samples with the boxes and scales that the localizer finds or once found; those without a cell are left out.

    What was found is kept even where this is stopped halfway.
    """
    digest = hashlib.sha256(localizer.info.model_dump_json().encode()).hexdigest()
    place = cache_folder() / "copies" / f"{digest[:24]}.json"
    known = _read(place)
    before = len(known)
    try:
        for sample in samples:
            file = sample.image.stat()
            key = json.dumps([str(sample.image.resolve()), file.st_size, file.st_mtime_ns])
            if key not in known:
                known[key] = _find(sample.image, localizer)
            found = known[key]
            if found.box is not None:
                yield replace(sample, box=found.box, um_per_pixel=found.um_per_pixel)
    finally:
        if len(known) > before:
            text = json.dumps({key: [found.box, found.um_per_pixel] for key, found in known.items()})
            with suppress(OutputError):  # where the cache cannot be written they are found anew the next time
                make_folder(place.parent)
                write_atomic(place, text.encode(), overwrite=True)


def _find(image: Path, localizer: LearnedLocalizer) -> Found:
    field = localizer.find(read_image(image))
    if not len(field.wbc):
        return Found(None, None)
    x_min, y_min, x_max, y_max = (float(v) for v in largest_cell(field)[0])
    return Found((x_min, y_min, x_max, y_max), field.um_per_pixel)


def _read(place: Path) -> dict[str, Found]:
    """What was found before; nothing where there is no such file, or one that cannot be read."""
    try:
        kept: dict[str, Any] = json.loads(place.read_text("utf-8"))
        return {key: Found(None if box is None else tuple(box), scale) for key, (box, scale) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
