"""Runs a localizer over fields of one source and compares what it found with the boxes of the source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import Localizer
from napari_bloodcells.core.localize.collect import TruthField
from napari_bloodcells.core.localize.learned import LearnedLocalizer
from napari_bloodcells.core.localize.net import CLASSES
from napari_bloodcells.core.localize.score import FieldScore, score_field
from napari_bloodcells.core.localize.store import read_localizer

OPEN = 0.02
"""Average precision needs the unsure boxes too: everything is found from this score on, and cut afterwards."""


@dataclass
class Measured:
    """Scores of each field, for each class: ``sure`` above the localizer's threshold, ``every`` of all boxes.

    ``seconds`` are processor seconds of ``find``, so that what else the machine does counts little.
    """

    sure: dict[str, list[FieldScore]] = field(default_factory=lambda: {name: [] for name in CLASSES})
    every: dict[str, list[FieldScore]] = field(default_factory=lambda: {name: [] for name in CLASSES})
    counts: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {name: [] for name in CLASSES})
    seconds: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    pairs: list[tuple[Boxes, NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=list)
    """Found and true white cells, and the boxes that are neither right nor wrong, of each field."""


@dataclass(frozen=True)
class Candidate:
    """A localizer with its threshold off, and the thresholds that it would have."""

    name: str
    localizer: Localizer
    thresholds: tuple[float, float, float]


def learned(folder: str | Path = "default", name: str = "learned") -> Candidate:
    """The learned localizer of a folder."""
    info, net = read_localizer(folder)
    bare = info.model_copy(update={"thresholds": (OPEN,) * 3})
    return Candidate(name, LearnedLocalizer(bare, net), info.thresholds)


def classical() -> Candidate:
    """The classical localizer, which finds white cells only."""
    from napari_bloodcells.core.localize.classical import ClassicalLocalizer

    return Candidate("classical", ClassicalLocalizer(), (0.0, 0.0, 0.0))


def evenly(items: Sequence[TruthField], n: int) -> list[TruthField]:
    """At most ``n`` of ``items``, evenly spaced."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int))]


def measure(candidate: Candidate, items: Sequence[TruthField], zoom: float = 1.0) -> Measured:
    """Find the cells of every field, resized by ``zoom``, and score them against boxes resized alike."""
    result = Measured()
    for item in items:
        image = read_image(item.truth.image)
        if zoom != 1:
            size = round(image.shape[1] * zoom), round(image.shape[0] * zoom)
            kind = Image.Resampling.BICUBIC if zoom > 1 else Image.Resampling.BOX
            image = np.asarray(Image.fromarray(image).resize(size, kind))
        start = time.process_time()
        found = candidate.localizer.find(image)
        result.seconds.append(time.process_time() - start)
        truth = replace(item.truth.boxes, xyxy=item.truth.boxes.xyxy * np.float32(zoom))
        ignored = truth.named("ignore").xyxy
        for c, (name, boxes) in enumerate(zip(CLASSES, (found.wbc, found.rbc, found.platelets), strict=True)):
            if name not in item.truth.classes:
                continue
            true = truth.named(name).xyxy
            if name == "WBC":
                result.pairs.append((boxes, true, ignored))
            sure = boxes.take(boxes.scores >= candidate.thresholds[c])
            result.every[name].append(score_field(boxes, true, ignored))
            result.sure[name].append(score_field(sure, true, ignored))
            result.counts[name].append((len(sure), len(true)))
        true_scale = red_cell(truth)
        if true_scale and found.um_per_pixel:
            result.scale.append(7.5 / found.um_per_pixel / true_scale)
    return result


def red_cell(truth: Boxes) -> float | None:
    """Median diameter in pixels of the boxed red cells, where there are five or more."""
    boxes = truth.named("RBC").xyxy
    return float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)))) if len(boxes) >= 5 else None
