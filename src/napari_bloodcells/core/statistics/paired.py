"""Two readers who named the same cells: how far they agree, and whether one of them says a class more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from napari_bloodcells.core.statistics.intervals import Z


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its 95 % interval (large-sample standard error); NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int


def cohen_kappa(confusion: ArrayLike) -> Kappa:
    """Cohen's kappa of a square table of counts.

    Cohen, Educ Psychol Meas 20 (1960) 37-46; the standard error of Fleiss, Cohen and Everitt, Psychol Bull 72 (1969)
    323-327.

    >>> k = cohen_kappa([[20, 5], [10, 15]])
    >>> round(k.value, 3), round(k.low, 3), round(k.high, 3)
    (0.4, 0.151, 0.649)
    """
    table = np.asarray(confusion, np.float64)
    n = int(table.sum())
    if not n:
        return Kappa(math.nan, math.nan, math.nan, 0)
    p = table / n
    rows, columns = p.sum(1), p.sum(0)
    observed, chance = float(np.trace(p)), float(rows @ columns)
    if chance >= 1:
        return Kappa(math.nan, math.nan, math.nan, n)
    kappa = (observed - chance) / (1 - chance)
    diagonal = np.diag(p)
    first = float((diagonal * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    cross = p * (columns[:, None] + rows[None, :]) ** 2
    second = (1 - kappa) ** 2 * float(cross.sum() - np.trace(cross))
    third = (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(first + second - third, 0) / n) / (1 - chance)
    return Kappa(kappa, max(-1.0, kappa - Z * error), min(1.0, kappa + Z * error), n)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p that A and B give a class to one set of cells equally often.

    ``only_a`` and ``only_b`` are the cells that got it from one of them alone: without a bias each of these fell to
    either like a fair coin (McNemar, Psychometrika 12 (1947) 153-157).

    >>> round(mcnemar(9, 0), 4), mcnemar(4, 4), mcnemar(0, 0)
    (0.0039, 1.0, 1.0)
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, in their order, adjusted so that a false alarm in any is no likelier than the level.

    Holm, Scand J Stat 6 (1979) 65-70; holds also where the tests depend on each other, as those of classes do.

    >>> holm([0.25, 0.125])
    [0.25, 0.25]
    """
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted
