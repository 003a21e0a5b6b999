"""Intervals for counts: how far a percentage of so few cells may be from the truth.

``clopper_pearson`` is the exact binomial interval of one class by itself, the one of the Rümke table that hangs in
laboratories.  ``goodman`` holds for all classes at once, and is wider.  Everything is on fractions (0 to 1);
percentages are made where they are shown.  scipy.special is imported inside, so that this module costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Z = 1.959963984540054
"""The normal quantile of ``LEVEL``, two-sided."""


def _counts(count: ArrayLike, total: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    k, n = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(total, np.float64))
    if (k < 0).any() or (k > n).any():
        raise ValueError("counts must lie between 0 and their total")
    return k, n


def clopper_pearson(
    count: ArrayLike, total: ArrayLike, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact two-sided binomial interval of ``count`` of ``total`` cells.

    Parameters
    ----------
    count, total : array_like of int, broadcast together
        Cells of the class, and cells counted.
    level : float, 0 to 1
        Coverage that is at least reached.

    Returns
    -------
    low, high : float64 arrays of the broadcast shape
        Fractions, 0 to 1.  Where ``total`` is 0 nothing is known: 0 and 1.

    Notes
    -----
    Clopper and Pearson, Biometrika 26 (1934) 404-413; tabled for differential counts by Rümke, Triangle 4 (1960)
    154-158, and in CLSI H20-A2.

    Examples
    --------
    The row of the Rümke table that everybody knows, 5 % of 200 cells:

    >>> low, high = clopper_pearson(10, 200)
    >>> round(100 * float(low), 1), round(100 * float(high), 1)
    (2.4, 9.0)
    """
    from scipy.special import betaincinv

    k, n = _counts(count, total)
    tail = (1 - level) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return low, high


def goodman(counts: ArrayLike, level: float = LEVEL) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Simultaneous intervals of all classes of one differential: together they hold with ``level``.

    Parameters
    ----------
    counts : (C,) array_like of int
        Cells of each class; they make up the whole count.
    level : float, 0 to 1

    Returns
    -------
    low, high : (C,) float64
        Fractions, 0 to 1; 0 and 1 where nothing was counted.

    Notes
    -----
    Goodman, Technometrics 7 (1965) 247-254, equation 2.5: the score interval of Quesenberry and Hurst with the
    chi-square quantile at ``1 - (1 - level) / C`` on one degree of freedom.

    Examples
    --------
    >>> low, high = goodman([120, 60, 12, 6, 2])
    >>> np.round(100 * low, 1).tolist(), np.round(100 * high, 1).tolist()
    ([50.9, 22.4, 2.9, 1.1, 0.2], [68.5, 38.9, 11.9, 7.9, 5.0])
    """
    k = np.asarray(counts, np.float64)
    n = k.sum()
    if not n:
        return np.zeros(len(k)), np.ones(len(k))
    b = goodman_quantile(len(k), level)
    half = np.sqrt(b * (b + 4 * k * (n - k) / n))
    middle = b + 2 * k
    return np.clip((middle - half) / (2 * (n + b)), 0, 1), np.clip((middle + half) / (2 * (n + b)), 0, 1)


def goodman_quantile(classes: int, level: float = LEVEL) -> float:
    """The chi-square quantile that makes ``goodman`` hold for so many classes at once.

    >>> round(goodman_quantile(1), 3), round(goodman_quantile(5), 3)
    (3.841, 6.635)
    """
    from scipy.special import chdtri

    return float(chdtri(1, (1 - level) / max(classes, 1)))


def whole_percents(counts: ArrayLike) -> NDArray[np.int64]:
    """Whole percents that add up to exactly 100, by the largest remainder; zeros where nothing was counted.

    Ties go to the larger count, then to the class that stands first.

    >>> whole_percents([1, 1, 1]).tolist()
    [34, 33, 33]
    """
    k = np.asarray(counts, np.int64)
    n = int(k.sum())
    if not n:
        return np.zeros(len(k), np.int64)
    whole, remainder = np.divmod(100 * k, n)
    order = np.lexsort((np.arange(len(k)), -k, -remainder))
    whole[order[: 100 - int(whole.sum())]] += 1
    return whole
