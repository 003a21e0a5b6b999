"""Kaggle's TRAIN images as more training cells of ``bccd``: its originals turned, warped and at half their resolution.

No copy of an original that Kaggle's TEST or TEST_SIMPLE shows is taken, nor of one that is held out in ``parts.csv``.
The images have no boxes; the shipped localizer gives them, the largest cell being the labeled one (as in row A).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.datasets import DataSet, Sample, load_dataset
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import Field, load_localizer

SOURCE = "kaggle"


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
    localizer = load_localizer("default", "cpu")
    boxed: list[Sample] = []
    for sample in kept.samples:
        field = localizer.find(read_image(sample.image))
        if not len(field.wbc):
            continue
        x_min, y_min, x_max, y_max = (float(v) for v in largest_cell(field)[0])
        boxed.append(replace(sample, box=(x_min, y_min, x_max, y_max), um_per_pixel=field.um_per_pixel))
    return replace(kept, samples=tuple(boxed))
