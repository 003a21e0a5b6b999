"""Class means moved to a new microscope by its unlabeled cells.

A new stain, lamp or camera moves the cells of each class in the space of the features; that space says how far the
microscopes of the training lay apart (``FeatureSpace.drift``).  The means of the classes are moved to where the cells
of the new microscope lie by expectation-maximization: each cell belongs to each class by a share, the means follow the
shares, held back by the drift that is known to happen, and the shares follow the means.  Shares are kept soft and the
old layer keeps a voice, or cells of one class would be taken for another's (``docs/accuracy.md``, row D).  The layer
that tells the classes apart by the moved means is linear, so it takes the place of the old one.

McLachlan and Krishnan, "The EM Algorithm and Extensions", 2008; the drift as an empirical prior is Efron and Morris's,
Journal of the American Statistical Association 1973.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.training.headfit import Floats, Head, Learned

_STEPS = 4
"""More of them only follow what went wrong in the first ones (``docs/accuracy.md``)."""
_ROUND = 0.3
"""Share of the drift that is taken to go as much in any direction, as few microscopes are known."""
_LOOSE = 2.0
"""A new microscope lies further away than those of the training from each other: so many times their variance."""
_SOFT = 8.0
"""By so much the squared distances are divided: directions are many and not independent, and as they are, every cell
would belong to one class alone."""
_VOICE = 0.4
"""Of the old layer's logits beside those of the distances."""
_EVEN = 0.2
"""Share of the cells that is taken to be spread evenly over the classes: none is given up for want of cells."""


@dataclass(frozen=True)
class Moved:
    """What unlabeled cells gave: the new layer, and the moved class means (C, K) of the space."""

    head: Head
    means: Floats


def move_to_unlabeled(
    features: Floats, old: Head, temperature: float, space: FeatureSpace, learned: Learned = None
) -> Moved:
    """Move the class means to cells that nobody labeled.

    Parameters
    ----------
    features : (N, D) float
        Of cells of one microscope, at best of several patients.
    old : Head
        The layer as it is, and ``temperature``, which its logits are divided by; the new ones are too.
    temperature : float
    space : FeatureSpace
        With ``drift``.
    learned : sequence of C bool, optional
        Classes that the training had cells of; no cell belongs to the others.

    Examples
    --------
    >>> import torch
    >>> space = FeatureSpace(torch.eye(1), torch.tensor([[-3.0], [3.0]]), torch.tensor([[2.0], [-2.0], [2.0], [-2.0]]))
    >>> old = Head(np.array([[-1.0], [1.0]]), np.zeros(2))
    >>> cells = np.concatenate([np.linspace(-2, 0, 50), np.linspace(4, 6, 50)])[:, None]      # all shifted by 2
    >>> moved = move_to_unlabeled(cells, old, 1.0, space)
    >>> moved.means.round().ravel().tolist(), moved.head.logits(np.array([[0.5]])).argmax(1).tolist()
    ([-1.0, 4.0], [0])
    """
    if space.drift is None:
        raise ValueError("a space of one microscope alone does not tell how far classes move")
    whiten, start, drift = (v.cpu().double().numpy() / space.within for v in (space.whiten, space.means, space.drift))
    turned = features @ whiten
    known = np.ones(len(start), bool) if learned is None else np.array(learned)
    said = old.logits(features) / temperature
    said[:, ~known] = -np.inf
    spread = drift.T @ drift / len(drift)
    spread = (1 - _ROUND) * spread + _ROUND * np.eye(len(spread)) * np.trace(spread) / len(spread)
    variance, axes = np.linalg.eigh(_LOOSE * spread)
    means = start.copy()
    belongs = softmax(said, axis=1)
    for _ in range(_STEPS):
        cells = belongs.sum(0)
        for c in range(len(means)):
            if cells[c] > 0:
                away = (belongs[:, c] @ turned / cells[c] - start[c]) @ axes
                means[c] = start[c] + (away * (variance / (variance + 1 / cells[c]))) @ axes.T
        shares = (1 - _EVEN) * cells / max(len(turned), 1) + _EVEN / known.sum()
        belongs = softmax(_by_distance(turned, means) + _VOICE * said + np.log(shares), axis=1)
    weight = means @ whiten.T / _SOFT * temperature + _VOICE * old.weight
    bias = -0.5 * (means**2).sum(1) / _SOFT * temperature + _VOICE * old.bias
    return Moved(Head(weight, bias).without(known), means * space.within)


def _by_distance(turned: Floats, means: Floats) -> Floats:
    """(N, K) cells -> (N, C) logits: half the squared distances to the means, negated, but for what all share."""
    logits: Floats = (turned @ means.T - 0.5 * (means**2).sum(1)) / _SOFT
    return logits
