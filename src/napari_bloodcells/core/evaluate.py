"""Evaluation: how well a model does on labeled cells, each figure with its interval, grouped by original cell.

The cells are cut by the function that training and counting use (``pack.py``, ``crops.py``).  Labels outside of the
model's classes, and those that their source is not sure of, are left out and counted.  Copies of one picture are one
original.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.classes import UNIDENTIFIED
from napari_bloodcells.core.datasets import Data, DataSet, Sample, open_datasets
from napari_bloodcells.core.errors import DataSetError, UsageError
from napari_bloodcells.core.files import write_atomic
from napari_bloodcells.core.model import Model, Prediction
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.schema import BundleInfo
from napari_bloodcells.core.statistics.metrics import Scores, score
from napari_bloodcells.core.training.pack import pack_crops
from napari_bloodcells.core.training.samecells import with_copies_joined

BOXES = ("auto", "find")
_PART = 256


@dataclass(frozen=True)
class Evaluation:
    """What a model did on N labeled cells.

    Attributes
    ----------
    info : BundleInfo
        The model.
    data : tuple of str
        Names of the data sets.
    scores : Scores
        Figures over all N cells, the unidentified ones by their likeliest class.
    identified : Scores
        Figures over those that the model's thresholds do not call unidentified.
    left_out : dict
        How many cells were left out, by reason.
    problems : tuple of str
        Defects of the data that were worked around, one line each, naming the file.
    truth, probabilities, distance, images
        (N,) class numbers, (N, C), (N,) and N file names, in the order of the data.
    """

    info: BundleInfo
    data: tuple[str, ...]
    scores: Scores
    identified: Scores
    left_out: dict[str, int]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    distance: NDArray[np.float32]
    images: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "model": self.info.name,
            "sha256": self.info.sha256,
            "data": list(self.data),
            "cells": self.scores.n,
            "original_cells": self.scores.groups,
            "left_out": self.left_out,
            "problems": list(self.problems),
            "all_cells": self.scores.to_dict(),
            "identified_cells": self.identified.to_dict(),
            UNIDENTIFIED: self.scores.n - self.identified.n,
        }

    def to_json(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the report."""
        return write_atomic(path, (json.dumps(self.to_dict(), indent=1) + "\n").encode(), overwrite=overwrite)


def evaluate(
    model: str | Path | Model,
    data: Data,
    *,
    boxes: str = "auto",
    part: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on labeled cells.

    Parameters
    ----------
    model : str, Path or Model
        As ``load_model`` takes it.
    data : folder, DataSet, or a list of them
        What ``load_dataset`` understands.
    boxes : str
        ``auto``: the boxes of the data set, and the cell in the middle of images without; ``find``: found by the
        localizer, and matched to the data set's (the found box whose center lies in the true one).
    part : str, optional
        Only what the publisher put into that part (``TEST``).
    device, progress
        As for ``count``.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataSetError
        If no cell carries a label of the model's classes.
    BundleError, UsageError, ImageError, Cancelled

    Examples
    --------
    >>> evaluate("default", "bccd").scores["accuracy"].value       # doctest: +SKIP
    0.97
    """
    if boxes not in BOXES:
        raise UsageError(f"boxes can be {' or '.join(BOXES)} here, not {boxes!r}.")
    progress = progress or Silent()
    loaded = model if isinstance(model, Model) else load_model(model, device)
    scheme = loaded.info.class_scheme
    sets = [d.part(part) if part else d for d in open_datasets(data, scheme)]
    left_out: Counter[str] = Counter()
    chosen = [_labeled(d.in_scheme(scheme), left_out) for d in sets]
    if boxes == "find":
        chosen = [_found(d, str(loaded.device), progress, left_out) for d in chosen]
    chosen = [d for d in chosen if len(d)]
    names = tuple(d.name for d in sets)
    if not chosen:
        which = f" in part {part}" if part else ""
        raise DataSetError(f"{', '.join(names)}: no cell{which} with a label of the classes {', '.join(scheme.names)}.")
    packs = with_copies_joined([pack_crops(d, loaded.info.crop, scheme, progress) for d in chosen])
    predictions = [_predict(loaded, p.crops, progress) for p in packs]
    truth = np.concatenate([p.labels.numpy() for p in packs])
    shares = np.concatenate([p.probabilities for p in predictions])
    distance = np.concatenate([p.distance for p in predictions])
    groups = np.array([g for p in packs for g in p.groups])
    known = shares.max(1) >= loaded.info.min_confidence
    if loaded.info.max_distance is not None:
        known &= distance <= loaded.info.max_distance
    label = "+".join(names)[:200]
    return Evaluation(
        loaded.info,
        names,
        score(truth, shares, scheme.names, groups.tolist(), label),
        score(truth[known], shares[known], scheme.names, groups[known].tolist(), label),
        dict(left_out),
        truth,
        shares,
        distance,
        tuple(name for p in packs for name in p.images),
        tuple(problem for d in sets for problem in d.problems),
    )


def _predict(model: Model, crops: Any, progress: Progress) -> Prediction:
    progress.start("classifying", len(crops))
    parts = []
    for part in crops.split(_PART):
        check_cancelled(progress)
        parts.append(model.predict(part))
        progress.advance("classifying", len(part))
    return Prediction(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.distance for p in parts]))


def _labeled(dataset: DataSet, left_out: Counter[str]) -> DataSet:
    kept = dataset.labeled()
    unsure = sum(s.label is not None and not s.sure for s in dataset.samples)
    found = {"no label of the model's classes": len(dataset) - len(kept) - unsure, "label not sure": unsure}
    left_out.update({reason: n for reason, n in found.items() if n})
    return kept


def _found(dataset: DataSet, device: str, progress: Progress, left_out: Counter[str]) -> DataSet:
    """The cells with the boxes and the scale that the localizer finds; cells that it misses are left out."""
    from napari_bloodcells.core.images import read_image
    from napari_bloodcells.core.localize import load_localizer

    localizer = load_localizer("default", device)
    progress.start(f"finding cells in {dataset.name}", len(dataset))
    by_image: dict[Path, list[Sample]] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image, []).append(sample)
    kept: list[Sample] = []
    for path, samples in by_image.items():
        check_cancelled(progress)
        image = read_image(path)
        field = localizer.find(image)
        for sample in samples:
            at = match_box(sample.box, field.wbc.xyxy, image.shape[0], image.shape[1])
            if at is None:
                left_out["not found by the localizer"] += 1
                continue
            x0, y0, x1, y1 = (float(v) for v in field.wbc.xyxy[at])
            kept.append(replace(sample, box=(x0, y0, x1, y1), um_per_pixel=field.um_per_pixel))
        progress.advance(f"finding cells in {dataset.name}", len(samples))
    return replace(dataset, samples=tuple(kept))


def match_box(
    box: tuple[float, float, float, float] | None, found: NDArray[np.float32], height: int, width: int
) -> int | None:
    """Which of the found boxes (M, 4) is the cell: None where none is.

    The center nearest to that of ``box`` among those inside of it; for an image of one cell, the nearest to its middle.

    >>> match_box((10, 10, 50, 50), np.array([[60, 60, 90, 90], [12, 8, 50, 46]], np.float32), 100, 100)
    1
    """
    x0, y0, x1, y1 = box if box is not None else (0.0, 0.0, float(width), float(height))
    center = (found[:, :2] + found[:, 2:]) / 2
    inside = (center[:, 0] >= x0) & (center[:, 0] <= x1) & (center[:, 1] >= y0) & (center[:, 1] <= y1)
    if not inside.any():
        return None
    far = np.hypot(center[:, 0] - (x0 + x1) / 2, center[:, 1] - (y0 + y1) / 2)
    return int(np.argmin(np.where(inside, far, np.inf)))
