"""Copies of one picture are one original: in training they stand on one side, and no interval counts them twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.calibrate import _gather
from napari_bloodcells.core.evaluate import evaluate
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.pack import CropPack
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.samecells import with_copies_joined
from napari_bloodcells.core.training.traindata import gather

KINDS = ("neutrophil", "lymphocyte")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


def pack(shades: list[int], groups: list[str]) -> CropPack:
    """Crops of 4 x 4 pixels, those of one shade alike; shade 0 is flat."""
    crops = torch.full((len(shades), 3, 4, 4), 200, dtype=torch.uint8)
    crops[:, :, 1:3, 1:3] -= torch.tensor(shades, dtype=torch.uint8)[:, None, None, None]
    n = len(shades)
    names = ("s",) * n
    return CropPack(crops, torch.ones(n), torch.zeros(n, dtype=torch.int64), tuple(groups), names, names, names)


def test_groups_that_share_a_picture_become_one_over_all_packs() -> None:
    one, two = pack([1, 2, 3, 0], ["d", "b", "c", "x"]), pack([2, 1, 4, 5, 0], ["d", "e", "f", "c", "y"])
    found = with_copies_joined([one, two])
    assert [p.groups for p in found] == [("b", "b", "c", "x"), ("b", "b", "f", "c", "y")]
    assert replace(found[0], groups=one.groups).crops is one.crops


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Ten pictures of each of two classes, each of them three times, once in another format."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8))
            image.save(tmp_path / "mine" / kind / f"{i}.png")
            image.save(tmp_path / "mine" / kind / f"again {i}.bmp")
            shutil.copy(tmp_path / "mine" / kind / f"{i}.png", tmp_path / "mine" / kind / f"copy of {i}.png")
    return tmp_path / "mine"


def recipe() -> Recipe:
    settings = {"scheme": "wbc4", "crop.size": 16, "crop.scale": "image", "crop.white": False, "val_fraction": 0.3}
    return Recipe("r", "cnn3").with_overrides(settings)


@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
def test_no_copy_of_a_validation_cell_is_trained_on(doubled: Path) -> None:
    training, validation, _ = gather(doubled, recipe(), Silent())
    assert (len(training), len(validation)) == (42, 18)
    seen = {crop.numpy().tobytes() for crop in training.crops}
    assert not seen & {crop.numpy().tobytes() for crop in validation.crops}


@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
def test_no_copy_of_a_test_cell_is_trained_on(doubled: Path) -> None:
    for kind in KINDS:
        (doubled / "test" / kind).mkdir(parents=True)
        for i in range(3):
            (doubled / kind / f"{i}.png").rename(doubled / "test" / kind / f"held out {i}.png")
    training, validation, _ = gather(doubled, recipe(), Silent())
    assert len(training) + len(validation) == 2 * 7 * 3
    assert len({*training.groups, *validation.groups}) == 2 * 7


def test_copies_are_one_original_of_an_evaluation_and_a_calibration(doubled: Path, tiny_model: Path) -> None:
    model = load_model(tiny_model, "cpu")
    scores = evaluate(model, doubled).scores
    assert (scores.n, scores.groups) == (60, 20)
    _, cells = _gather(model, doubled, Silent())
    assert (len(cells.groups), len(set(cells.groups))) == (60, 20)
