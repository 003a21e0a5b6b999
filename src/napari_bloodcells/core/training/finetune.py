"""The network itself fitted to a few labeled cells of one microscope, from where its training left it.

A new last layer (``headfit.py``) can only divide anew what the features keep apart; where a stain makes two classes
alike for them, the layers before have to move as well.  A hundred small steps on the labeled cells do that, each cell
turned, moved and in a slightly other light every time (``augment.py``), else twenty cells would be learned by heart;
averaged weights are kept, and of these the further the more cells were labeled.  Cross-validation may object.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_bloodcells.core.devices import exact_float32, fast_bf16
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.inputs import to_input
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models import architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.schema import BundleInfo
from napari_bloodcells.core.training.augment import AugmentSettings, augment
from napari_bloodcells.core.training.headfit import Floats, Head, HeadFit, held_out_parts, move_means

TASK = "fitting the network"
LARGEST_MACS = 250_000_000
"""Networks of more multiplications a cell are not fitted on a CPU, where it would take many minutes."""
LEAST_CELLS = 20
"""With fewer labeled cells the network stays as it is: that was not tried (``docs/accuracy.md``, row H)."""
PARTS = 3
"""Of the cross-validation: each takes a third as long as the fit that is kept."""
MICROSCOPE = AugmentSettings(zoom=0.15, to_box=0.1, stain=0.05, ground=0.2, camera=0.2)
"""How cells of one microscope differ by more than themselves: little, as lamp and stain stay (``docs/accuracy.md``)."""
_ELSEWHERE = 0.1
"""Of an answer, what may go to classes that have no labeled cell."""
ENOUGH = 100
"""From so many labeled cells on the fitted weights are kept as they are."""
_PROOF = 2.0
"""Standard errors by which right answers must fall before the network is given up."""


@dataclass(frozen=True)
class LabeledCells:
    """N labeled cells of one microscope.

    Attributes
    ----------
    crops : (N, 3, S, S) uint8
        As they are counted.
    wide : (N, 3, P, P) uint8
        The same with half as much again around them, to turn and zoom in (``traindata.widened``).
    extent : (N,) float
        Longest side of each cell's box in pixels of ``wide``.
    labels : (N,) int
        Positions in the model's class names.
    groups : (N,) str
        Original cell of each.
    """

    crops: Tensor
    wide: Tensor
    extent: Tensor
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    def take(self, keep: NDArray[np.bool_]) -> LabeledCells:
        """Those of ``keep`` (N,) alone."""
        at = torch.from_numpy(np.flatnonzero(keep))
        return LabeledCells(self.crops[at], self.wide[at], self.extent[at], self.labels[keep], self.groups[keep])


@dataclass(frozen=True)
class NetworkFit:
    """A fitted network.

    Attributes
    ----------
    module : Classifier
        With its last layer.
    space : FeatureSpace or None
        The classes where the labeled cells lie for it now.
    logits : (N, C) float
        Of each cell by a network that was fitted without its group.
    distance : (N,) float or None
        Of each cell in the space of that network.
    """

    module: Classifier
    space: FeatureSpace | None
    logits: Floats
    distance: Floats | None


@dataclass(frozen=True)
class FineTuneSettings:
    """How a network is fitted.

    Attributes
    ----------
    steps, batch_size : int
        Batches, and labeled cells in each.
    lr : float
        Highest learning rate, of Adam; it rises in the first tenth and falls as a cosine.
    label_smoothing : float, 0 to 1
    average : float, 0 to 1
        Share of the averaged weights that stays from one step to the next.
    share : float, 0 to 1
        Of the fitted weights in the mean of these and those from which they began: where cells are few or their labels
        doubtful, the way between loses less (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """

    steps: int = 120
    batch_size: int = 32
    lr: float = 1e-3
    label_smoothing: float = 0.1
    average: float = 0.95
    share: float = 1.0


def settings_for(n_cells: int) -> FineTuneSettings:
    """How a network is fitted to so many cells: half of the way for none, all of it from ``ENOUGH`` on.

    >>> [settings_for(n).share for n in (20, 100, 500)]
    [0.6, 1.0, 1.0]
    """
    return FineTuneSettings(share=0.5 + 0.5 * min(n_cells / ENOUGH, 1.0))


def can_be_fitted(model: Model, labels: NDArray[np.int64], groups: NDArray[np.str_]) -> bool:
    """Whether a network can be fitted to cells in a minute or two, was trained on crops to be widened, and would not
    learn their slides (``slides_tell_classes``)."""
    info = model.info
    macs = info.macs or architecture(info.arch).macs(len(info.class_names), **info.options)
    small = macs <= LARGEST_MACS or model.device.type != "cpu"
    enough = len(labels) >= LEAST_CELLS and not slides_tell_classes(labels, groups)
    return small and info.crop.scale == "um" and enough


def slides_tell_classes(labels: NDArray[np.int64], groups: NDArray[np.str_]) -> bool:
    """Whether most of the cells are of a class that one group alone gave: what is learned then may be the slide, and no
    cross-validation can tell.

    >>> labels = np.repeat([0, 1, 2], 4)
    >>> [slides_tell_classes(labels, np.array(list(slides))) for slides in ("aaaabbbbcccc", "abababababab")]
    [True, False]
    """
    of_class = [groups[labels == label] for label in np.unique(labels)]
    return sum(len(own) for own in of_class if len(set(own.tolist())) == 1) > len(labels) / 2


def choose_network(
    model: Model, cells: LabeledCells, views: Floats, fitted: HeadFit, progress: Progress | None = None
) -> NetworkFit | None:
    """The network fitted to the cells, unless cross-validation speaks clearly against it.

    That is where it is wrong on more cells than its last layer alone, by more than two standard errors.  Twenty cells
    prove little either way, and what is tried on them has a third of the steps and two thirds of the cells; on unseen
    microscopes the network gained nearly always (``docs/accuracy.md``).

    Parameters
    ----------
    model : Model
        Stays as it is.
    cells : LabeledCells
    views : (N, V, D) float
        Their features in V views, as the layer was fitted to.
    fitted : HeadFit
        The layer from which each fit begins.
    progress : Progress, optional
        Is told of every step, and can cancel.
    """
    progress = progress or Silent()
    settings = settings_for(len(views))
    shorter = replace(settings, steps=settings.steps // 3)
    parts = held_out_parts(cells.labels, cells.groups, PARTS)
    progress.start(TASK, len(parts) * shorter.steps + settings.steps)
    old = Head.of(model.module.head)
    logits = np.empty((len(views), len(old.bias)))
    distance = np.empty(len(views))
    for out in parts:
        head = fitted.again(views[~out], cells.labels[~out], old, model.space, model.info.learned)
        found, _ = _fitted(model, cells.take(~out), head, shorter, progress)
        features, answers = found.features_and_logits(cells.crops[torch.from_numpy(np.flatnonzero(out))])
        logits[out] = answers.double().numpy()
        if found.space is not None:
            distance[out] = found.space.distance(features.to(found.device)).cpu().numpy()
    if _clearly_worse(logits, fitted.logits, cells.labels):
        return None
    found, module = _fitted(model, cells, fitted.head, settings, progress)
    return NetworkFit(module, found.space, logits, None if found.space is None else distance)


def _clearly_worse(new: Floats, old: Floats, labels: NDArray[np.int64]) -> bool:
    """Whether logits (N, C) lose more right answers than others than chance explains (McNemar, Psychometrika 1947).

    >>> truth = np.zeros(9, int)
    >>> [_clearly_worse(np.eye(2)[[1] * lost + [0] * (9 - lost)], np.eye(2)[truth], truth) for lost in (4, 5)]
    [False, True]
    """
    was_right, is_right = (logits.argmax(1) == labels for logits in (old, new))
    lost, won = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    return lost - won > _PROOF * math.sqrt(lost + won)


def _fitted(
    model: Model, cells: LabeledCells, head: Head, settings: FineTuneSettings, progress: Progress
) -> tuple[Model, Classifier]:
    """The model with its network fitted to the cells, beginning with ``head``, and the classes where they lie now;
    and the network by itself, in float32 (a model may round its own)."""
    begun = model.unrounded.with_head(head.weight, head.bias).to(model.device)
    module = fine_tune(begun, model.info, cells, settings, progress)
    found = Model(model.info, copy.deepcopy(module), model.space, model.device)
    if found.space is None:
        return found, module
    features, _ = found.features_and_logits(cells.crops)
    _, means = move_means(features.double().numpy()[:, None], cells.labels, head, found.space)
    found.space = replace(found.space, means=torch.from_numpy(means).float().to(model.device))
    return found, module


def fine_tune(
    module: Classifier, info: BundleInfo, cells: LabeledCells, settings: FineTuneSettings, progress: Progress
) -> Classifier:
    """Fit a copy of a network to labeled cells.

    Classes without a labeled cell keep their row of the last layer and up to a tenth of every answer, so that they are
    not learned away; more would be wrong of a cell that somebody gave another class, and is unlearned.
    Statistics of batch norm stay as they are.

    Parameters
    ----------
    module : Classifier
        On the device that computes; stays as it is.
    info : BundleInfo
        Says how ``module`` is given its crops.
    cells : LabeledCells
    settings : FineTuneSettings
    progress : Progress
        Is told of every step of ``TASK``, and can cancel.

    Returns
    -------
    Classifier
        In float32, to be evaluated; the same for the same cells on the same machine.
    """
    device = next(module.parameters()).device
    exact_float32(device)
    trained = copy.deepcopy(module).float().to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    average: Classifier = copy.deepcopy(trained).requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.Adam(trained.parameters(), lr=settings.lr)
    looks = replace(MICROSCOPE, size=info.crop.size)
    generator = torch.Generator().manual_seed(0)
    there, numbers = np.unique(cells.labels, return_inverse=True)
    named = torch.from_numpy(there).to(device)
    unnamed = np.setdiff1d(np.arange(len(info.class_names)), there)
    labels = torch.from_numpy(numbers.astype(np.int64))
    chance = labels.bincount().double().rsqrt()[labels]  # halfway between cells alike and classes alike, as for a layer
    norm = info.normalization
    for step in range(settings.steps):
        check_cancelled(progress)
        optimizer.param_groups[0]["lr"] = settings.lr * _share_of_rate((step + 0.5) / settings.steps)
        at = torch.multinomial(chance, settings.batch_size, replacement=True, generator=generator)
        images = augment(cells.wide[at].to(device), cells.extent[at].to(device), looks, generator)
        images = to_input(images, info.input_size, norm.mean, norm.std)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            logits = trained(images)
        logits = logits.float()
        told_apart = logits[:, named]
        loss = F.cross_entropy(told_apart, labels[at].to(device), label_smoothing=settings.label_smoothing)
        elsewhere = logits.logsumexp(1) - told_apart.logsumexp(1)  # -log of what the labeled classes have of the answer
        loss = loss + elsewhere.clamp_min(-math.log1p(-_ELSEWHERE)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in trained.head.parameters():
            if parameter.grad is not None:
                parameter.grad[unnamed] = 0
        optimizer.step()
        share = min(settings.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), trained.parameters(), strict=True):
                kept.lerp_(new, 1 - share)
        progress.advance(TASK)
    with torch.no_grad():
        for kept, begun in zip(average.parameters(), module.parameters(), strict=True):
            kept.lerp_(begun.to(kept.dtype), 1 - settings.share)
    return average


def _share_of_rate(done: float) -> float:
    """Of the highest learning rate: it rises in the first tenth and falls as a cosine."""
    return min(1.0, 10 * done) * 0.5 * (1 + math.cos(math.pi * done))
