"""Proportions corrected for the classifier's own errors, with an interval that carries both uncertainties.

A classifier that calls 3 % of all neutrophils eosinophils reports eosinophils where there are none.  The confusion
matrix of the validation cells says how often that happens, and how sure we are of it.  ``correct`` draws from the
posterior of the true proportions given the counts *and* that matrix; ``bbse`` and ``saerens`` are the two quick
point estimates of the same, without an interval.  What each assumes stands in ``docs/statistics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_bloodcells.core.statistics.errorrates import row_weights
from napari_bloodcells.core.statistics.intervals import LEVEL

JEFFREYS = 0.5
"""Prior weight of a class in a smear: Jeffreys' for one proportion, so that a class never seen keeps an interval that
reaches 0 and no further than the exact one."""


@dataclass(frozen=True)
class Sampling:
    """How the posterior is drawn: ``chains`` independent chains, ``burn`` steps thrown away, ``keep`` kept."""

    chains: int = 100
    burn: int = 60
    keep: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Corrected:
    """True proportions as the posterior gives them: mean, and equal-tailed interval; (C,) or (B, C), 0 to 1."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def correct(
    counts: ArrayLike,
    confusion: ArrayLike,
    *,
    known: ArrayLike | None = None,
    keep: ArrayLike | None = None,
    sampling: Sampling | None = None,
) -> Corrected:
    """True proportions behind machine counts, given the confusion matrix of the validation cells.

    Parameters
    ----------
    counts : (C,) or (B, C) array_like of int
        Cells that the machine put in each class; rows of a 2-D array are independent slides.
    confusion : (C, C) or (S, C, C) array_like of int
        Validation cells, true class by row, machine's class by column.  Counts, not rates: they say how sure it is.
        One matrix where they are of the slide's own microscope; one for each of S microscopes where the slide's is
        like these, but may err differently.
    known : same shape as ``counts``, optional
        Cells whose true class a person has given; they are not in ``counts``.
    keep : (C,) array_like of bool, optional
        The classes that make up the hundred percent (white cells); all where None.
    sampling : Sampling, optional

    Returns
    -------
    Corrected
        Of the kept classes, in their order.

    Notes
    -----
    Bayesian, by Gibbs sampling with the true classes of the counted cells as latent variables: proportions
    ``t ~ Dirichlet(1/2)``, rows of the true confusion matrix ``M_i ~ Dirichlet(w_i)`` with the weights of
    ``errorrates.row_weights``, machine counts ``~ Multinomial(t M)``.  As in Gelman et al., *Bayesian Data Analysis*
    (2013), ch. 11-12 (method); the problem is that of Rogan and Gladen, Am J Epidemiol 107 (1978) 71-76, for several
    classes.  A lower limit below ``0.025 / n`` is given as 0: that is the least one that the exact interval of ``n``
    cells can have (one cell seen), and classes that are nearly absent lie below a positive limit too often.

    Examples
    --------
    One in ten neutrophils is called an eosinophil: 18 eosinophils of 200 may all be neutrophils.

    >>> fit = correct([182, 18], [[900, 100], [0, 500]])
    >>> bool(fit.mean[1] < 0.03), bool(fit.low[1] < 0.005)
    (True, True)
    """
    sampling = sampling or Sampling()
    observed = np.atleast_2d(np.asarray(counts, np.int64))
    matrix = np.asarray(confusion, np.int64)
    fits = matrix.ndim in (2, 3) and matrix.shape[-2:] == (observed.shape[1],) * 2
    if not fits or (matrix < 0).any() or (observed < 0).any():
        raise ValueError(f"counts of {observed.shape[1]} classes do not fit a {matrix.shape} confusion matrix")
    sure = np.zeros_like(observed) if known is None else np.atleast_2d(np.asarray(known, np.int64))
    chosen = np.ones(observed.shape[1], bool) if keep is None else np.asarray(keep, bool)
    rng = np.random.default_rng(sampling.seed)
    rows = row_weights(matrix, sampling.chains)
    results = [_posterior(n, k, rows, sampling, rng)[:, chosen] for n, k in zip(observed, sure, strict=True)]
    tail = (1 - LEVEL) / 2
    stacked = np.stack([draws / draws.sum(1, keepdims=True) for draws in results])
    low, high = np.quantile(stacked, [tail, 1 - tail], axis=1)
    cells = (observed + sure)[:, chosen].sum(1, keepdims=True)
    low = np.where(low * cells < tail, 0.0, low)
    parts = (stacked.mean(1), low, high)
    mean, low, high = (part if np.ndim(counts) > 1 else part[0] for part in parts)
    return Corrected(mean, low, high)


def _posterior(
    n: NDArray[np.int64], known: NDArray[np.int64], rows: NDArray[np.float64], how: Sampling, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws of the proportions of one slide, (chains * keep, C)."""
    classes = len(n)
    theta = _dirichlet(np.broadcast_to(n + known + JEFFREYS, (how.chains, classes)), rng)
    errors = _dirichlet(rows, rng)
    draws = []
    for step in range(how.burn + how.keep):
        joint = theta[:, :, None] * errors  # (chains, true, called)
        by_called = np.swapaxes(joint / joint.sum(1, keepdims=True), 1, 2)
        latent = np.swapaxes(rng.multinomial(np.broadcast_to(n, (how.chains, classes)), by_called), 1, 2)
        theta = _dirichlet(latent.sum(2) + known + JEFFREYS, rng)
        errors = _dirichlet(rows + latent, rng)
        if step >= how.burn:
            draws.append(theta)
    return np.concatenate(draws)


def _dirichlet(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    gammas = np.maximum(rng.standard_gamma(weights), 1e-300)
    result: NDArray[np.float64] = gammas / gammas.sum(-1, keepdims=True)
    return result


def bbse(counts: ArrayLike, confusion: ArrayLike) -> NDArray[np.float64]:
    """Black-box shift estimation: proportions (C,) whose expected machine counts come nearest to those seen.

    Lipton, Wang and Smola, ICML 2018, section 4, with the constraint that proportions are not negative and add to 1
    (non-negative least squares) instead of clipping.

    >>> np.round(bbse([182, 18], [[900, 100], [0, 500]]), 2).tolist()
    [1.0, 0.0]
    """
    from scipy.optimize import nnls

    n = np.asarray(counts, np.float64)
    rates = np.asarray(confusion, np.float64)
    rates = rates / np.maximum(rates.sum(1, keepdims=True), 1)
    seen = n / max(n.sum(), 1)
    weight = 1e3  # holds the sum at 1 within rounding
    solution, _ = nnls(np.vstack([rates.T, np.full(len(n), weight)]), np.append(seen, weight))
    result: NDArray[np.float64] = solution / solution.sum()
    return result


def saerens(
    probabilities: ArrayLike, trained_on: ArrayLike, *, tolerance: float = 1e-6, steps: int = 1000
) -> NDArray[np.float64]:
    """Proportions (C,) that fit a slide's cells best, when only the mixture differs from the training data.

    Parameters
    ----------
    probabilities : (N, C) array_like
        Calibrated probabilities of the cells of the slide; rows add to 1.
    trained_on : (C,) array_like
        Proportions of the classes that the probabilities were calibrated on.

    Notes
    -----
    Expectation maximization of Saerens, Latinne and Decaestecker, Neural Computation 14 (2002) 21-41.

    >>> np.round(saerens([[0.9, 0.1]] * 3 + [[0.1, 0.9]], [0.5, 0.5]), 2).tolist()
    [0.81, 0.19]
    """
    p = np.asarray(probabilities, np.float64)
    base = np.asarray(trained_on, np.float64)
    base = base / base.sum()
    prior: NDArray[np.float64] = base.copy()
    for _ in range(steps):
        weighted = p * (prior / np.maximum(base, 1e-12))
        weighted /= np.maximum(weighted.sum(1, keepdims=True), 1e-300)
        former, prior = prior, np.asarray(weighted.mean(0), np.float64)
        if np.abs(former - prior).max() < tolerance:
            break
    return prior
