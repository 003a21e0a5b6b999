"""The network fitted to few cells: it learns what its last layer cannot, and is given up where it does worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.featurespace import fit_feature_space
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models import build
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.schema import BundleInfo, scheme_info
from napari_bloodcells.core.training import finetune
from napari_bloodcells.core.training.finetune import (
    FineTuneSettings,
    LabeledCells,
    can_be_fitted,
    choose_network,
    fine_tune,
    slides_tell_classes,
)
from napari_bloodcells.core.training.headfit import Head, choose_head

SCHEME = load_scheme("wbc5")
INFO = BundleInfo(
    name="small", arch="stainnet", scheme=scheme_info(SCHEME), crop=CropSpec(), input_size=(80, 80), macs=1_000_000
)
SHORT = FineTuneSettings(steps=40, batch_size=16, lr=3e-3)


def drawn(n: int, seed: int = 0, classes: int = 2) -> LabeledCells:
    """Cells of one stain, lighter and darker, whose class is told by how large their nucleus is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:120, :120] - 60
    distance = np.hypot(rows, columns)
    labels = np.arange(n) % classes
    wide = np.full((n, 3, 120, 120), 235, np.uint8)
    for image, label in zip(wide, labels, strict=True):
        image[:, distance < 28] = rng.uniform(170, 205, 3)[:, None].astype(np.uint8)
        image[:, distance < (8, 20, 14)[label]] = rng.uniform(50, 80, 3)[:, None].astype(np.uint8)
    crops = torch.from_numpy(wide)
    names = np.array([f"cell {seed} {i}" for i in range(n)])
    return LabeledCells(crops[:, :, 20:100, 20:100].contiguous(), crops, torch.full((n,), 56.0), labels, names)


def small_model(space: bool = True) -> Model:
    torch.manual_seed(0)
    module = build("stainnet", len(SCHEME), width=8)
    bare = Model(INFO, module, None)
    cells = drawn(12)
    features, _ = bare.features_and_logits(cells.crops)
    found = fit_feature_space(features, torch.from_numpy(cells.labels), len(SCHEME)) if space else None
    return Model(INFO, module, found)


def right(model: Model, cells: LabeledCells) -> float:
    return float((model.predict(cells.crops).probabilities.argmax(1) == cells.labels).mean())


def views_of(model: Model, cells: LabeledCells) -> np.ndarray[Any, Any]:
    return model.features_and_logits(cells.crops)[0].double().numpy()[:, None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "settings_for", lambda _: SHORT)


def test_the_network_learns_cells_that_it_did_not_see_and_the_old_one_stays():
    model, cells = load_model("default", "cpu"), drawn(16)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    module = fine_tune(model.module, model.info, cells, FineTuneSettings(steps=30, batch_size=16), Silent())
    new = Model(model.info, module, None)
    assert right(model, drawn(40, seed=1)) < 0.7
    assert right(new, drawn(40, seed=1)) > 0.85
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())


def test_cells_of_two_classes_are_not_called_by_a_third_and_no_class_is_learned_away():
    model, cells = load_model("default", "cpu"), drawn(16)
    head = model.module.head
    bias = head.bias.detach().double().numpy() + 3 * np.eye(5)[2]
    biased = model.module.with_head(head.weight.detach().double().numpy(), bias)
    module = fine_tune(biased, model.info, cells, FineTuneSettings(steps=15, batch_size=16), Silent())
    new = Model(model.info, module, None)
    assert right(Model(model.info, biased, None), cells) == 0
    assert right(new, cells) > 0.9
    bare = Model(model.info.model_copy(update={"temperature": 1.0}), module, None)  # as the fit sees it
    assert bare.predict(cells.crops).probabilities[:, 2].max() > 0.01


def test_the_same_cells_give_the_same_network():
    model, cells = small_model(), drawn(8)
    few = replace(SHORT, steps=3)
    one, two = (fine_tune(model.module, INFO, cells, few, Silent()).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_class_without_a_cell_is_not_told_apart_so_its_layer_stays():
    model, cells = small_model(), drawn(8)
    new = fine_tune(model.module, INFO, cells, replace(SHORT, steps=3), Silent())
    assert torch.equal(new.head.weight[2:], model.module.head.weight[2:])
    assert not torch.equal(new.head.weight[:2], model.module.head.weight[:2])


def test_each_cell_is_judged_by_a_network_that_did_not_see_it(quick, monkeypatch):
    """And the classes of the space move to where the cells lie for the new network."""
    seen: list[set[str]] = []

    def noting(module: Any, info: Any, cells: LabeledCells, settings: Any, progress: Any) -> Any:
        seen.append(set(cells.groups.tolist()))
        return fine_tune(module, info, cells, replace(settings, steps=2), progress)

    monkeypatch.setattr(finetune, "fine_tune", noting)
    monkeypatch.setattr(finetune, "_clearly_worse", lambda *_: False)
    model, cells = small_model(), drawn(12)
    views = views_of(model, cells)
    found = choose_network(
        model, cells, views, choose_head(views, cells.labels, cells.groups, Head.of(model.module.head))
    )
    assert found is not None
    *parts, everything = seen
    assert len(parts) == finetune.PARTS
    assert everything == set(cells.groups.tolist())
    assert all(sum(name not in part for part in parts) == 1 for name in everything)
    assert found.logits.shape == (12, len(SCHEME))
    assert found.distance is not None
    assert found.space is not None
    assert model.space is not None
    assert not torch.equal(found.space.means, model.space.means)


def test_a_network_that_does_worse_in_cross_validation_is_given_up(quick, monkeypatch):
    def spoilt(module: Any, *_: Any) -> Any:
        return module.with_head(-module.head.weight.detach().double().numpy(), -module.head.bias.detach().numpy())

    monkeypatch.setattr(finetune, "fine_tune", spoilt)
    model, cells = small_model(space=False), drawn(24)
    views = np.random.default_rng(0).normal(size=(24, 1, 32)) + 5 * np.eye(2, 32)[cells.labels][:, None]
    fitted = choose_head(views, cells.labels, cells.groups, Head(np.eye(5, 32), np.zeros(5)))
    assert (fitted.logits.argmax(1) == cells.labels).mean() > 0.9
    assert choose_network(model, cells, views, fitted) is None


def test_a_bundle_without_a_space_gets_none(quick, monkeypatch):
    monkeypatch.setattr(finetune, "_clearly_worse", lambda *_: False)
    monkeypatch.setattr(finetune, "settings_for", lambda _: replace(SHORT, steps=2))
    model, cells = small_model(space=False), drawn(8)
    views = views_of(model, cells)
    found = choose_network(
        model, cells, views, choose_head(views, cells.labels, cells.groups, Head.of(model.module.head))
    )
    assert found is not None
    assert found.space is None
    assert found.distance is None


@pytest.mark.parametrize(
    ("update", "n", "fits"),
    [
        ({}, 20, True),
        ({}, 19, False),
        ({"macs": 15_000_000_000}, 100, False),  # VGG16: minutes a step
        ({"macs": 0, "options": {"width": 512}}, 100, False),  # a bundle that does not say it
        ({"crop": CropSpec(scale="image")}, 100, False),  # trained on pictures as a whole
    ],
)
def test_only_small_networks_that_see_cells_at_a_scale_are_fitted_to_enough_cells(update, n, fits):
    model = Model(INFO.model_copy(update=update), small_model(space=False).module, None)
    labels, groups = np.arange(n) % 4, np.array([f"cell {i}" for i in range(n)])
    assert can_be_fitted(model, labels, groups) is fits
    assert not can_be_fitted(
        model, labels, np.array([f"slide {label}" for label in labels])
    )  # it would learn the slides


def test_a_few_classes_of_one_slide_are_no_reason_to_leave_the_network() -> None:
    labels = np.repeat(np.arange(5), 4)
    groups = np.array([f"cell {i}" for i in range(20)])
    for n_alone, told in ((0, False), (1, False), (2, False), (3, True), (5, True)):
        of_slides = np.where(labels < n_alone, "slide of " + labels.astype(str).astype(object), groups.astype(object))
        assert slides_tell_classes(labels, of_slides.astype(str)) is told


def test_it_stops_when_asked_to():
    class Stopped(Silent):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        fine_tune(small_model().module, INFO, drawn(8), SHORT, Stopped())


def test_cells_are_taken_with_all_that_belongs_to_them():
    cells = drawn(6)
    few = cells.take(np.array([True, False, False, True, False, False]))
    parts: list[Tensor] = [few.crops, few.wide, few.extent]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert few.groups.tolist() == ["cell 0 0", "cell 0 3"]
