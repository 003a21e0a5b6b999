"""What a bundle says of a training: a legitimate setting is kept, what cannot be kept is refused at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.bundleinfo import read_info
from napari_bloodcells.core.classes import ClassScheme, load_scheme, parse_scheme
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.train import train
from napari_bloodcells.core.training.finish import check_describable
from napari_bloodcells.core.training.recipe import Recipe, load_recipe
from napari_bloodcells.core.training.traindata import Cells

RECIPE = Recipe("r", "cnn3", epochs=1)
TINY: dict[str, Any] = {"crop.size": 16, "crop.scale": "image", "crop.white": False, "epochs": 1, "val_fraction": 0.4}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two class folders of four images."""
    rng = np.random.default_rng(0)
    for name in ("neutrophil", "monocyte"):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
            image.save(tmp_path / "cells" / name / f"{i}.png")
    return tmp_path / "cells"


def cells(sources: list[str]) -> Cells:
    """One neutrophil of each source."""
    n = len(sources)
    names = np.array(sources)
    return Cells(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64), names, names, None)  # type: ignore[arg-type]


def check(recipe: Recipe = RECIPE, sources: list[str] | None = None, scheme: ClassScheme | None = None) -> None:
    both = cells(sources or ["a"])
    check_describable(recipe, both, both, scheme or load_scheme("wbc5"))


@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
@pytest.mark.parametrize("seed", [20260101, 2**63 - 1])
def test_a_seed_of_63_bits_is_kept(folder: Path, tmp_path: Path, seed: int) -> None:
    train(folder, "cnn3", tmp_path / "m", overrides={**TINY, "seed": seed})
    found = read_info(tmp_path / "m")
    assert found.seed == found.recipe["seed"] == seed


@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
def test_a_recipe_may_be_called_as_files_are(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mein rezept.toml"
    file.write_text(
        'arch = "cnn3"\nepochs = 1\nval_fraction = 0.4\n[crop]\nsize = 16\nscale = "image"\nwhite = false\n'
    )
    train(folder, file, tmp_path / "m")
    found = read_info(tmp_path / "m")
    assert (found.name, found.recipe["name"]) == ("mein-rezept", "mein rezept")


NAMES = [
    ("wbc5", "wbc5"),
    ("Rezept f\u00fcr Blut (2)", "Rezept-fur-Blut-2"),
    ("../../etc", "etc"),
    ("\u9aa8\u9ad3", "cnn3"),
]


@pytest.mark.parametrize(("name", "wanted"), NAMES)
def test_a_model_has_a_name_that_may_become_a_folder(name: str, wanted: str) -> None:
    from napari_bloodcells.core.training.finish import _describe

    assert _describe(replace(RECIPE, name=name), cells(["a"]), load_scheme("wbc5")).name == wanted


def test_what_a_recipe_may_say_a_bundle_takes() -> None:
    settings = {"sampler.epoch_cells": 10**9, "max_minutes": 1e6, "epochs": 10**6, "max_distance": 1e9}
    check(RECIPE.with_overrides({**settings, "description": "d" * 4000, "crop.side_um": 1000, "crop.context": 20}))


def test_a_thousand_data_folders_are_kept() -> None:
    check(sources=[f"folder {i}" for i in range(1000)])


def test_what_a_bundle_cannot_take_is_refused_in_one_line() -> None:
    long = parse_scheme({"name": "mine", "classes": ["neutrophil", "x" * 65]}, "mine.json")
    many = parse_scheme({"name": "mine", "classes": [f"type {i}" for i in range(64)]}, "mine.json")
    for wanted, change in (
        (r"name 'x{40}': String should have at most 64", {"scheme": long}),
        (r"training: Tuple should have at most 1000", {"sources": [f"folder {i}" for i in range(1001)]}),
        (r"source 'f{40}': String should have at most 200", {"sources": ["f" * 201]}),
        (r"999 data folders and 64 classes", {"sources": [f"folder {i}" for i in range(999)], "scheme": many}),
        (r"std.0 .0.0.: Input should be greater", {"recipe": RECIPE.with_overrides({"input.std": "0,1,1"})}),
        (r"no option width", {"recipe": RECIPE.with_overrides({"options.width": 3})}),
    ):
        with pytest.raises(UsageError, match=wanted) as caught:
            check(**change)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
def test_a_refused_training_leaves_its_folder_free(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="could not be kept"):
        train(folder, "cnn3", tmp_path / "m", overrides={**TINY, "input.std": "0,1,1"})
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize("key", ["crop.side_um", "crop.context", "min_confidence", "max_distance"])
def test_a_recipe_refuses_what_no_bundle_takes(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} must be 0 to"):
        load_recipe("cnn3").with_overrides({key: 5e9})
