"""The two pictures of a training: its course, and which classes it takes for which."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_bloodcells.core.training.history import Epoch


def plot_history(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write losses and accuracies by epoch to ``path`` (PNG); a line marks the epoch that was kept."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    at = [e.epoch for e in epochs]
    losses.plot(at, [e.train_loss for e in epochs], ".-", color="#0072B2", label="training")
    losses.plot(at, [e.val_loss for e in epochs], ".-", color="#D55E00", label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    shares.plot(at, [e.train_accuracy for e in epochs], ".-", color="#0072B2", label="training")
    shares.plot(at, [e.val_accuracy for e in epochs], ".-", color="#D55E00", label="validation")
    shares.plot(at, [e.val_balanced_accuracy for e in epochs], ".--", color="#E69F00", label="validation, balanced")
    shares.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
    kept = [e.epoch for e in epochs if e.best]
    for axes in (losses, shares):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if kept:
            axes.axvline(kept[-1], color="0.6", lw=1, ls=":", label="kept")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_confusion(path: Path, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Write the (C, C) confusion matrix to ``path`` (PNG): counts, shaded by the share of the true class."""
    from matplotlib.figure import Figure

    n = len(names)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(2.6 + 0.62 * n, 2.0 + 0.62 * n), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), names, rotation=45, ha="right")
    axes.set_yticks(range(n), names)
    axes.set(xlabel="model", ylabel="truth")
    for row in range(n):
        for column in range(n):
            if confusion[row, column]:
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=shade)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomic(path, data.getvalue(), overwrite=True)
