"""How well a classifier does, each figure with a 95 % interval that knows which cells are one.

Copies and re-photographs of one original cell count as one draw: intervals come from a bootstrap over groups (1,000
resamples, fixed seed, percentiles).  A bootstrap of twenty right answers out of twenty says "certainly 100 %", so the
interval of a share is widened to Wilson's for as many draws as there are groups.  So is that of the balanced accuracy:
weights that differ from cell to cell only lose draws, never gain any (Kish, J Off Stat 8 (1992) 183-200).  Where all
classes have as many cells, it is the accuracy and has its interval, unless the few cells of each class alone widen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.schema import Metric
from napari_bloodcells.core.statistics.intervals import Z

RESAMPLES = 1000
BINS = 15


@dataclass(frozen=True)
class Scores:
    """Figures of one classifier on one set of cells.

    ``metrics`` as ``schema.Metric`` describes them; ``confusion`` (C, C) counts, true class by row; ``n`` cells of
    ``groups`` original cells.
    """

    metrics: tuple[Metric, ...]
    confusion: NDArray[np.int64]
    names: tuple[str, ...]
    n: int
    groups: int

    def __getitem__(self, key: str | tuple[str, str]) -> Metric:
        name, of = (key, "") if isinstance(key, str) else key
        return next(m for m in self.metrics if (m.name, m.of) == (name, of))

    def to_dict(self) -> dict[str, Any]:
        """Figures with intervals, over all cells and by class, and the confusion matrix, as plain values."""

        def figures(of: str) -> dict[str, Any]:
            return {
                m.name: {"value": round(m.value, 6), "low": round(m.low, 6), "high": round(m.high, 6), "n": m.n}
                for m in self.metrics
                if m.of == of
            }

        confusion = {"classes": list(self.names), "rows_are": "truth", "counts": self.confusion.tolist()}
        return {"overall": figures(""), "classes": {n: figures(n) for n in self.names}, "confusion": confusion}


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a ``share`` (0 to 1) of ``n`` draws: Wilson, JASA 22 (1927) 209-212.

    >>> low, high = wilson(1.0, 20)
    >>> round(low, 3), high
    (0.839, 1.0)
    """
    if n <= 0:
        return 0.0, 1.0
    z2 = Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def score(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    names: Sequence[str],
    groups: Sequence[str] | None = None,
    data: str = "validation",
) -> Scores:
    """Accuracy, balanced accuracy, ECE, and precision, recall and F1 of each class, with intervals.

    Parameters
    ----------
    truth : (N,) int
        True class of each cell, 0 to C - 1.
    probabilities : (N, C) float
    names : C class names
    groups : N names of the original cells, optional
        Each cell its own where None.
    data : str
        What the cells are, for the metrics' ``data``.

    Notes
    -----
    ECE: Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3, 15 bins.  Balanced accuracy is
    the mean recall of the classes that are there.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    >>> found = score(np.array([0, 0, 1, 1]), p, ["a", "b"])
    >>> found["accuracy"].value, found["recall", "b"].value, found.confusion.tolist()
    (0.75, 0.5, [[2, 0], [1, 1]])
    """
    n_classes = len(names)
    guess = probabilities.argmax(1)
    keys = np.unique(list(groups), return_inverse=True)[1] if groups is not None else np.arange(len(truth))
    n_groups = int(keys.max()) + 1 if len(keys) else 0
    table = np.zeros((n_groups, n_classes * n_classes))
    np.add.at(table, (keys, truth * n_classes + guess), 1)
    confidence = probabilities.max(1) if len(truth) else np.zeros(0)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.zeros((n_groups, BINS))
    np.add.at(gaps, (keys, bins), confidence - (guess == truth))

    draws = _resampled(n_groups)
    whole = np.ones((1, n_groups))
    exact = _figures(whole @ table, whole @ gaps, n_classes)
    drawn = _figures(draws @ table, draws @ gaps, n_classes)
    confusion = table.sum(0).reshape(n_classes, n_classes)
    by_group = table.reshape(n_groups, n_classes, n_classes)
    present, guessed = by_group.sum(2) > 0, by_group.sum(1) > 0
    metrics: list[Metric] = []
    for (name, of), values in exact.items():
        value = float(values[0])
        if not np.isfinite(value):
            continue  # a class that is neither there nor named by the model has no recall and no precision
        low, high = np.nanpercentile(drawn[name, of], [2.5, 97.5]) if n_groups else (0.0, 1.0)
        if name in ("accuracy", "balanced_accuracy"):
            low, high = _widen(low, high, value, n_groups)
            n = len(truth)
        elif name in ("recall", "f1"):
            low, high = _widen(low, high, value, int(present[:, of].sum())) if name == "recall" else (low, high)
            n = int(confusion[of].sum())
        elif name == "precision":
            low, high = _widen(low, high, value, int(guessed[:, of].sum()))
            n = int(confusion[:, of].sum())
        else:
            n = len(truth)
        label = names[of] if of >= 0 else ""
        low, high = min(float(low), value), max(float(high), value)
        metrics.append(Metric(name=name, of=label, data=data, value=value, low=max(low, 0), high=min(high, 1), n=n))
    metrics = _bound_means(metrics)
    return Scores(tuple(metrics), confusion.astype(np.int64), tuple(names), len(truth), n_groups)


def _resampled(n_groups: int) -> NDArray[np.float64]:
    """(RESAMPLES, n_groups): how often each group is drawn."""
    if not n_groups:
        return np.ones((1, 0))
    rng = np.random.default_rng(0)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), RESAMPLES).astype(np.float64)


def _figures(
    table: NDArray[np.float64], gaps: NDArray[np.float64], n: int
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """All figures for R tables at once: ``table`` (R, n * n), ``gaps`` (R, BINS) -> (R,) each."""
    confusion = table.reshape(-1, n, n)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    total = confusion.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / confusion.sum(2)
        precision = right / confusion.sum(1)
        f1 = 2 * right / (confusion.sum(1) + confusion.sum(2))
        found: dict[tuple[str, int], NDArray[np.float64]] = {
            ("accuracy", -1): right.sum(1) / total,
            ("balanced_accuracy", -1): np.nansum(recall, 1) / np.maximum((confusion.sum(2) > 0).sum(1), 1),
            ("ece", -1): np.abs(gaps).sum(1) / total,
        }
    for c in range(n):
        found |= {("precision", c): precision[:, c], ("recall", c): recall[:, c], ("f1", c): f1[:, c]}
    return found


def _widen(low: float, high: float, value: float, n: int) -> tuple[float, float]:
    by_count = wilson(value, n)
    return min(low, by_count[0]), max(high, by_count[1])


def _bound_means(metrics: list[Metric]) -> list[Metric]:
    """Widen the means of shares too, where the bootstrap alone would call the last of few cells certain.

    Balanced accuracy, the mean of C recalls: by the recalls' own intervals, ``sqrt(sum((r - low) ** 2)) / C`` (MOVER,
    Zou and Donner, Stat Med 27 (2008) 1693-1702).  That sees a class of few cells, which Wilson's over all groups does
    not, but takes the classes as independent, though they may share groups, which Wilson's sees: hence the wider one.
    F1 of 0 or 1: between the bounds of precision and recall.
    """
    recalls = [m for m in metrics if m.name == "recall"]
    done: list[Metric] = []
    for metric in metrics:
        low, high = metric.low, metric.high
        if metric.name == "balanced_accuracy" and recalls:
            below = np.sqrt(sum((m.value - m.low) ** 2 for m in recalls)) / len(recalls)
            above = np.sqrt(sum((m.high - m.value) ** 2 for m in recalls)) / len(recalls)
            low, high = min(low, metric.value - below), max(high, metric.value + above)
        elif metric.name == "f1" and metric.value in (0.0, 1.0):
            parts = [m for m in metrics if m.of == metric.of and m.name in ("precision", "recall")]
            low, high = min([low, *(m.low for m in parts)]), max([high, *(m.high for m in parts)])
        bounds = {"low": max(0.0, float(low)), "high": min(1.0, float(high))}
        done.append(metric.model_copy(update=bounds))
    return done
