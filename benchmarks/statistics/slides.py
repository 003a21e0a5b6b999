"""Simulated slides of real cells, and how many of the intervals hold the true proportions.

A slide has true proportions, drawn around a normal adult's.  So many cells are drawn from them, each a held-out cell of
its class with what the model really called it; unidentified ones drop out, as they do in a count.  Then the true
proportions are asked for: by the exact binomial interval of the machine's count (naive), and by ``correct``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.statistics.correction import Sampling, correct
from napari_bloodcells.core.statistics.intervals import clopper_pearson

ADULT = {"neutrophil": 0.60, "lymphocyte": 0.28, "monocyte": 0.07, "eosinophil": 0.04, "basophil": 0.01}
SPREAD = 25.0
"""Weight of the Dirichlet distribution around the adult's proportions: neutrophils from 40 to 78 % in 95 of 100."""
LEAST = 5
"""Classes with fewer real cells than this are left out of the slides of a source."""
ALL = "all classes"

Validation = NDArray[np.int64] | Callable[[np.random.Generator], NDArray[np.int64]]
"""What ``correct`` takes, (C, C) or (S, C, C), or a function that draws a new one for every slide."""


@dataclass(frozen=True)
class Simulation:
    """How slides are made: so many, of so many cells each, from one seed."""

    slides: int = 1000
    cells: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Coverage:
    """One line of the table: share of intervals that hold the truth; mean widths and biases in percent points."""

    case: str
    name: str
    intervals: int
    naive: float
    corrected: float
    naive_width: float
    corrected_width: float
    naive_bias: float
    corrected_bias: float


def simulate(
    case: str, names: tuple[str, ...], validation: Validation, test: NDArray[np.int64], how: Simulation
) -> list[Coverage]:
    """Coverage per class and of all.

    Parameters
    ----------
    case : str
    names : C class names
    validation : see ``Validation``
    test : (C, C + 1) int
        The real cells that slides are made of, true class by row; the last column is unidentified.
    how : Simulation
    """
    rng = np.random.default_rng(how.seed)
    present = np.flatnonzero(test.sum(1) >= LEAST)
    weights = np.array([ADULT.get(names[i], 0.01) for i in present])
    rates = test[present] / test[present].sum(1, keepdims=True)
    truth = rng.dirichlet(SPREAD * weights / weights.sum(), how.slides)
    naive, better = np.zeros((2, how.slides, len(present), 3))
    for i, share in enumerate(truth):
        cells = rng.multinomial(how.cells, share)
        called = sum(rng.multinomial(n, row) for n, row in zip(cells, rates, strict=True))[: len(names)]
        low, high = clopper_pearson(called, called.sum())
        naive[i] = np.stack([called / called.sum(), low, high], 1)[present]
        matrix = validation(rng) if callable(validation) else validation
        fit = correct(called, matrix, sampling=Sampling(chains=60, burn=40, keep=40, seed=i))
        better[i] = np.stack([fit.mean, fit.low, fit.high], 1)[present]
    lines = [_line(case, names[c], truth[:, k], naive[:, k], better[:, k]) for k, c in enumerate(present)]
    return [*lines, _line(case, ALL, truth.ravel(), naive.reshape(-1, 3), better.reshape(-1, 3))]


def _line(
    case: str, name: str, truth: NDArray[np.float64], naive: NDArray[np.float64], better: NDArray[np.float64]
) -> Coverage:
    held = [float(((t[:, 1] <= truth) & (truth <= t[:, 2])).mean()) for t in (naive, better)]
    width = [float(100 * (t[:, 2] - t[:, 1]).mean()) for t in (naive, better)]
    bias = [float(100 * (t[:, 0] - truth).mean()) for t in (naive, better)]
    return Coverage(case, name, len(truth), *held, *width, *bias)
