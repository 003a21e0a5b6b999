"""The training loop: one epoch after the other, its state kept so that it can be stopped after any step.

Every step seeds torch from the recipe's seed, the epoch and the step, so the state is weights, optimizer, schedule and
two counters: a training that was stopped and resumed gives the same bits as one that was not (on the same machine with
the same number of threads, and as long as ``max_minutes`` does not decide).

Several processes (``group.py``) each take their share of every batch and hold the same state.  They give the weights of
one process but for rounding, unless the network has dropout: which features are left out is drawn in each share anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from napari_bloodcells.core.devices import fast_bf16
from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.core.inputs import to_input
from napari_bloodcells.core.models import architecture, build
from napari_bloodcells.core.progress import Progress, check_cancelled
from napari_bloodcells.core.training.augmentation import augmentation
from napari_bloodcells.core.training.group import Group, peers
from napari_bloodcells.core.training.history import Epoch
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.sampler import cell_weights, epoch_order
from napari_bloodcells.core.training.traindata import Cells

EVALUATION_BATCH = 64
LEAST_GAIN = 1e-4
"""By how much the validation loss must fall to count as better where the balanced accuracy is the same."""
TASK = "training"


@dataclass
class Counters:
    """Where a training stands: epochs done, steps done in the present one, and what it has summed up so far."""

    epoch: int = 0
    step: int = 0
    updates: int = 0
    loss: float = 0.0
    right: int = 0
    seen: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_score: float = -1.0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Holds the state of one training and moves it on."""

    def __init__(
        self,
        recipe: Recipe,
        training: Cells,
        validation: Cells,
        n_classes: int,
        device: torch.device,
        group: Group = Group(),
    ) -> None:
        self.recipe, self.training, self.validation, self.device = recipe, training, validation, device
        self.group = group
        torch.manual_seed(recipe.seed)
        self.input_size = architecture(recipe.arch).input_size
        self.module = build(recipe.arch, n_classes, **recipe.options)
        self.module = group.fitted(self.module, device)
        self.module = self.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = group.spread(self.module, device)
        self.average = deepcopy(self.module) if recipe.ema else None
        self.best = _copy(self.module.state_dict())
        self.optimizer = _make_optimizer(self.module, recipe)
        plateau = recipe.schedule
        self.plateau = ReduceLROnPlateau(
            self.optimizer, factor=plateau.factor, patience=plateau.patience, min_lr=plateau.min_lr
        )
        self.augment = augmentation(recipe)
        sources = torch.from_numpy(np.unique(training.sources, return_inverse=True)[1].astype(np.int64))
        self.weights = cell_weights(training.labels, sources, recipe.sampler)
        self.bf16 = recipe.precision == "auto" and fast_bf16(device)
        self.now = Counters()
        cells = recipe.sampler.epoch_cells or len(training)
        self.steps = max(1, math.ceil(cells / recipe.batch_size))

    @property
    def evaluated(self) -> Any:
        """The network that is validated and kept: the averaged weights where there are any."""
        return self.average if self.average is not None else self.module

    def finished(self) -> bool:
        """Whether the recipe says that it is enough."""
        recipe, now = self.recipe, self.now
        if recipe.epochs and now.epoch >= recipe.epochs:
            return True
        if recipe.max_minutes and now.seconds >= 60 * recipe.max_minutes and now.epoch:
            return True
        return bool(recipe.patience and now.epoch - now.best_epoch >= recipe.patience)

    def run_epoch(self, progress: Progress, keep: Callable[[], None]) -> Epoch:
        """Finish the present epoch and validate; ``keep`` is called after each step, for a checkpoint."""
        now, recipe = self.now, self.recipe
        order = epoch_order(self.weights, recipe.sampler, _mix(recipe.seed, now.epoch, -1))
        while now.step < self.steps:
            check_cancelled(progress)
            start = time.monotonic()
            at = order[now.step * recipe.batch_size : (now.step + 1) * recipe.batch_size]
            self._step(at)
            spent = self._clock(start)
            now.seconds += spent
            now.epoch_seconds += spent
            progress.advance(TASK, epoch=now.epoch + 1, loss=now.loss / now.seen, accuracy=now.right / now.seen)
            keep()
            if recipe.max_minutes and now.seconds >= 60 * recipe.max_minutes:
                break
        return self._end_epoch(progress)

    def _step(self, at: Tensor) -> None:
        now, recipe = self.now, self.recipe
        torch.manual_seed(_mix(recipe.seed, now.epoch, now.step))
        lr = self._set_rate()
        share, n = self.group.share(len(at))
        labels = self.training.labels[at[share]].to(self.device)
        images = self.augment(self.training, at, share, self.device)
        if not self.group.first:  # else dropout would leave out the same in every share
            torch.manual_seed(_mix(recipe.seed, now.epoch, now.step, self.group.rank))
        images = to_input(images, self.input_size, recipe.input.mean, recipe.input.std)
        self.module.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing) * (n / len(at))
        penalized = (w.abs().sum() for w in self.module.l1_parameters())
        penalty = recipe.optimizer.l1 * sum(penalized, loss.new_zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        with peers():  # the mean over the processes is the loss of the batch
            (loss * self.group.size + penalty).backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), recipe.optimizer.clip)
        self.optimizer.step()
        value, right = self.group.sums(
            float(loss.detach()), float((logits.detach().argmax(1) == labels).sum()) if n else 0.0
        )
        value += float(penalty.detach())
        if not math.isfinite(value):
            raise BloodcellsError(
                f"the training fell apart in epoch {now.epoch + 1} (the loss is no number): "
                f"begin again with a lower learning rate than {lr:g} (--set optimizer.lr=...)."
            )
        now.updates += 1
        self._average()
        now.step += 1
        now.loss += value * len(at)
        now.right += int(right)
        now.seen += len(at)

    def _end_epoch(self, progress: Progress) -> Epoch:
        now = self.now
        start = time.monotonic()
        loss, right, balanced = self._validate(progress)
        spent = self._clock(start)
        now.seconds += spent
        even = balanced == now.best_score and loss < now.best_loss - LEAST_GAIN
        better = balanced > now.best_score or even
        if better:
            now.best_score, now.best_loss, now.best_epoch = balanced, loss, now.epoch + 1
            self.best = _copy(self.evaluated.state_dict())
        row = Epoch(
            epoch=now.epoch + 1,
            train_loss=now.loss / max(now.seen, 1),
            train_accuracy=now.right / max(now.seen, 1),
            val_loss=loss,
            val_accuracy=right,
            val_balanced_accuracy=balanced,
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            seconds=now.epoch_seconds + spent,
            best=better,
        )
        if self.recipe.schedule.name == "plateau":
            self.plateau.step(loss)
        now.history.append(row.as_dict())
        now.epoch, now.step, now.loss, now.right, now.seen, now.epoch_seconds = now.epoch + 1, 0, 0.0, 0, 0, 0.0
        return row

    def _validate(self, progress: Progress) -> tuple[float, float, float]:
        """Loss, accuracy and balanced accuracy on the validation cells."""
        logits = self.logits(self.validation.crops, progress)
        labels = self.validation.labels
        right = (logits.argmax(1) == labels).double()
        recalls = [right[labels == c].mean() for c in range(logits.shape[1]) if (labels == c).any()]
        return float(F.cross_entropy(logits, labels)), float(right.mean()), float(torch.stack(recalls).mean())

    @torch.inference_mode()
    def logits(self, crops: Tensor, progress: Progress) -> Tensor:
        """(N, 3, S, S) uint8 -> (N, C) float32 on the CPU, by the network that is kept; batches shared out in turn."""
        module = self.evaluated.eval()
        logits = torch.zeros(len(crops), self.module.head.out_features)
        for at in range(0, len(crops), EVALUATION_BATCH * self.group.size):
            check_cancelled(progress)
            start = at + EVALUATION_BATCH * self.group.rank
            part = crops[start : start + EVALUATION_BATCH]
            if not len(part):
                continue
            images = to_input(part.to(self.device), self.input_size, self.recipe.input.mean, self.recipe.input.std)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits[start : start + EVALUATION_BATCH] = module(images).float().cpu()
        return self.group.total(logits)

    def _clock(self, start: float) -> float:
        """Seconds since ``start`` by the clock of the first process, which decides for all."""
        return self.group.sums(time.monotonic() - start if self.group.first else 0.0)[0]

    def _set_rate(self) -> float:
        """Set the learning rate of this step where the schedule is a curve; returns the rate."""
        recipe, now = self.recipe, self.now
        if recipe.schedule.name == "cosine":
            done = 0.0
            if recipe.epochs:
                done = (now.epoch * self.steps + now.step) / (recipe.epochs * self.steps)
            if recipe.max_minutes:
                done = max(done, now.seconds / (60 * recipe.max_minutes))
            self.optimizer.param_groups[0]["lr"] = cosine_rate(min(done, 1.0), recipe)
        return float(self.optimizer.param_groups[0]["lr"])

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights; early on the average is short, so that it does not remember the start."""
        if self.average is None:
            return
        decay = min(self.recipe.ema, (1 + self.now.updates) / (10 + self.now.updates))
        for weights, new in zip(self.average.parameters(), self.module.parameters(), strict=True):
            weights.lerp_(new, 1 - decay)
        for statistics, latest in zip(self.average.buffers(), self.module.buffers(), strict=True):
            statistics.copy_(latest)

    def state(self) -> dict[str, Any]:
        """All that ``restore`` needs."""
        return {
            "counters": dict(vars(self.now)),
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of another run; raises ``KeyError`` or ``RuntimeError`` where it does not fit."""
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        for weights, kept in self.optimizer.state.items():  # laid out as the weights are, which the file does not keep
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == weights.shape:
                    kept[name] = torch.empty_like(weights).copy_(value)
        self.plateau.load_state_dict(state["plateau"])
        self.now = Counters(**state["counters"])


def cosine_rate(done: float, recipe: Recipe) -> float:
    """Learning rate when the share ``done`` (0 to 1) of the training is done, for the ``cosine`` schedule.

    >>> recipe = Recipe("r", "cnn3").with_overrides({"schedule.name": "cosine", "schedule.warmup": 0.1})
    >>> [round(cosine_rate(x, recipe), 7) for x in (0.05, 0.1, 0.55, 1.0)]
    [0.0005, 0.001, 0.0005005, 1e-06]
    """
    top, low, warmup = recipe.optimizer.lr, recipe.schedule.min_lr, recipe.schedule.warmup
    if done < warmup:
        return top * max(done / warmup, 0.01)
    along = (done - warmup) / max(1 - warmup, 1e-9)
    return low + (top - low) * 0.5 * (1 + math.cos(math.pi * along))


def _make_optimizer(module: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    weights = [p for p in module.parameters() if p.requires_grad]
    lr, decay = settings.lr, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(weights, lr, settings.momentum, weight_decay=decay)
    if settings.name == "rmsprop":
        return torch.optim.RMSprop(weights, lr, alpha=0.9, weight_decay=decay)
    if settings.name == "adam":
        return torch.optim.Adam(weights, lr, weight_decay=decay)
    return torch.optim.AdamW(weights, lr, weight_decay=decay)


def _mix(seed: int, epoch: int, step: int, *rank: int) -> int:
    """One seed for each step of each epoch, and of each process but the first; step -1 is the order of the epoch."""
    return int(np.random.SeedSequence([seed, epoch, step + 1, *rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
