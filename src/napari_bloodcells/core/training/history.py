"""The course of a training: one row an epoch, as ``history.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from napari_bloodcells.core.files import write_atomic


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: losses (cross-entropy), accuracies (0 to 1), learning rate, duration in seconds, and
    whether it was the best so far by balanced validation accuracy."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    learning_rate: float
    seconds: float
    best: bool

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return asdict(self)


def write_history(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write ``history.csv``: a line an epoch, figures to six digits."""
    names = [f.name for f in fields(Epoch)]
    lines = [",".join(names)]
    for row in epochs:
        values = row.as_dict()
        lines.append(",".join(_text(values[name]) for name in names))
    write_atomic(path, ("\n".join(lines) + "\n").encode(), overwrite=True)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.6g}"
