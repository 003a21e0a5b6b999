"""Shape of cells and nuclei, and the last layer that listens to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.augment import AugmentSettings
from napari_bloodcells.core.training.finish import finish_bundle
from napari_bloodcells.core.training.headfit import Head
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.shape import MEASURES, _ridge, listen_to_shape, measure_shapes, shape_head
from napari_bloodcells.core.training.traindata import Cells
from napari_bloodcells.core.training.trainer import Trainer
from napari_bloodcells.core.training.views import stained_views

Y, X = np.mgrid[:80, :80] - 39.5


def cell(radius: float, nucleus: np.ndarray, dark: tuple[int, int, int] = (90, 60, 150)) -> np.ndarray:
    """A disk of cytoplasm with a nucleus: (3, 80, 80) uint8."""
    crop = np.full((80, 80, 3), 235, np.uint8)
    crop[np.hypot(X, Y) < radius] = (210, 190, 215)
    crop[nucleus] = dark
    return crop.transpose(2, 0, 1)


def disk(radius: float, x: float = 0, y: float = 0) -> np.ndarray:
    return np.asarray(np.hypot(X - x, Y - y) < radius)


def measured(crop: np.ndarray, radius: float) -> dict[str, float]:
    row = measure_shapes(crop[None], np.array([2 * radius]), 4.0)[0]
    return dict(zip(MEASURES, row.tolist(), strict=True))


LOBES = disk(7, -9) | disk(7, 9) | disk(7, 0, 12)


def test_a_round_nucleus_and_a_lobed_one_are_told_apart() -> None:
    lymphocyte, neutrophil = measured(cell(20, disk(17)), 20), measured(cell(28, LOBES), 28)
    assert lymphocyte["lobes"] == 1
    assert neutrophil["lobes"] == 3
    assert lymphocyte["solidity"] > 0.95 > 0.8 > neutrophil["solidity"]
    assert lymphocyte["nucleus to cell"] > neutrophil["nucleus to cell"] + 0.3
    assert lymphocyte["roughness"] < 0.25 < neutrophil["roughness"]


def test_sizes_are_in_micrometers() -> None:
    found = measured(cell(24, disk(12)), 24)
    assert np.exp(found["cell size"]) == pytest.approx(12, rel=0.01)
    assert np.exp(found["nucleus size"]) == pytest.approx(np.sqrt(np.pi) * 3, rel=0.08)
    again = measure_shapes(cell(24, disk(12))[None], np.array([48.0]), 8.0)[0]
    assert np.exp(again[MEASURES.index("nucleus size")]) == pytest.approx(np.exp(found["nucleus size"]) / 2)


@pytest.mark.parametrize("stain", [0.5, 1.6])
def test_another_strength_of_the_stain_changes_little(stain: float) -> None:
    crop = cell(26, LOBES)
    paler = (235 * (crop / 235.0) ** stain).round().astype(np.uint8)
    one, other = measured(crop, 26), measured(paler, 26)
    for name in ("solidity", "nucleus to cell", "nucleus size", "lobes", "thickness", "cytoplasm's darkness"):
        assert one[name] == pytest.approx(other[name], abs=0.12), name


def test_an_empty_crop_has_no_shape() -> None:
    empty = np.full((2, 3, 80, 80), 235, np.uint8)
    empty[1] = 0
    assert np.isnan(measure_shapes(empty, np.array([50.0, 50.0]), 4.0)[0]).all()


def test_shape_holds_where_color_leads_astray() -> None:
    """Color tells the class in the training and the contrary afterwards; shape says the same in both."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    shape = labels + rng.normal(0, 0.3, 400)
    color = labels + rng.normal(0, 0.1, 400)
    features = np.stack([shape, color], 1)
    trusting = Head(np.array([[0.0, -4.0], [0.0, 4.0]]), np.array([2.0, -2.0]))
    heard = listen_to_shape(trusting, features[:, None], shape[:, None], labels, share=3.0)
    elsewhere = np.stack([shape, 1 - labels * 0.4], 1)

    def right(head: Head) -> float:
        return float((head.logits(elsewhere).argmax(1) == labels).mean())

    assert right(trusting) < 0.6
    assert right(heard) > right(trusting) + 0.2
    nothing = listen_to_shape(trusting, features[:, None], shape[:, None], labels, share=0.0)
    assert np.allclose(nothing.weight, trusting.weight)
    assert np.allclose(nothing.bias, trusting.bias)


def test_cells_without_a_shape_and_classes_without_a_cell_are_left_alone() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 50)
    views = rng.normal(0, 1, (100, 2, 4)) + labels[:, None, None]
    shapes = labels[:, None] + rng.normal(0, 0.2, (100, 2))
    shapes[::7] = np.nan
    old = Head(np.zeros((3, 4)), np.zeros(3))
    heard = listen_to_shape(old, views, shapes, labels)
    assert np.isfinite(heard.weight).all()
    assert np.allclose(heard.weight[2], 0)
    assert heard.bias[2] == 0


def drawn_cells(n: int) -> Cells:
    """Round nuclei and lobed ones in turn."""
    crops = torch.from_numpy(np.stack([cell(20, disk(17)), cell(28, LOBES)] * (n // 2)))
    groups = np.array([f"cell {i}" for i in range(n)])
    sources, extent = np.array(["drawn"] * n), torch.tensor([40.0, 56.0]).repeat(n // 2)
    return Cells(crops, torch.arange(2).repeat(n // 2), groups, sources, extent, crops)


def test_the_layer_of_a_model_is_the_same_each_time_and_another() -> None:
    model = load_model("wbc4", device="cpu")
    cells = drawn_cells(20)
    one, two = (shape_head(model, cells, stained_views(model, cells, AugmentSettings()), 1.0) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert not np.allclose(one.weight, Head.of(model.module.head).weight)


@pytest.mark.parametrize("augment", ["stain", "none"])
def test_a_recipe_asks_for_it(augment: str) -> None:
    values = {"scheme": "wbc4", "augment": augment, "batch_size": 8, "epochs": 1}

    def finished(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = Recipe("mine", "stainnet").with_overrides({**values, "shape": share})
        trainer = Trainer(recipe, drawn_cells(24), drawn_cells(8), 4, torch.device("cpu"))
        trainer.run_epoch(Silent(), lambda: None)
        module, info, _, _ = finish_bundle(trainer, load_scheme("wbc4"), Silent())
        assert info.recipe is not None
        assert info.recipe["shape"] == share
        return module.head.weight.detach(), module.body.stem[0].weight.detach()

    (plain, body), (heard, same_body) = finished(0.0), finished(1.0)
    assert torch.equal(body, same_body)
    assert not torch.allclose(plain[:2], heard[:2])
    assert torch.allclose(plain[2:], 2 * heard[2:])  # of these classes no cell was there


def test_a_feature_that_is_hardly_ever_there_gets_no_great_weight() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 300)
    shape = labels[:, None] + rng.normal(0, 0.2, (300, 1))
    rare = np.where(rng.random((300, 1)) < 0.02, 1e-6 * labels[:, None], 0.0)
    views = np.concatenate([shape, rng.normal(0, 1, (300, 2)), rare], 1)[:, None]
    heard = listen_to_shape(Head(np.zeros((2, 4)), np.zeros(2)), views, shape, labels)
    assert np.abs(heard.weight).max() < 100  # in 16 bits 65,504 is the end
    assert np.abs(heard.weight[:, 3]).max() < np.abs(heard.weight[:, 0]).max()


def test_nothing_changes_where_no_shape_could_be_measured() -> None:
    old = Head(np.ones((2, 3)), np.ones(2))
    unknown = np.full((8, 13), np.nan)
    assert listen_to_shape(old, np.zeros((8, 1, 3)), unknown, np.arange(8) % 2) is old


def test_the_map_is_the_same_in_both_forms() -> None:
    rng = np.random.default_rng(3)
    x, target = rng.normal(0, 1, (40, 39)), rng.normal(0, 1, (40, 2))
    wider = np.concatenate([x, np.zeros((40, 20))], 1)  # more features than cells, the last of them empty
    assert np.allclose(_ridge(wider, target)[:39], _ridge(x, target))
