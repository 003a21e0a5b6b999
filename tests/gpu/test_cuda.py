"""What is promised of an NVIDIA GPU: the cells of the CPU, on each device that is named, and trainings that go on.

BLOODCELLS_TEST_GPU=1 pytest tests/gpu
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.crops import CropSpec, cut_crops
from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train
from napari_bloodcells.synthetic import write_folder

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no NVIDIA GPU is to be used: BLOODCELLS_TEST_GPU=1 on a machine that has one"
)
CLOSE = 0.02
"""Probabilities of the same boxes in bfloat16 and in float32 (``benchmarks/precision.py``)."""


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn fields with their boxes."""
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(folder, 40, seed=3)
    return folder


def probabilities(cells: pd.DataFrame) -> np.ndarray:
    """(N, C) of a table of cells."""
    return cells[[name for name in cells if name.startswith("p_")]].to_numpy()


def test_crops_are_those_of_the_cpu_to_the_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    boxes = np.array([[10, 20, 90, 110], [-20, -10, 60, 70], [500, 300, 640, 480]], np.float32)
    for spec in (CropSpec(size=80, side_um=20.0), CropSpec(size=48, scale="box", context=1.4)):
        there = cut_crops(image, boxes, spec, um_per_pixel=0.073, device="cuda")
        assert torch.equal(there.cpu(), cut_crops(image, boxes, spec, um_per_pixel=0.073, device="cpu"))


@pytest.mark.parametrize("devices", [(), ("cuda:0",), ("cuda:0", "cuda:0")])
def test_the_same_boxes_have_the_cpus_classes(smears: Path, devices: tuple[str, ...]) -> None:
    near = count(smears, "default", "xml", "cpu")
    far = count(smears, "default", "xml", "auto", options=CountOptions(devices=devices, guarded_main=True))
    assert far.run["device"].startswith("cuda")
    assert list(far.cells["image"]) == list(near.cells["image"])
    here, there = probabilities(near.cells), probabilities(far.cells)
    assert np.abs(here - there).max() < CLOSE
    first, second = np.sort(here, 1)[:, -1], np.sort(here, 1)[:, -2]
    sure = first - second > 2 * CLOSE
    assert (here.argmax(1) == there.argmax(1))[sure].all()


def test_found_cells_are_those_of_the_cpu(smears: Path) -> None:
    near, far = count(smears, "default", "find", "cpu"), count(smears, "default", "find", "cuda")
    assert len(near.cells) == len(far.cells)
    sides = ["x_min", "y_min", "x_max", "y_max"]
    assert np.abs(near.cells[sides].to_numpy() - far.cells[sides].to_numpy()).max() < 3


class _StopsAfter(Silent):
    """Cancels after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.left -= n

    def cancelled(self) -> bool:
        return self.left <= 0


def test_a_training_goes_on_to_the_same_bits_and_on_the_other_device(smears: Path, tmp_path: Path) -> None:
    changes = {"epochs": 2, "batch_size": 8, "sampler.epoch_cells": 64}
    whole = train(smears, "wbc5", tmp_path / "whole", device="cuda", overrides=changes)
    with pytest.raises(Cancelled):
        train(smears, "wbc5", tmp_path / "parts", device="cuda", overrides=changes, progress=_StopsAfter(5))
    again = train(smears, "wbc5", tmp_path / "parts", device="cuda", overrides=changes, resume=True)
    assert again.info.sha256 == whole.info.sha256
    with pytest.raises(Cancelled):
        train(smears, "wbc5", tmp_path / "moved", device="cuda", overrides=changes, progress=_StopsAfter(5))
    moved = train(smears, "wbc5", tmp_path / "moved", device="cpu", overrides=changes, resume=True)
    assert load_model(moved.output, "cuda").info.sha256 == moved.info.sha256
