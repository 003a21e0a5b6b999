"""The last layer of a network fitted anew to few cells, held back by what it was.

Multinomial logistic regression on the features before the last layer, with a Gaussian prior that is centered on the
old layer (maximum a posteriori): with few cells the old layer stays, with many the new cells speak.  How strongly it
is held is chosen by cross-validation over the cells, and "not changed at all" is one of the choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from napari_bloodcells.core.training.temperature import fit_temperature

Floats = NDArray[np.float64]
STRENGTHS = (float("inf"), 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Weight of the prior against the mean log-loss of the cells; infinite leaves the layer as it was."""

_FOLDS = 10
_PROOF = 2.0
"""Standard errors by which the log-loss must fall before the old layer is given up: with one, 20 cells made two
of seven unseen sources worse by up to 6 points (``docs/accuracy.md``)."""
_LEAST, _CAREFUL = 3, 10.0
"""Where a class has fewer labeled cells than the first, the prior is at least as strong as the second."""


@dataclass(frozen=True)
class Head:
    """``weight`` (C, D) and ``bias`` (C,) of a linear layer: (N, D) features -> (N, C) logits."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(N, D) -> (N, C)."""
        result: Floats = features @ self.weight.T + self.bias
        return result


@dataclass(frozen=True)
class HeadFit:
    """A fitted layer.

    ``strength`` that was chosen; ``logits`` (N, C) of each cell by a layer that was fitted without its group.
    """

    head: Head
    strength: float
    logits: Floats


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


def choose_head(views: Floats, labels: NDArray[np.int64], groups: NDArray[np.str_], old: Head) -> HeadFit:
    """Fit the layer with the strength that cross-validation over groups likes best.

    Up to ten folds, each group in one; with ten groups or fewer each is left out alone.  The old layer stays unless
    another has no fewer right answers and a log-loss that is lower by more than two standard errors; of those, the most
    held one that is within a standard error of the best.
    """
    held_out = _folds(_splittable(labels, groups))
    count = np.bincount(labels, minlength=len(old.bias))
    strengths = STRENGTHS if count.min() >= _LEAST else tuple(s for s in STRENGTHS if s >= _CAREFUL)
    logits = {s: np.empty((len(labels), len(old.bias))) for s in strengths}
    for fold in range(held_out.max() + 1):
        out = held_out == fold
        for strength in strengths:
            head = fit_head(views[~out], labels[~out], old, strength)
            logits[strength][out] = head.logits(views[out, 0])
    losses = {s: _tempered_losses(found, labels) for s, found in logits.items()}
    right = {s: int((found.argmax(1) == labels).sum()) for s, found in logits.items()}
    unchanged = strengths[0]
    better = [unchanged]
    for strength in strengths[1:]:
        if right[strength] >= right[unchanged] and _excess(losses[unchanged] - losses[strength]) > _PROOF:
            better.append(strength)
    least = min(better, key=lambda s: float(losses[s].mean()))
    best = next(s for s in better if _excess(losses[s] - losses[least]) <= 1)  # from the strongest prior down
    return HeadFit(fit_head(views, labels, old, best), best, logits[best])


def _excess(difference: Floats) -> float:
    """Mean in standard errors."""
    error = difference.std() / np.sqrt(len(difference))
    return float(difference.mean() / error) if error > 0 else 0.0


def _tempered_losses(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Log-loss of each cell at the temperature that suits the logits best: being bolder is no gain of a layer."""
    temperature = fit_temperature(logits.astype(np.float32), labels)
    losses: Floats = -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
    return losses


def _splittable(labels: NDArray[np.int64], groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """The groups, but of a class that stands in one group alone each cell by itself: left out as a whole, it could not
    be known by any layer."""
    found = groups.astype(object)
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        if len(set(groups[here].tolist())) == 1:
            found[here] = [f"{groups[i]} cell {i}" for i in here.tolist()]
    return found.astype(str)


def _folds(groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Fold of each cell; all cells of a group in one, the same for any order of the cells."""
    names = np.unique(groups)
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = dict(zip(names[order].tolist(), (np.arange(len(names)) % _FOLDS).tolist(), strict=True))
    return np.array([fold_of[g] for g in groups.tolist()], np.int64)
