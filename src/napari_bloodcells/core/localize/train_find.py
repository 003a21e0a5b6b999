"""Training of the learned localizer, from labeled fields to a folder that ``load_localizer`` reads.

One loop: tiles are made on the fly, their looks changed, the net learns heat maps and boxes; the weights that are
shipped are a running mean.  In the middle of the training the net itself boxes what the sources left unboxed (red
cells and platelets of sources that drew white cells only), and learns from that in the second half.
"""

from __future__ import annotations

import copy
import json
import math
import platform
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from napari_bloodcells import __version__
from napari_bloodcells.core.checkpoint import load_checkpoint, save_checkpoint
from napari_bloodcells.core.devices import fast_bf16
from napari_bloodcells.core.errors import Cancelled, OutputError, UsageError
from napari_bloodcells.core.files import display_name, read_regular
from napari_bloodcells.core.localize.calibrate_find import calibrate_localizer
from napari_bloodcells.core.localize.collect import TruthField, collect, read_fields
from napari_bloodcells.core.localize.learned import LearnedLocalizer, LookSettings
from napari_bloodcells.core.localize.looks import change_looks
from napari_bloodcells.core.localize.net import CLASSES, MEAN, SPREAD, CellNet, NetSettings
from napari_bloodcells.core.localize.score import centers_inside
from napari_bloodcells.core.localize.store import METADATA, LocalizerInfo, save_localizer
from napari_bloodcells.core.localize.targets import IGNORE, Targets, box_loss, draw_targets, heat_loss
from napari_bloodcells.core.localize.tiles import LabeledField, TileMaker, TileSettings
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled

_MIDDLE = "middle.safetensors"


@dataclass(frozen=True)
class FindSettings:
    """A training of the localizer (``recipes/find.toml``)."""

    steps: int = 9000
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: int = 200
    mean_decay: float = 0.998
    box_weight: float = 1.0
    looks: float = 1.0
    label_rest_at: float = 0.45
    seed: int = 0
    save_every: int = 500
    weights: dict[str, float] = field(default_factory=dict)
    tiles: TileSettings = field(default_factory=TileSettings)
    net: NetSettings = field(default_factory=NetSettings)


class Trainer:
    """The state of a training: net, running mean, optimizer, chance; ``state``/``load_state`` for a checkpoint."""

    def __init__(self, settings: FindSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.net = CellNet(settings.net).to(memory_format=torch.channels_last)
        self.mean = copy.deepcopy(self.net).eval()
        decay = [p for p in self.net.parameters() if p.ndim == 4 and p.shape[1] > 1]
        rest = [p for p in self.net.parameters() if not (p.ndim == 4 and p.shape[1] > 1)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
        )
        self.step = 0
        self.last = (math.nan, math.nan)

    def rate(self) -> float:
        """Learning rate of the present step: a linear start, then half a cosine down to 1 %."""
        rule = self.settings
        if self.step < rule.warm_up:
            return rule.learning_rate * (self.step + 1) / rule.warm_up
        done = (self.step - rule.warm_up) / max(rule.steps - rule.warm_up, 1)
        return rule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def batch(self, maker: TileMaker) -> tuple[Tensor, Targets]:
        """The batch of the present step; it depends on the seed and the step alone."""
        rule = self.settings
        rng = np.random.default_rng((rule.seed, self.step))
        generator = torch.Generator().manual_seed(rule.seed * 1_000_003 + self.step)
        tiles, drawn = [], []
        for _ in range(rule.batch_size):
            pixels, (boxes, labels), known = maker.tile(rng)
            tiles.append(pixels)
            drawn.append(draw_targets(boxes, labels, known, rule.tiles.side))
        x = change_looks(np.stack(tiles), generator, rule.looks).sub_(MEAN).div_(SPREAD)
        heat, known_, sides, weight = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return x, Targets(heat, known_, sides, weight)

    def learn(self, maker: TileMaker) -> float:
        """One step; its loss."""
        rule = self.settings
        x, targets = self.batch(maker)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(torch.device("cpu"))):
            heat, sides = self.net(x)
        heat_part, box_part = heat_loss(heat, targets), box_loss(sides, targets)
        loss = heat_part + rule.box_weight * box_part
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        decay = min(rule.mean_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        self.step += 1
        self.last = (heat_part.item(), box_part.item())
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "settings": json.loads(json.dumps(asdict(self.settings))),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state``.

        Raises
        ------
        UsageError
            If it belongs to a training with other settings.
        """
        if state["settings"] != json.loads(json.dumps(asdict(self.settings))):
            raise UsageError("The checkpoint belongs to a training with other settings; start anew without --resume.")
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


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
        Go on from the checkpoint in ``output``; the result is that of a training that was not interrupted.
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
    """
    settings, progress, output = settings or FindSettings(), progress or Silent(), Path(output)
    if (output / METADATA).exists():
        raise OutputError(f"{display_name(output)}: holds a localizer already; choose another folder.")
    items = collect([data] if isinstance(data, str | Path) else data)
    fields = read_fields([item for item in items if item.part == "train"], progress)
    trainer = Trainer(settings)
    checkpoint = output / "checkpoint.safetensors"
    if resume:
        trainer.load_state(load_checkpoint(checkpoint))
    elif checkpoint.exists():
        raise OutputError(
            f"{display_name(output)}: holds an unfinished training; add --resume, or choose another folder."
        )
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run(trainer, fields, progress, lambda state: save_checkpoint(checkpoint, state), checkpoint.parent)
    info = _info(settings, items, time.monotonic() - started)
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

    Batches depend on the seed, the step and the fields alone, and the fields of the second half on the weights of the
    middle, so that an interrupted training ends as one that was not.
    """
    rule = trainer.settings
    middle = round(rule.steps * rule.label_rest_at)
    progress.start("training", rule.steps)
    progress.advance("training", trainer.step)
    weights = dict(rule.weights)
    if trainer.step > middle:
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
            if trainer.step % rule.save_every == 0:
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
        zoom = LookSettings().shrink_to / field_.red_cell
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


def load_find_settings(name_or_path: str | Path = "find", overrides: Mapping[str, Any] | None = None) -> FindSettings:
    """Settings from a recipe (``find``, or a TOML file), with some replaced (``{"steps": 100, "tiles.side": 96}``).

    Raises
    ------
    UsageError
        If there is no such recipe, or a field of it cannot be used.

    Examples
    --------
    >>> load_find_settings(overrides={"steps": 100}).steps
    100
    """
    path = Path(name_or_path)
    if str(name_or_path) in ("default", "find"):
        path = Path(str(files("napari_bloodcells") / "recipes" / "find.toml"))
    try:
        tree = tomllib.loads(read_regular(path, 10**6, UsageError).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{display_name(path)}: no TOML ({error}).") from None
    tree.pop("task", None)
    tree.pop("description", None)
    for key, value in (overrides or {}).items():
        section, _, name = key.partition(".")
        if name:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    try:
        return _validated(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{display_name(path)}: {where}: {first['msg']}.") from None


def _validated(tree: dict[str, Any]) -> FindSettings:
    unknown = sorted(set(tree) - {f.name for f in dataclass_fields(FindSettings)})
    if unknown:
        raise UsageError(f"{unknown[0]} is no setting of a localizer's training.")
    return TypeAdapter(FindSettings).validate_python(tree)


def _info(settings: FindSettings, items: Sequence[TruthField], seconds: float) -> LocalizerInfo:
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
        training={
            "photographs": counts,
            "tiles": settings.steps * settings.batch_size,
            "seed": settings.seed,
            "minutes": round(seconds / 60, 1),
            "hardware": f"{torch.get_num_threads()} thread(s), {platform.processor() or platform.machine()}",
        },
    )
