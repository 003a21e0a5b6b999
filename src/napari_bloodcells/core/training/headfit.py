"""The last layer of a network fitted anew to few cells, held back by what it was.

A new microscope shifts the cells of each class in the space of the features, most of all in common.  So first the
class means are moved (``move_means``): the classes are clouds of one shape (that of the training, ``FeatureSpace``),
and each mean becomes the posterior one, between where it was, the shift of all labeled cells and that of its own.  The
layer that tells such clouds apart is linear, so it takes the place of the old one.  Then the layer itself may be
refitted (``fit_head``): multinomial logistic regression with a Gaussian prior that is centered on it (maximum a
posteriori).  Both have to prove themselves by cross-validation over the cells, and "not changed at all" is a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import nn

from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.training.temperature import fit_temperature

Floats: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Literal["nothing", "means", "layer"]
Learned: TypeAlias = Sequence[bool] | None
"""Whether the training had cells of each class (``BundleInfo.learned``); None for all.  The others have no mean."""
TASK = "fitting the last layer"
STRENGTHS = (float("inf"), 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Weight of the prior against the mean log-loss of the cells; infinite leaves the layer as it was."""

_FOLDS = 10
_PROOF = 2.0
"""Standard errors by which the log-loss must fall before the old layer is given up: with one, 20 cells made two
of seven unseen sources worse by up to 6 points (``docs/accuracy.md``)."""
_SHIFT_PRIOR, _CLASS_PRIOR = 15.0, 5.0
"""The shift of all cells counts as if so many unshifted ones stood beside the labeled cells, that of one class as if
so many cells with the common shift did.  Values from 0 to 15 and from 1 to 10 differ little (``docs/accuracy.md``)."""
_NEVER = 30.0
"""By so much the logit of a class of which no cell was ever seen stays below the mean of the others'."""
_LEAST, _CAREFUL = 3, 10.0
"""Where a class has fewer labeled cells than the first, the prior is at least as strong as the second."""


@dataclass(frozen=True)
class Head:
    """``weight`` (C, D) and ``bias`` (C,) of a linear layer: (N, D) features -> (N, C) logits."""

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, linear: nn.Linear) -> Head:
        """The layer of a network."""
        return cls(*(values.detach().cpu().double().numpy() for values in (linear.weight, linear.bias)))

    def logits(self, features: Floats) -> Floats:
        """(N, D) -> (N, C)."""
        result: Floats = features @ self.weight.T + self.bias
        return result

    def without(self, known: NDArray[np.bool_]) -> Head:
        """The layer that never gives a class that is not ``known`` (C,).

        >>> head = Head(np.array([[1.0], [-1.0], [9.0]]), np.array([0.0, 2.0, 9.0]))
        >>> head.without(np.array([True, True, False])).logits(np.ones((1, 1))).tolist()
        [[1.0, 1.0, -29.0]]
        """
        weight, bias = self.weight.copy(), self.bias.copy()
        weight[~known], bias[~known] = weight[known].mean(0), bias[known].mean() - _NEVER
        return Head(weight, bias)


@dataclass(frozen=True)
class HeadFit:
    """A fitted layer.

    Attributes
    ----------
    head : Head
    changed : {"nothing", "means", "layer"}
        The old layer stayed, the class means were moved, or the layer was refitted (after these were moved, if so).
    logits : (N, C) float
        Of each cell by a layer that was fitted without its group.
    means : (C, K) float or None
        The class means in the feature space, where they were moved.
    strength : float
        Of the prior that was chosen; infinite where the layer was not refitted.
    """

    head: Head
    changed: Change
    logits: Floats
    means: Floats | None = None
    strength: float = float("inf")

    def again(
        self, views: Floats, labels: NDArray[np.int64], old: Head, space: FeatureSpace | None, learned: Learned = None
    ) -> Head:
        """The layer that other cells give, or a part of these, in the same way: nothing is chosen anew."""
        center = old if space is None or self.means is None else move_means(views, labels, old, space, learned)[0]
        return fit_head(views, labels, center, self.strength)


def fit_head(views: Floats, labels: NDArray[np.int64], old: Head, strength: float) -> Head:
    """Fit the layer with one strength of the prior.

    Parameters
    ----------
    views : (N, V, D) float
        Features of every cell in V views (turned, mirrored).
    labels : (N,) int
    old : Head
        Center of the prior.
    strength : float
        Of the prior; ``inf`` gives ``old``.

    Examples
    --------
    >>> old = Head(np.zeros((2, 1)), np.zeros(2))
    >>> new = fit_head(np.array([[[-1.0]], [[1.0]]]), np.array([0, 1]), old, 0.01)
    >>> new.logits(np.array([[-1.0], [1.0]])).argmax(1).tolist()
    [0, 1]
    """
    if not np.isfinite(strength) or not len(labels):
        return old
    _, n_views, width = views.shape
    n_classes = len(old.bias)
    flat = views.reshape(-1, width)
    center = flat.mean(0)
    scale = max(float(flat.std()), 1e-9)
    x = (flat - center) / scale
    # Only the classes that are there are told apart, so what is said of the others does not move.
    there = np.unique(labels)
    base = old.logits(flat)[:, there]
    truth = np.repeat(labels, n_views)
    count = np.bincount(labels, minlength=n_classes)
    weight = (1 / np.sqrt(count[truth]))[:, None]  # halfway between cells alike and classes alike
    weight = weight / weight.sum()
    target = np.eye(n_classes)[truth][:, there]

    def objective(flat_change: Floats) -> tuple[float, Floats]:
        change = flat_change.reshape(len(there), width + 1)
        logits = base + x @ change[:, :-1].T + change[:, -1]
        loss = -float((weight * target * log_softmax(logits, axis=1)).sum())
        slope = weight * (softmax(logits, axis=1) - target)
        gradient = np.concatenate([slope.T @ x, slope.sum(0)[:, None]], 1)
        prior = np.full(change.shape, strength / 100)
        prior[:, -1] = strength / 1000  # a shift of all cells of a class is the commonest change: held less
        loss += 0.5 * float((prior * change**2).sum())
        return loss, (gradient + prior * change).ravel()

    start = np.zeros(len(there) * (width + 1))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    change = np.zeros((n_classes, width + 1))
    change[there] = found.x.reshape(len(there), width + 1)
    moved = change[:, :-1] / scale
    return Head(old.weight + moved, old.bias + change[:, -1] - moved @ center)


def move_means(
    views: Floats, labels: NDArray[np.int64], old: Head, space: FeatureSpace, learned: Learned = None
) -> tuple[Head, Floats]:
    """Move the class means to a new microscope, and give the layer that tells the classes apart by them.

    Parameters
    ----------
    views : (N, V, D) float
        Features of every cell in V views.
    labels : (N,) int
    old : Head
        Gives its scale to the new logits.
    space : FeatureSpace
        Where the classes lie for the microscopes of the training.
    learned : sequence of C bool, optional
        Classes that the training had cells of.

    Returns
    -------
    Head and the moved means (C, K)
        The mean of a class without a labeled cell moves with the common shift.  A class that has neither labeled nor
        training cells is never given.

    Notes
    -----
    Posterior means of Gaussian clouds with one covariance and a Gaussian prior, first of the common shift, then of
    each class about it; the layer is that of linear discriminant analysis with equal priors.

    Examples
    --------
    >>> import torch
    >>> space = FeatureSpace(torch.eye(1), torch.tensor([[-1.0], [1.0]]))      # classes at -1 and 1
    >>> views = np.full((200, 1, 1), 2.0) + np.repeat([-1.0, 1.0], 100)[:, None, None]       # all shifted by 2
    >>> head, means = move_means(views, np.repeat([0, 1], 100), Head(np.array([[-1.0], [1.0]]), np.zeros(2)), space)
    >>> means.round(1).ravel().tolist(), head.logits(np.array([[1.7], [2.3]])).argmax(1).tolist()
    ([1.0, 3.0], [0, 1])
    """
    whiten, start = space.whiten.cpu().double().numpy(), space.means.cpu().double().numpy()
    flat = views.reshape(-1, views.shape[2])
    away = (flat @ whiten).reshape(*views.shape[:2], -1).mean(1) - start[labels]
    shift = away.sum(0) / (len(labels) + _SHIFT_PRIOR)
    means = start + shift
    for label in np.unique(labels):
        own = away[labels == label]
        means[label] = start[label] + (own.sum(0) + _CLASS_PRIOR * shift) / (len(own) + _CLASS_PRIOR)
    known = np.bincount(labels, minlength=len(start)) > 0
    known |= np.ones(len(start), bool) if learned is None else np.array(learned)
    unscaled = _discriminant(whiten, start).logits(flat)
    scale = _spread(old.logits(flat)[:, known]) / max(_spread(unscaled[:, known]), 1e-9)
    found = _discriminant(whiten, means)
    return Head(found.weight * scale, found.bias * scale).without(known), means


def _discriminant(whiten: Floats, means: Floats) -> Head:
    """The layer whose logits are half the squared distances to the means, negated, but for what all classes share."""
    return Head(means @ whiten.T, -0.5 * (means**2).sum(1))


def _spread(logits: Floats) -> float:
    return float((logits - logits.mean(1, keepdims=True)).std())


def choose_head(
    views: Floats,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    old: Head,
    space: FeatureSpace | None = None,
    learned: Learned = None,
    progress: Progress | None = None,
) -> HeadFit:
    """The layer that cross-validation over groups likes best: the old one, one by moved means, or one refitted.

    Up to ten folds, each group in one; with ten groups or fewer each is left out alone.  The means are moved unless
    both right answers and log-loss speak against it.  The layer is refitted from there only where that has no fewer
    right answers and a log-loss that is lower by more than two standard errors; of the strengths of the prior that have
    that, the most held one is taken that is within a standard error of the best.

    Parameters
    ----------
    views : (N, V, D) float
        Features of every cell in V views, the cell as it is first.
    labels : (N,) int
    groups : (N,) str
        Original cell of each; copies of one stand on one side of a split, but where one group alone gives a class: its
        cells are judged one by one then, and the figures are too good (``slides_tell_classes``).
    old : Head
    space : FeatureSpace, optional
        Without one no means are moved.
    learned : sequence of C bool, optional
        Classes that the training had cells of.
    progress : Progress, optional
        Is told of every layer that is fitted, and can cancel.
    """
    progress = progress or Silent()
    parts = held_out_parts(labels, groups)
    count = np.bincount(labels, minlength=len(old.bias))
    strengths = STRENGTHS if count.min() >= _LEAST else tuple(s for s in STRENGTHS if s >= _CAREFUL)
    centers = [old] * len(parts)
    if space is not None:
        moved = [move_means(views[~out], labels[~out], old, space, learned)[0] for out in parts]
        if _worse(_held_out_logits(moved, parts, views), old.logits(views[:, 0]), labels):
            space = None
        else:
            centers = moved
    progress.start(TASK, len(strengths) * len(parts))
    logits = {}
    for strength in strengths:
        heads = []
        for out, near in zip(parts, centers, strict=True):
            check_cancelled(progress)
            heads.append(fit_head(views[~out], labels[~out], near, strength))
            progress.advance(TASK)
        logits[strength] = _held_out_logits(heads, parts, views)
    best = _best_strength(logits, labels)
    center, means = (old, None) if space is None else move_means(views, labels, old, space, learned)
    changed: Change = "layer" if np.isfinite(best) else "nothing" if means is None else "means"
    return HeadFit(fit_head(views, labels, center, best), changed, logits[best], means, best)


def _held_out_logits(heads: Sequence[Head], parts: Sequence[NDArray[np.bool_]], views: Floats) -> Floats:
    """Logits (N, C) of the cells of each part by the layer that was fitted without it."""
    logits = np.empty((len(views), len(heads[0].bias)))
    for head, out in zip(heads, parts, strict=True):
        logits[out] = head.logits(views[out, 0])
    return logits


def _worse(new: Floats, old: Floats, labels: NDArray[np.int64]) -> bool:
    """Whether logits (N, C) have both fewer right answers and a higher log-loss than others."""
    right = [int((logits.argmax(1) == labels).sum()) for logits in (new, old)]
    losses = [float(_tempered_losses(logits, labels).mean()) for logits in (new, old)]
    return right[0] < right[1] and losses[0] > losses[1]


def _best_strength(logits: dict[float, Floats], labels: NDArray[np.int64]) -> float:
    """The strength of the prior to take, from the held-out logits (N, C) of each, the unchanged layer first."""
    losses = {s: _tempered_losses(found, labels) for s, found in logits.items()}
    right = {s: int((found.argmax(1) == labels).sum()) for s, found in logits.items()}
    unchanged = STRENGTHS[0]
    better = [unchanged]
    for strength in logits:
        gain = _excess(losses[unchanged] - losses[strength])
        if strength != unchanged and right[strength] >= right[unchanged] and gain > _PROOF:
            better.append(strength)
    least = min(better, key=lambda s: float(losses[s].mean()))
    return next(s for s in better if _excess(losses[s] - losses[least]) <= 1)  # from the strongest prior down


def _excess(difference: Floats) -> float:
    """Mean in standard errors."""
    error = difference.std() / np.sqrt(len(difference))
    return float(difference.mean() / error) if error > 0 else 0.0


def _tempered_losses(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Log-loss of each cell at the temperature that suits the logits best: being bolder is no gain of a layer."""
    temperature = fit_temperature(logits.astype(np.float32), labels)
    losses: Floats = -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
    return losses


def held_out_parts(labels: NDArray[np.int64], groups: NDArray[np.str_], most: int = _FOLDS) -> list[NDArray[np.bool_]]:
    """For cross-validation: at most ``most`` parts (N,) bool that hold each cell once, a group in one of them."""
    fold = _folds(_splittable(labels, groups), most)
    return [fold == i for i in range(fold.max() + 1)]


def _splittable(labels: NDArray[np.int64], groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """The groups, but of a class that stands in one group alone each cell by itself: left out as a whole, it could not
    be known by any layer."""
    found = groups.astype(object)
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        if len(set(groups[here].tolist())) == 1:
            found[here] = [f"{groups[i]} cell {i}" for i in here.tolist()]
    return found.astype(str)


def _folds(groups: NDArray[np.str_], most: int) -> NDArray[np.int64]:
    """Fold of each cell; all cells of a group in one, the same for any order of the cells."""
    names = np.unique(groups)
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = dict(zip(names[order].tolist(), (np.arange(len(names)) % most).tolist(), strict=True))
    return np.array([fold_of[g] for g in groups.tolist()], np.int64)
