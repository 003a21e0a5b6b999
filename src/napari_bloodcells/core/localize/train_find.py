"""Training of the learned localizer, from folders of data to a folder that ``load_localizer`` reads.

Halfway the net itself boxes what the sources left unboxed (red cells and platelets of sources that drew white cells
only), and learns from that in the second half; at the end scores and thresholds are measured on validation fields.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_bloodcells import __version__
from napari_bloodcells.core.boxes import centers_inside
from napari_bloodcells.core.counting.runlock import RunLock
from napari_bloodcells.core.errors import Cancelled, OutputError, UsageError
from napari_bloodcells.core.files import display_name, kept_for_resume, make_folder
from napari_bloodcells.core.localize.calibrate_find import calibrate_localizer, measure_ranges
from napari_bloodcells.core.localize.collect import TruthField, collect, read_fields
from napari_bloodcells.core.localize.drawn import SOURCE, drawn_fields
from napari_bloodcells.core.localize.learned import LearnedLocalizer, LookSettings
from napari_bloodcells.core.localize.net import CLASSES, CellNet
from napari_bloodcells.core.localize.store import METADATA, LocalizerInfo, save_localizer
from napari_bloodcells.core.localize.targets import IGNORE
from napari_bloodcells.core.localize.tiles import LabeledField, TileMaker
from napari_bloodcells.core.localize.trainer import FindSettings, Trainer, load_find_settings
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["FindSettings", "load_find_settings", "train_localizer"]

_MIDDLE = "middle.safetensors"
_LARGEST_ZOOM = 1.25  # small red cells are seen as they are: 11 pixels suffice, and enlarging costs the square


def train_localizer(
    data: Sequence[Path | str] | Path | str,
    output: Path | str,
    settings: FindSettings | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a localizer and write it as a folder that ``load_localizer`` reads.

    Parameters
    ----------
    data
        Folders of data sets with white-cell boxes (VOC, YOLO, tables) or single cells; see ``collect``.
    output
        Folder to write; it must not hold a localizer yet.
    settings
        Of the training; ``load_find_settings`` reads them from a recipe.
    resume
        Go on from the checkpoint in ``output``, or with what is missing after the last step (ranges, calibration);
        the result is that of a training that was not interrupted.
    progress
        Is told each step, and asked whether to stop; what was learned stays in the checkpoint.

    Returns
    -------
    Path
        ``output``, with ``localizer.safetensors``, ``localizer.json`` and ``history.csv``.

    Raises
    ------
    DataSetError
        If the folders hold nothing to learn from.
    OutputError
        If ``output`` holds a localizer already.
    UsageError
        If there is nothing to resume from, or its settings were others.
    Cancelled
        If the user stopped it.

    Warns
    -----
    DataWarning
        For what was left out of the data or worked around, and for each class that too few boxes could calibrate.
    """
    settings, progress, output = settings or FindSettings(), progress or Silent(), Path(output)
    if (output / METADATA).exists():
        raise OutputError(f"{display_name(output)}: holds a localizer already; choose another folder.")
    items = collect([data] if isinstance(data, str | Path) else data)
    training = [item for item in items if item.part == "train"]
    trainer = Trainer(settings)
    checkpoint = output / "checkpoint.safetensors"
    if resume:
        if not checkpoint.exists():
            raise UsageError(f"{display_name(output)}: holds no training to go on with; start it without --resume.")
        trainer.load_state(load_checkpoint(checkpoint))
    elif checkpoint.exists():
        raise OutputError(
            f"{display_name(output)}: holds an unfinished training; add --resume, or choose another folder."
        )
    fields: list[LabeledField] = []
    if trainer.step < settings.steps:  # else only measuring and calibrating are left
        fields = read_fields(training, progress)
        if settings.weights.get(SOURCE, 0) > 0:
            fields += drawn_fields(settings.seed, progress)
    make_folder(output)
    started = time.monotonic()
    with RunLock(output) as lock, kept_for_resume():

        def save(state: dict[str, Any]) -> None:
            save_checkpoint(checkpoint, state)
            lock.renew()

        run(trainer, fields, progress, save, output)
        info = _info(settings, items, time.monotonic() - started, trainer.start)
        info = measure_ranges(trainer.mean, info, training, progress)
        validation = [item for item in items if item.part == "val"]
        info = calibrate_localizer(trainer.mean, info, validation, progress)
        save_localizer(output, trainer.mean, info)
        for leftover in (checkpoint, output / _MIDDLE):
            leftover.unlink(missing_ok=True)
    return output


def run(
    trainer: Trainer,
    fields: Sequence[LabeledField],
    progress: Progress,
    save: Callable[[dict[str, Any]], None],
    folder: Path,
) -> None:
    """The steps from ``trainer.step`` to the end; the middle, where the net boxes the rest, is kept in ``folder``.

    The last step is saved, too: what follows (ranges, calibration) may be stopped and gone on with.

    Batches depend on the seed, the step and the fields alone, and the fields of the second half on the weights of the
    middle, so that an interrupted training ends as one that was not.
    """
    rule = trainer.settings
    if trainer.step >= rule.steps:
        return
    middle = round(rule.steps * rule.label_rest_at)
    progress.start("training", rule.steps)
    progress.advance("training", trainer.step)
    weights = dict(rule.weights)
    if trainer.step > middle > 0:
        halfway = CellNet(rule.net)
        halfway.load_state_dict(load_checkpoint(folder / _MIDDLE))
        fields = label_rest(fields, halfway)
    maker = TileMaker(fields, weights, rule.tiles)
    try:
        while trainer.step < rule.steps:
            if trainer.step == middle and middle > 0:
                save_checkpoint(folder / _MIDDLE, trainer.mean.state_dict())
                maker = TileMaker(label_rest(fields, trainer.mean), weights, rule.tiles)
            loss = trainer.learn(maker)
            heat, box = trainer.last
            progress.advance("training", loss=loss, heat=heat, box=box)
            if trainer.step % rule.save_every == 0 or trainer.step == rule.steps:
                save(trainer.state())
            check_cancelled(progress)
    except Cancelled:
        save(trainer.state())
        raise


def label_rest(fields: Sequence[LabeledField], net: CellNet) -> list[LabeledField]:
    """Box with ``net`` what the sources left unboxed, so that the second half of the training learns it as well.

    Boxes above 0.5 are taken as true, those between 0.12 and 0.5 are neither asked for nor punished.
    """
    localizer = LearnedLocalizer(LocalizerInfo(), net)
    result = []
    for field_ in fields:
        unknown = np.flatnonzero(~field_.known)
        if not len(unknown):
            result.append(field_)
            continue
        zoom = min(LookSettings().shrink_to / field_.red_cell, _LARGEST_ZOOM)
        cells = localizer.cells_at(np.asarray(field_.image), zoom)
        boxes, labels = [field_.boxes], [field_.labels]
        for c in unknown:
            found, scores = cells[c]
            sure = scores >= 0.5
            keep = (scores >= 0.12) & ~centers_inside(found, field_.boxes).any(1)
            boxes.append(found[keep])
            labels.append(np.where(sure[keep], c, IGNORE - c))
        known = np.ones(len(CLASSES), np.bool_)
        result.append(replace(field_, boxes=np.concatenate(boxes), labels=np.concatenate(labels), known=known))
    return result


def _info(settings: FindSettings, items: Sequence[TruthField], seconds: float, start: LocalizerInfo) -> LocalizerInfo:
    """What is known before anything is measured; scores mean what they meant where the training began."""
    counts: dict[str, dict[str, int]] = {}
    for item in items:
        part = counts.setdefault(item.source, {})
        part[item.part] = part.get(item.part, 0) + 1
    rule = settings.net
    return LocalizerInfo(
        version=__version__,
        channels=rule.channels,
        blocks=rule.blocks,
        head=rule.head,
        calibration=start.calibration,
        thresholds=start.thresholds,
        training={
            "photographs": counts,
            "tiles": settings.steps * settings.batch_size,
            "seed": settings.seed,
            "began_with": start.sha256,
            "minutes": round(seconds / 60, 1),
            "hardware": f"{torch.get_num_threads()} thread(s), {platform.processor() or platform.machine()}",
        },
    )
