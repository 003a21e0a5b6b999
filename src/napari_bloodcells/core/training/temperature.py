"""Temperature scaling: one number that makes a network's confidence honest without changing what it says.

Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2: the logits are divided by the
temperature with the least cross-entropy on validation cells.  On a microscope that the network has not seen it is surer
than it should be all the same, so the temperature may rise with a cell's distance from the training (``fit_doubt``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

LOWEST, HIGHEST = 0.25, 8.0
STEEPEST = 5.0


def fit_temperature(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature for (N, C) logits and (N,) true classes, 0.25 to 8; 1 where there are no cells.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 2000)
    >>> right = rng.random(2000) < 0.8                        # right in 80 %, but as sure as 98 %
    >>> says = np.where(right, truth, 1 - truth)
    >>> logits = 4.0 * np.eye(2)[says]
    >>> round(4.0 / fit_temperature(logits, truth), 1), round(float(np.log(0.8 / 0.2)), 1)
    (1.4, 1.4)
    """
    if not len(truth):
        return 1.0
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, truth].mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def fit_doubt(
    microscopes: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]], most: float = 2.0
) -> float:
    """The slope of ``schema.Doubt`` with the least cross-entropy, every microscope counting as much.

    Parameters
    ----------
    microscopes : sequence of (logits (N, C) already divided by the temperature, distances (N,) as multiples of the one
        where doubt begins, true classes (N,))
        Known ones as well as unseen ones, so that the former are not doubted for the latter.
    most : float
        Beyond this multiple the temperature rises no more.

    Returns
    -------
    float
        0 (no doubt) to 5.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 4000)
    >>> far = np.repeat(np.float32([1, 2]), 2000)             # right in 98 % near, in 70 % far, as sure on both
    >>> right = rng.random(4000) < np.where(far > 1, 0.7, 0.98)
    >>> logits = 4.0 * np.eye(2)[np.where(right, truth, 1 - truth)]
    >>> round(2 ** fit_doubt([(logits, far, truth)]), 1), round(float(4 / np.log(0.7 / 0.3)), 1)
    (4.7, 4.7)
    """

    def loss(slope: float) -> float:
        total = 0.0
        for logits, distance, truth in microscopes:
            cooled = logits / np.clip(distance, 1, most)[:, None] ** slope
            total -= float(log_softmax(cooled, axis=1)[np.arange(len(truth)), truth].mean())
        return total

    return float(minimize_scalar(loss, bounds=(0, STEEPEST), method="bounded").x)
