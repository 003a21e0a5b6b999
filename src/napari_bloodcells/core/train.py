"""Training: labeled photographs and a recipe in, a model bundle with its report out.

``train`` makes one folder: the bundle (``model.safetensors``, ``model.json``), ``history.csv``, ``history.png``,
``confusion_matrix.png``, ``report.json``, and what a later ``resume`` needs (``checkpoint.safetensors``,
``training.json``).  Every file is replaced whole, so a run that is killed leaves a folder that can be resumed.

``torchrun`` starts it in several processes, one a GPU (``training/group.py``); the first of them writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_bloodcells import __version__
from napari_bloodcells.core.bundle import read_info, save_bundle
from napari_bloodcells.core.classes import ClassScheme
from napari_bloodcells.core.counting.runlock import LOCK_NAME, RunLock
from napari_bloodcells.core.datasets import Data
from napari_bloodcells.core.devices import repeatable
from napari_bloodcells.core.errors import BundleError, Cancelled, DataSetError, OutputError, UsageError
from napari_bloodcells.core.files import PART, kept_for_resume, make_folder, write_atomic
from napari_bloodcells.core.progress import Progress, Silent
from napari_bloodcells.core.schema import BundleInfo
from napari_bloodcells.core.statistics.metrics import Scores
from napari_bloodcells.core.training.checkpoint import load_checkpoint, save_checkpoint
from napari_bloodcells.core.training.finish import check_describable, finish_bundle
from napari_bloodcells.core.training.group import SharedProgress, joined
from napari_bloodcells.core.training.history import Epoch, write_history
from napari_bloodcells.core.training.plots import plot_confusion, plot_history
from napari_bloodcells.core.training.recipe import Recipe, load_recipe
from napari_bloodcells.core.training.traindata import Cells, gather
from napari_bloodcells.core.training.trainer import TASK, Trainer

CHECKPOINT, SETTINGS = "checkpoint.safetensors", "training.json"
CHECKPOINT_SECONDS = 60.0
_MAY_CHANGE = {"epochs", "max_minutes", "patience", "name", "description", "license", "min_confidence", "max_distance"}
"""What a resumed training may have otherwise than it began: when it stops, and what is said of the result."""


@dataclass(frozen=True)
class TrainResult:
    """What a training gave.

    Attributes
    ----------
    output : Path
        The folder; it is the model's bundle, for ``load_model`` and ``--model``.
    info : BundleInfo
        The model's metadata.
    scores : Scores
        On the validation cells, by the network and the temperature that were kept.
    history : tuple of Epoch
    """

    output: Path
    info: BundleInfo
    scores: Scores
    history: tuple[Epoch, ...]


def train(
    data: Data,
    recipe: str | Path | Recipe | None = None,
    output: str | Path = "model",
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a classifier.

    Parameters
    ----------
    data : folder, DataSet, or a list of them
        What ``load_dataset`` understands: class folders, VOC with labels.csv, YOLO text, tables.
    recipe : str, Path or Recipe, optional
        Name (``recipe_names``), TOML file, or the object.  None is the default model's, or on ``resume`` that of
        the training in ``output``.
    output : path
        A new or empty folder.
    resume : bool
        Go on with the training in ``output``, from its last checkpoint; the result is that of one undisturbed run.
        Begins anew where ``output`` has none yet.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    progress : Progress, optional
        Told of each step; may cancel.
    overrides : mapping, optional
        Fields of the recipe to replace, such as ``{"epochs": 3, "optimizer.lr": 1e-3}``.

    Returns
    -------
    TrainResult

    Raises
    ------
    OutputError
        If ``output`` holds something else, or a training with another recipe or other data.
    DataSetError, UsageError, WeightsError
        For data, settings or pretrained weights that cannot be used.
    Cancelled
        If ``progress`` said so; the checkpoint is kept.
    PeerEnded
        In a training of several processes, where another one of them has ended.

    Examples
    --------
    >>> result = train("pbc", "cnn4", "my-model", overrides={"epochs": 5})     # doctest: +SKIP
    >>> result.scores["balanced_accuracy"].value                               # doctest: +SKIP
    0.91
    """
    import torch

    progress, place = progress or Silent(), Path(output)
    with joined(device) as (group, target):
        before = group.of_first(lambda: _settings_of(place, resume))
        chosen = group.of_first(lambda: _choose(recipe, before).with_overrides(overrides or {}))
        if chosen.batch_size < group.size:
            raise UsageError(f"batches of {chosen.batch_size} cells cannot be shared by {group.size} processes.")
        if chosen.arch == "vgg16" and chosen.options.get("weights") == "imagenet":
            from napari_bloodcells.core.models.vgg16 import fetch_imagenet

            group.first_then_others(lambda: fetch_imagenet(progress))
        with ExitStack() as stack:
            lock = None
            if group.first:
                make_folder(place)
                lock = stack.enter_context(RunLock(place))
            stack.enter_context(torch.random.fork_rng(_cuda_devices(target)))
            stack.enter_context(repeatable(target))
            training, validation, scheme = group.first_then_others(lambda: gather(data, chosen, progress))
            check_describable(chosen, training, validation, scheme)
            settings = _describe(chosen, training, validation)
            if settings != group.of_first(lambda: settings):
                raise DataSetError("the processes of this training see other images or labels; give all the same data.")
            if before:
                group.of_first(lambda: _check_same(before, settings, place))
            stack.enter_context(kept_for_resume())
            if group.first:
                write_atomic(place / SETTINGS, _json(settings), overwrite=True)
            trainer = Trainer(chosen, training, validation, len(scheme.names), target, group)
            if before:
                _restore(trainer, place)
            _run(trainer, place, progress, lock)
            return group.of_first(lambda: _finish(trainer, scheme, place, progress))


def _run(trainer: Trainer, place: Path, progress: Progress, lock: RunLock | None) -> None:
    """Epoch after epoch until the recipe is satisfied, with a checkpoint after each and once a minute.

    Of several processes the first holds the lock and writes; they stop together.
    """
    progress = SharedProgress(progress, trainer.group) if trainer.group.size > 1 else progress
    saved = time.monotonic()
    epochs, now = trainer.recipe.epochs, trainer.now
    progress.start(TASK, epochs * trainer.steps if epochs and not trainer.recipe.max_minutes else None)
    progress.advance(TASK, now.epoch * trainer.steps + now.step)

    def keep(after: float = CHECKPOINT_SECONDS) -> None:
        nonlocal saved
        if lock is not None and time.monotonic() - saved >= after:
            save_checkpoint(place / CHECKPOINT, trainer.state())
            lock.renew()
            saved = time.monotonic()

    try:
        while not trainer.finished():
            row = trainer.run_epoch(progress, keep)
            progress.advance(TASK, 0, epoch=row.epoch, val_loss=row.val_loss, val_accuracy=row.val_accuracy)
            keep(after=0)
            if lock is not None:
                write_history(place / "history.csv", _epochs(trainer))
    except Cancelled:
        keep(after=0)
        done = trainer.now.epoch
        raise Cancelled(f"Stopped in epoch {done + 1}; go on from there with --resume -o {place}.") from None


def _finish(trainer: Trainer, scheme: ClassScheme, place: Path, progress: Progress) -> TrainResult:
    history = _epochs(trainer)
    module, info, scores, space = finish_bundle(trainer, scheme, progress)
    info = info.model_copy(update={"version": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")})
    info = read_info(save_bundle(place, module, info, space=space, overwrite=True))
    write_history(place / "history.csv", history)
    plot_history(place / "history.png", history)
    plot_confusion(place / "confusion_matrix.png", scores.confusion, scores.names)
    write_atomic(place / "report.json", _json(report(scores, info)), overwrite=True)
    return TrainResult(place, info, scores, history)


def report(scores: Scores, info: BundleInfo) -> dict[str, Any]:
    """The classification report as plain values: figures with intervals, by class, and the confusion matrix."""
    return {
        "model": info.name,
        "sha256": info.sha256,
        "cells": scores.n,
        "original_cells": scores.groups,
        **scores.to_dict(),
        "training": [source.model_dump() for source in info.training],
        "recipe": info.recipe,
    }


def _settings_of(place: Path, resume: bool) -> dict[str, Any] | None:
    """What the training in ``place`` began with; None where there is none to go on with."""
    if place.exists() and not place.is_dir():
        raise OutputError(f"{place}: is a file; give a folder for the model with -o.")
    there = (
        sorted(p.name for p in place.iterdir() if not p.name.startswith((LOCK_NAME, PART))) if place.is_dir() else []
    )
    if not there:
        return None
    if SETTINGS not in there:
        raise OutputError(
            f"{place}: holds something else ({there[0]}), which is left alone; give a new folder with -o."
        )
    if not resume:
        raise OutputError(
            f"{place}: holds a training already; go on with it by --resume, or give a new folder with -o."
        )
    try:
        found: dict[str, Any] = json.loads((place / SETTINGS).read_text("utf-8"))
        return {"recipe": dict(found["recipe"]), "data": dict(found["data"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{place / SETTINGS}: cannot be read ({error}); start anew in another folder.") from None


def _choose(recipe: str | Path | Recipe | None, before: dict[str, Any] | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None and before:
        values = before["recipe"]
        return Recipe(str(values["name"]), str(values["arch"])).with_overrides(values)
    return load_recipe("default" if recipe is None else recipe)


def _describe(recipe: Recipe, training: Cells, validation: Cells) -> dict[str, Any]:
    data = {"training": training.fingerprint(), "validation": validation.fingerprint()}
    return {"recipe": recipe.flat(), "data": data, "cells": {"training": len(training), "validation": len(validation)}}


def _check_same(before: dict[str, Any], now: dict[str, Any], place: Path) -> None:
    old, new = before["recipe"], json.loads(_json(now["recipe"]))
    for key in sorted(set(old) | set(new)):
        if key not in _MAY_CHANGE and old.get(key) != new.get(key):
            raise OutputError(
                f"{place}: began with {key} = {old.get(key)}, not {new.get(key)}; resume it as it began, "
                "or give a new folder."
            )
    if before["data"] != now["data"]:
        raise OutputError(f"{place}: began with other images or labels; resume it with the same, or give a new folder.")


def _restore(trainer: Trainer, place: Path) -> None:
    file = place / CHECKPOINT
    state = trainer.group.of_first(lambda: load_checkpoint(file) if file.exists() else None)
    if state is None:
        return
    try:
        trainer.restore(state)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise BundleError(f"{file}: does not fit this training ({error}); start anew in another folder.") from None


def _epochs(trainer: Trainer) -> tuple[Epoch, ...]:
    return tuple(Epoch(**row) for row in trainer.now.history)


def _cuda_devices(device: Any) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=str) + "\n").encode()
