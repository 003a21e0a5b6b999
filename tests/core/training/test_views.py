"""Training cells under other stains: as they are first, few of each class and source, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.augment import AugmentSettings
from napari_bloodcells.core.training.traindata import Cells
from napari_bloodcells.core.training.views import MOST_CELLS, N_VIEWS, even_cells, stained_views


def cells(n: int) -> Cells:
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(60, 235, (n, 3, 80, 80), dtype=torch.uint8, generator=generator)
    groups, sources = np.array([f"cell {i}" for i in range(n)]), np.array(["one", "other"] * (n // 2))
    return Cells(crops, torch.arange(n) % 3, groups, sources, torch.full((n,), 40.0), None)


def test_the_first_view_is_the_cell_as_it_is_and_the_others_differ() -> None:
    model, few = load_model("wbc5", device="cpu"), cells(6)
    views = stained_views(model, few, AugmentSettings())
    assert views.shape == (6, N_VIEWS, model.module.head.in_features)
    assert torch.equal(views[:, 0], model.features_and_logits(few.crops)[0])
    apart = (views[:, 1:] - views[:, :1]).norm(dim=2)
    assert apart.min() > 0.1
    assert torch.equal(views, stained_views(model, few, AugmentSettings()))
    assert stained_views(model, few, None).shape[1] == 1


def test_of_each_class_of_each_source_no_more_than_enough_are_taken() -> None:
    many = Cells(
        torch.zeros(1000, 3, 4, 4, dtype=torch.uint8),
        torch.tensor([0] * 900 + [1] * 100),
        np.array([str(i) for i in range(1000)]),
        np.array(["a"] * 700 + ["b"] * 300),
        torch.ones(1000),
        None,
    )
    few = even_cells(many)
    pairs = [(s, int(label)) for s, label in zip(few.sources, few.labels, strict=True)]
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {
        ("a", 0): MOST_CELLS,
        ("b", 0): MOST_CELLS,
        ("b", 1): 100,
    }
    assert few.groups.tolist() == even_cells(many).groups.tolist()


def test_it_can_be_stopped() -> None:
    class Stopped(Silent):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        stained_views(load_model("wbc5", device="cpu"), cells(4), AugmentSettings(), Stopped())
