"""One field of a slide after it was looked at: whether it is counted, and the white cells that were found there.

What a field adds to the slide is all in here, exact and plain, so that it is the same through JSON and back: a run
that was killed goes on from the fields that are kept on disk (``kept.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SeenField:
    """One field that was looked at.

    Attributes
    ----------
    row, column : int
        Its place in the grid.
    counted : bool
        Whether its cells are counted; of one that is not, nothing else is held.
    n_red, n_platelets : int
        Red cells and platelets of its own part.
    remarks : tuple of str
        What is wrong with it as a photograph.
    boxes : (N, 4) float64
        White cells of its own part, and those just beyond its seams, in pixels of the slide.
    scores : (N,) float32
    owned : (N,) bool
        Whether the center lies in its own part.
    probabilities : (N, C) float32
    distances : (N,) float32
    """

    row: int
    column: int
    counted: bool = False
    n_red: int = 0
    n_platelets: int = 0
    remarks: tuple[str, ...] = ()
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    owned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    distances: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def place(self) -> tuple[int, int]:
        """Row and column."""
        return self.row, self.column

    @property
    def n_cells(self) -> int:
        """White cells of its own part."""
        return int(self.owned.sum())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every number with all its digits."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> SeenField:
        """The field that ``to_json`` was called on.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is none.
        """
        n = len(values["boxes"])
        found = {
            "boxes": np.array(values["boxes"], np.float64).reshape(n, 4),
            "scores": np.array(values["scores"], np.float32).reshape(n),
            "owned": np.array(values["owned"], np.bool_).reshape(n),
            "probabilities": np.array(values["probabilities"], np.float32).reshape(n, -1 if n else 0),
            "distances": np.array(values["distances"], np.float32).reshape(n),
        }
        return SeenField(**{**values, "remarks": tuple(values["remarks"]), **found})
