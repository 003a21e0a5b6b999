"""Recipes: each shipped one reads, every field can be replaced, what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.models import architecture, architecture_names
from napari_bloodcells.core.training.recipe import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_fits_its_network(name: str) -> None:
    recipe = load_recipe(name)
    found = architecture(recipe.arch)
    assert set(recipe.options) <= set(found.options)
    assert recipe.crop.size >= max(found.input_size) or recipe.crop.scale == "um"
    assert recipe.name == name
    assert recipe.description


def test_each_published_network_has_a_recipe_of_its_name() -> None:
    assert set(architecture_names()) - {"stainnet"} <= set(recipe_names())


# name, input of the crop, scale, optimizer, classes: as in the publications
PUBLISHED = [
    ("cnn6", 200, "image", "adam", "wbc4"),
    ("cnn4bn", 320, "image", "sgd", "wbc4"),
    ("cnn4", 128, "image", "adam", "pbc8"),
    ("cnn5bn", 128, "image", "adam", "pbc8"),
    ("cnn3", 50, "box", "adam", "wbc5"),
    ("vgg16", 224, "image", "adam", "pbc8"),
]


@pytest.mark.parametrize(("name", "size", "scale", "optimizer", "scheme"), PUBLISHED)
def test_the_published_settings_are_those_of_the_study(
    name: str, size: int, scale: str, optimizer: str, scheme: str
) -> None:
    recipe = load_recipe(name)
    assert (recipe.crop.size, recipe.crop.scale, recipe.optimizer.name, recipe.scheme) == (
        size,
        scale,
        optimizer,
        scheme,
    )
    assert not recipe.crop.white


def test_the_transfer_studies_freeze_the_convolutions() -> None:
    assert load_recipe("vgg16").options["mode"] == "frozen"
    assert load_recipe("vgg16-finetune").options["mode"] == "finetune"
    assert load_recipe("cnn5bn").optimizer.l1 > 0


OVERRIDES: list[tuple[dict[str, Any], str, Any]] = [
    ({"epochs": 7}, "epochs", 7),
    ({"epochs": "7"}, "epochs", 7),
    ({"optimizer.lr": "1e-4"}, "optimizer.lr", 1e-4),
    ({"schedule.name": "cosine"}, "schedule.name", "cosine"),
    ({"crop.white": "true"}, "crop.white", True),
    ({"crop.white": "no"}, "crop.white", False),
    ({"input.mean": "0.1,0.2,0.3"}, "input.mean", (0.1, 0.2, 0.3)),
    ({"input.std": [1, 2, 3]}, "input.std", (1.0, 2.0, 3.0)),
    ({"options.norm": "group"}, "options.norm", "group"),
    ({"options.width": "32"}, "options.width", 32),
    ({"stain.ground": 0.1}, "stain.ground", 0.1),
]


@pytest.mark.parametrize(("overrides", "key", "value"), OVERRIDES)
def test_a_field_can_be_replaced(overrides: dict[str, Any], key: str, value: Any) -> None:
    before = load_recipe("cnn6")
    after = before.with_overrides(overrides)
    assert after.flat()[key] == value
    changed = {k for k in after.flat() if before.flat().get(k) != after.flat()[k]}
    assert changed <= {key}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 3}, "unknown setting 'epoch'; there are .*epochs"),
    ({"optimizer.rate": 3}, "optimizer: unknown setting 'rate'"),
    ({"epochs": "many"}, "epochs must be a whole number, not 'many'"),
    ({"epochs": 2.5}, "epochs must be a whole number"),
    ({"epochs": True}, "epochs must be a whole number"),
    ({"optimizer.lr": "fast"}, "lr must be a number"),
    ({"optimizer.lr": "nan"}, "optimizer.lr must be"),
    ({"optimizer.lr": 0}, "optimizer.lr must be"),
    ({"optimizer.momentum": -0.1}, "optimizer.momentum must be 0 to 1, not -0.1"),
    ({"optimizer.weight_decay": -1}, "optimizer.weight_decay must be 0 to 1000, not -1"),
    ({"optimizer.l1": -1}, "optimizer.l1 must be"),
    ({"optimizer.clip": -1}, "optimizer.clip must be"),
    ({"schedule.factor": 1.5}, "schedule.factor must be 0 to 0.999, not 1.5"),
    ({"schedule.patience": -1}, "schedule.patience must be"),
    ({"schedule.min_lr": -1}, "schedule.min_lr must be"),
    ({"schedule.warmup": 2}, "schedule.warmup must be"),
    ({"optimizer.name": "lion"}, "must be one of sgd, adam"),
    ({"optimizer": 3}, "optimizer is a section"),
    ({"crop.size": 4}, "crop.size must be 8 to 1024"),
    ({"crop.scale": "mm"}, "must be one of um, box, image"),
    ({"crop.white": "maybe"}, "true or false"),
    ({"input.mean": "0.5"}, "needs 3 numbers"),
    ({"batch_size": 0}, "batch_size must be 1"),
    ({"val_fraction": 1}, "val_fraction must be"),
    ({"seed": -1}, "seed must be"),
    ({"epochs": 0, "patience": 0}, "nothing would stop it"),
]


@pytest.mark.parametrize(("overrides", "words"), WRONG)
def test_a_wrong_setting_is_named(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_recipe("cnn6").with_overrides(overrides)


FILES = [
    ("arch = 3", "a recipe needs arch"),
    ("x = ", "is no TOML"),
    ("epochs = 3", "a recipe needs arch"),
    ('arch = "cnn3"\nlr = 0.1', "unknown setting 'lr'"),
    ('arch = "cnn3"\n[crop]\nsides = 3', "crop: unknown setting 'sides'"),
]


@pytest.mark.parametrize(("text", "words"), FILES)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(tmp_path / "mine.toml")
    assert "mine" in str(caught.value)


def test_a_recipe_of_ones_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('arch = "cnn3"\nepochs = 5\n[optimizer]\nlr = 0.5\n')
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.name, recipe.arch, recipe.epochs, recipe.optimizer.lr) == ("mine", "cnn3", 5, 0.5)


def test_an_unknown_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="cnn3, cnn4"):
        load_recipe("resnet")


@pytest.mark.parametrize("name", recipe_names())
def test_what_a_bundle_keeps_of_a_recipe_gives_it_again(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe(recipe.name, recipe.arch).with_overrides(recipe.flat()) == recipe
