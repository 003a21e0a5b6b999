"""One case of the bad-input matrix: a file, and what the count has to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Case:
    """A file of the matrix.

    Attributes
    ----------
    path : Path
        The image that ``images.csv`` must account for.
    expect : {"ok", "error", "either"}
        Its status; ``either`` where reading and refusing are both right, and only a crash or a hang would be wrong.
    cells : int or None
        How many cells it must give, where that is known.
    """

    path: Path
    expect: Literal["ok", "error", "either"]
    cells: int | None = None
