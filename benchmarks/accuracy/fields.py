"""Row A: Kaggle's TEST images as a laboratory would count them: localize, crop, classify.

An image shows one labeled cell, at times with another beside it; the largest cell found is taken as the labeled one.
An image in which nothing is found counts as wrong.  Intervals are over the originals.  TEST's 2,487 images show 69 of
them, of which two are not in TEST_SIMPLE and were trained on (``parts.csv`` holds the cells of TEST_SIMPLE out): these
two and their 95 images are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.cells import TRAIN, part_of_source
from benchmarks.accuracy.copies import largest_cell
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.crops import cut_crops
from napari_bloodcells.core.datasets import DataSet, load_dataset
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import load_localizer
from napari_bloodcells.core.statistics.metrics import score


def kaggle_test(data: Path, part: str, model_name: str = "wbc4") -> dict[str, Any]:
    """Accuracy over the images of ``part`` (``TEST`` or ``TEST_SIMPLE``), with its interval over originals."""
    model = load_model(model_name, device="cpu")
    trained = {s.group for s in part_of_source(data, "bccd", TRAIN).samples}
    every: DataSet = load_dataset(data / "kaggle").in_scheme(model.info.class_scheme)
    chosen = every.part(part).where(lambda s: s.group not in trained)
    localizer = load_localizer("default", "cpu")
    crops, truth, groups, missed = [], [], [], 0
    for sample in chosen.samples:
        image = read_image(sample.image)
        field = localizer.find(image)
        truth.append(model.info.class_names.index(str(sample.label)))
        groups.append(sample.group)
        if not len(field.wbc):
            missed += 1
            crops.append(torch.zeros((1, 3, model.info.crop.size, model.info.crop.size), dtype=torch.uint8))
            continue
        crops.append(cut_crops(image, largest_cell(field), model.info.crop, field.um_per_pixel))
    shares = model.predict(torch.cat(crops)).probabilities
    empty = np.array([not bool(c.any()) for c in crops])
    labels = np.array(truth)
    wrong = (labels + 1) % len(model.info.class_names)
    shares[empty] = np.eye(len(model.info.class_names), dtype=np.float32)[wrong[empty]]
    scores = score(labels, shares, model.info.class_names, groups, f"kaggle {part}")
    return {
        "cells": scores.n,
        "groups": scores.groups,
        "nothing_found": missed,
        "localizer": localizer.name,
        "accuracy": [scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high],
        "balanced_accuracy": [
            scores["balanced_accuracy"].value,
            scores["balanced_accuracy"].low,
            scores["balanced_accuracy"].high,
        ],
        "confusion": scores.confusion.tolist(),
    }
