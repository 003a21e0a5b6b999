"""One training: its optimizers, its clock, its limits; what of a recipe reaches the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.errors import DataSetError, UsageError
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train
from napari_bloodcells.core.training.augment import _compress, _Draw, _shares
from napari_bloodcells.core.training.checkpoint import load_checkpoint, save_checkpoint
from napari_bloodcells.core.training.finish import _describe, finish_bundle
from napari_bloodcells.core.training.history import Epoch
from napari_bloodcells.core.training.plots import plot_history
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.traindata import Cells, gather
from napari_bloodcells.core.training.trainer import Trainer, _make_optimizer

QUICK: dict[str, Any] = {"scheme": "wbc4", "crop.size": 16, "batch_size": 8, "epochs": 2, "precision": "float32"}


def some_cells(n: int = 24) -> Cells:
    """Gray squares of two classes, one dark and one light."""
    labels = torch.arange(n) % 2
    crops = (40 + 150 * labels)[:, None, None, None].expand(n, 3, 16, 16).to(torch.uint8).contiguous()
    names = np.array([f"g{i}" for i in range(n)])
    return Cells(crops, labels, names, np.array(["drawn"] * n), torch.full((n,), 12.0))


def trainer_of(**changes: Any) -> Trainer:
    values = {**QUICK, **{name.replace("__", "."): value for name, value in changes.items()}}
    return Trainer(Recipe("r", "cnn3").with_overrides(values), some_cells(), some_cells(8), 4, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_a_recipe_names_its_optimizer(name: str, kind: type) -> None:
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    values = {"optimizer.name": name, "optimizer.lr": 0.02, "optimizer.weight_decay": 0.01}
    made = _make_optimizer(module, Recipe("r", "cnn3").with_overrides(values))
    assert type(made) is kind
    group = made.param_groups[0]
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.02, 0.01, 1)


def test_long_gradients_are_clipped() -> None:
    norms = {}
    for clip in (0.0, 1e-4):
        made = trainer_of(optimizer__clip=clip, optimizer__name="sgd", optimizer__momentum=0.0, optimizer__lr=1.0)
        before = [p.detach().clone() for p in made.module.parameters()]
        made._step(torch.arange(8))
        moved = [(p.detach() - b).square().sum() for p, b in zip(made.module.parameters(), before, strict=True)]
        norms[clip] = float(torch.stack(moved).sum().sqrt())
    assert norms[1e-4] == pytest.approx(1e-4, rel=0.01)
    assert norms[0.0] > 1e-3


def test_a_training_ends_when_its_minutes_are_over() -> None:
    made = trainer_of(epochs=0, max_minutes=0.5)
    assert not made.finished()
    made.now.seconds = 31.0
    assert not made.finished()  # not one epoch yet
    made.run_epoch(Silent(), lambda: None)
    assert made.now.epoch == 1
    assert made.finished()
    assert made.now.updates <= 1  # the epoch was broken off


def test_the_rate_follows_the_clock_where_minutes_are_set() -> None:
    made = trainer_of(epochs=0, max_minutes=1, schedule__name="cosine", schedule__warmup=0.0, schedule__min_lr=0.0)
    top = made._set_rate()
    made.now.seconds = 30.0
    assert made._set_rate() == pytest.approx(top / 2, rel=0.01)
    made.now.seconds = 600.0
    assert made._set_rate() == pytest.approx(0.0, abs=1e-9)


def test_the_average_of_weights_takes_over_the_statistics() -> None:
    values = {**QUICK, "ema": 0.9}
    made = Trainer(Recipe("r", "cnn4bn").with_overrides(values), some_cells(), some_cells(8), 4, torch.device("cpu"))
    made._step(torch.arange(8))
    assert made.average is not None
    found = dict(made.average.named_buffers())
    assert any(name.endswith("running_mean") for name in found)
    for name, latest in made.module.named_buffers():
        assert torch.equal(found[name], latest)


def test_cells_beyond_a_distance_are_left_unidentified() -> None:
    made = trainer_of(max_distance=1.5)
    made.run_epoch(Silent(), lambda: None)
    _, info, _, space = finish_bundle(made, load_scheme("wbc4"), Silent())
    assert info.max_distance is not None
    assert info.max_distance > 0
    _, open_info, _, _ = finish_bundle(trainer_of(max_distance=0.0), load_scheme("wbc4"), Silent())
    assert open_info.max_distance is None
    assert space.whiten.shape[0] == made.module.head.in_features


def test_a_bundle_does_not_ask_for_the_weights_it_began_with() -> None:
    made = trainer_of()
    recipe = Recipe("r", "vgg16").with_overrides({"options.weights": "imagenet", "options.mode": "finetune"})
    info = _describe(recipe, made.training, load_scheme("wbc4"))
    assert info.options["weights"] == "none"
    assert info.options["mode"] == "finetune"


def test_a_resumed_optimizer_is_laid_out_as_one_that_never_stopped(tmp_path: Path) -> None:
    made, again = trainer_of(), trainer_of()
    made._step(torch.arange(8))
    save_checkpoint(tmp_path / "checkpoint", made.state())
    again.restore(load_checkpoint(tmp_path / "checkpoint"))
    states = [[t for s in m.optimizer.state.values() for t in s.values()] for m in (made, again)]
    assert any(t.ndim == 4 and not t.is_contiguous() for t in states[0])
    assert [t.stride() for t in states[0]] == [t.stride() for t in states[1]]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("smaller", [28, 37, 40, 67, 80])
def test_fewer_pixels_are_the_same_by_matrices_as_by_pooling(smaller: int) -> None:
    images, rows = torch.rand(2, 3, 80, 80), _shares(80, smaller)
    pooled = torch.nn.functional.interpolate(images, (smaller, smaller), mode="area")
    torch.testing.assert_close(rows @ images @ rows.T, pooled)


def test_pictures_of_no_whole_blocks_are_not_compressed() -> None:
    draw = _Draw(torch.Generator().manual_seed(0), 2, torch.device("cpu"))
    images = torch.rand(2, 3, 12, 16)
    assert _compress(images, draw) is images
    blocks = torch.rand(2, 3, 16, 16)
    assert not torch.equal(_compress(blocks, draw), blocks)


def test_a_history_without_a_kept_epoch_is_drawn(tmp_path: Path) -> None:
    row = Epoch(1, 1.0, 0.5, 1.1, 0.4, 0.4, 1e-3, 2.0, False)
    plot_history(tmp_path / "h.png", [row])
    assert (tmp_path / "h.png").stat().st_size > 1000


def test_a_recipe_that_was_made_in_a_program_is_taken_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no data were given"):
        train([], Recipe("mine", "cnn3"), tmp_path / "m")
    with pytest.raises(UsageError, match="no such recipe"):
        train([], "unheard-of", tmp_path / "m")


def test_cells_of_other_classes_are_nothing_to_train_on(tmp_path: Path) -> None:
    for kind in ("platelet", "erythroblast"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            Image.new("RGB", (20, 20), (200, 20 * i, 60)).save(tmp_path / kind / f"{i}.png")
    with pytest.raises(DataSetError, match="no labeled cell of the classes neutrophil"):
        gather(tmp_path, Recipe("r", "cnn3").with_overrides(QUICK), Silent())
