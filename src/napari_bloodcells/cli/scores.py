"""Figures of a model as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from napari_bloodcells.core.schema import Metric
    from napari_bloodcells.core.statistics.metrics import Scores

WORDS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "ece": "calibration error (ECE)"}


def scores_table(scores: Scores, title: str) -> Table:
    """One row for each figure over all cells and for each class, with 95 % intervals in percent."""
    from rich.table import Table

    table = Table(title=f"{scores.n} {title}", title_justify="left")
    for column in ("", "recall", "precision", "F1", "cells"):
        table.add_column(column, justify="left" if not column else "right")
    figures = {(m.name, m.of): m for m in scores.metrics}
    for name in scores.names:
        shown = [percent(figures.get((kind, name))) for kind in ("recall", "precision", "f1")]
        table.add_row(name, *shown, str(int(scores.confusion[scores.names.index(name)].sum())))
    table.add_section()
    for kind, words in WORDS.items():
        table.add_row(words, percent(figures.get((kind, ""))), "", "", str(scores.n))
    return table


def percent(metric: Metric | None) -> str:
    """``92.0 % (88.1-94.9)``, or a dash where nothing is known."""
    if metric is None:
        return "-"
    return f"{100 * metric.value:.1f} % ({100 * metric.low:.1f}-{100 * metric.high:.1f})"
