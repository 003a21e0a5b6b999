"""How a model may err on the microscope of a slide, from its validation cells: weights of Dirichlet distributions.

Validation cells of one microscope, and slides of the same one: each row of the confusion matrix is known as well as
its cells are many.  Validation cells of several microscopes: the error rates of the slide's own one are a further draw
from the family of theirs, and no number of cells makes that certain.  ``correction.py`` takes its weights from here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ERROR_PRIOR = 0.1
"""Prior weight of each cell of the confusion matrix: little beside the validation cells, but no error impossible."""
LIKENESS = tuple(np.geomspace(1, 1000, 25).tolist())
"""Values that the likeness of microscopes may have, equally likely before the data: at 1 each errs in its own way, at
1000 all but alike (the intraclass correlation of errors is 1 / (1 + likeness))."""
_SWEEPS = 40
_EXACT = 200


def row_weights(confusion: NDArray[np.int64], draws: int, seed: int = 0) -> NDArray[np.float64]:
    """Dirichlet weights of the rows of the confusion matrix on the slide's microscope.

    Parameters
    ----------
    confusion : (C, C) or (S, C, C) int64
        Validation cells, true class by row: of the slide's own microscope, or of S others that it is taken to be like.
    draws : int
        How many sets of weights.
    seed : int

    Returns
    -------
    (draws, C, C) float64
        Row i of set d: errors of true class i are ``~ Dirichlet(weights[d, i])``.

    Notes
    -----
    With S microscopes, row i of each is ``~ Dirichlet(likeness * mean_i)``, ``mean_i ~ Dirichlet(0.1)``, its cells
    multinomial.  Drawn by Gibbs sampling with the table counts of Antoniak (Ann Stat 2 (1974) 1152-1174) as latent
    variables, as in Teh, Jordan, Beal and Blei, J Am Stat Assoc 101 (2006) 1566-1581, section 5.

    Examples
    --------
    Three microscopes with 0, 2 and 20 errors of 100 promise little for a fourth:

    >>> rates = np.array([[[100, 0], [0, 50]], [[98, 2], [0, 50]], [[80, 20], [0, 50]]])
    >>> one, several = row_weights(rates.sum(0), 20), row_weights(rates, 20)
    >>> float(one[:, 0].sum(1).mean()), bool(several[:, 0].sum(1).mean() < 60)
    (300.2, True)
    """
    if confusion.ndim == 2:
        return np.broadcast_to(confusion + ERROR_PRIOR, (draws, *confusion.shape)).astype(np.float64)
    sources = confusion[confusion.sum((1, 2)) > 0]
    if len(sources) < 2:
        return row_weights(confusion.sum(0), draws)
    return _drawn(sources.astype(np.int64).tobytes(), sources.shape, draws, seed)


@lru_cache(maxsize=8)
def _drawn(packed: bytes, shape: tuple[int, int, int], draws: int, seed: int) -> NDArray[np.float64]:
    from scipy.special import gammaln

    table = np.frombuffer(packed, np.int64).reshape(shape)
    rng = np.random.default_rng(seed)
    rows = table.sum(2)
    rows = rows[rows > 0]
    source, true, called = np.nonzero(table)
    cells = table[source, true, called]
    place = np.eye(table[0].size)[true * table.shape[2] + called]
    grid = np.array(LIKENESS)
    whole = np.array([(gammaln(k) - gammaln(k + rows)).sum() for k in grid])
    pooled = table.sum(0) + ERROR_PRIOR
    mean = np.broadcast_to(pooled / pooled.sum(1, keepdims=True), (draws, *pooled.shape))
    likeness = np.full(draws, grid[len(grid) // 2])
    for _ in range(_SWEEPS):
        weight = mean[:, true, called]
        fit = np.empty((draws, len(grid)))
        for k, value in enumerate(grid):
            fit[:, k] = whole[k] + (gammaln(value * weight + cells) - gammaln(value * weight)).sum(1)
        chance = np.exp(fit - fit.max(1, keepdims=True)).cumsum(1)
        likeness = grid[(chance < chance[:, -1:] * rng.random((draws, 1))).sum(1)]
        tables = (_tables(likeness[:, None] * weight, cells, rng) @ place).reshape(draws, *pooled.shape)
        drawn = np.maximum(rng.standard_gamma(tables + ERROR_PRIOR), 1e-30)
        mean = drawn / drawn.sum(2, keepdims=True)
    result: NDArray[np.float64] = likeness[:, None, None] * mean
    result.setflags(write=False)
    return result


def _tables(alpha: NDArray[np.float64], cells: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Antoniak's table counts: how many of ``cells`` (E,) opened a table of their own at ``alpha`` (draws, E).

    A sum of independent events, ``alpha / (alpha + k)`` likely for cell k; beyond the first 200, by the normal
    distribution with their mean and variance.
    """
    from scipy.special import digamma, polygamma

    steps = np.arange(min(int(cells.max()), _EXACT))
    opened = rng.random((*alpha.shape, len(steps)), np.float32) * (alpha[..., None] + steps) < alpha[..., None]
    found: NDArray[np.float64] = (opened & (steps < cells[:, None])).sum(2).astype(np.float64)
    many = np.flatnonzero(cells > _EXACT)
    if len(many):
        a, first, last = alpha[:, many], alpha[:, many] + _EXACT, alpha[:, many] + cells[many]
        mean = a * (digamma(last) - digamma(first))
        variance = np.maximum(mean - a**2 * (polygamma(1, first) - polygamma(1, last)), 0)
        rest = np.rint(rng.normal(mean, np.sqrt(variance)))
        found[:, many] += np.clip(rest, 0, cells[many] - _EXACT)
    return found
