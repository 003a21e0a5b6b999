"""One cell under review, and one edit of cells: plain frozen data without Qt, pandas or torch.

An edit keeps the cells as they were and as they are after it, whatever it did (a class, a box, a new cell, a deleted
one), so that undo, redo and the journal on disk need to know nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """One boxed cell.

    Attributes
    ----------
    id : int
        Unique in its review, never used again.
    image : int
        Position of its field in ``Review.images``.
    number : int
        Number within the image, from 1, as in ``cells.csv``.
    box : tuple of 4 float
        ``x_min y_min x_max y_max`` in pixels, continuous edges (``core/boxes.py``).
    name : str
        The class as it stands: of the scheme, ``unidentified``, ``not a WBC``, or a name that the scheme does not
        know (``RBC`` of a VOC file), which takes no part in the differential.
    machine : str
        The class that the model gave, kept when a person gives another one; "" where no model saw the cell.
    confidence : float, 0 to 1
        The highest probability; NaN where no model saw the cell.
    probabilities : tuple of float
        One per class of the scheme, in its order; empty where no model saw the cell.
    source : str
        Where the box is from: ``xml``, ``found``, ``whole`` or ``drawn``.
    distance : float
        From the training data, in units of the 99th percentile of cells held out of it.
    label : str
        The class that the data set itself gives.
    reviewed, reviewer, time
        Whether a person looked, who, and when (ISO 8601, UTC).
    origin : tuple of 4 float or None
        Where the box was found, once a person moved it: by this one the next count knows the cell.
    meant : str
        The class that a person gave under another scheme, where this one has only a wider class for it, or none.
    """

    id: int
    image: int
    number: int
    box: Box
    name: str
    machine: str = ""
    confidence: float = math.nan
    probabilities: tuple[float, ...] = ()
    source: str = "found"
    distance: float = math.nan
    label: str = ""
    reviewed: bool = False
    reviewer: str = ""
    time: str = ""
    origin: Box | None = None
    meant: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        values = asdict(self)
        return {k: (None if isinstance(v, float) and math.isnan(v) else v) for k, v in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Cell:
        """The cell that ``to_json`` was called on; raises ``ValueError`` or ``TypeError`` for anything else."""
        known = {f.name for f in fields(cls)}
        kept = {k: v for k, v in values.items() if k in known}
        kept["box"] = _box(kept["box"])
        kept["origin"] = None if kept.get("origin") is None else _box(kept["origin"])
        for name in ("confidence", "distance"):
            kept[name] = math.nan if kept.get(name) is None else float(kept[name])
        kept["probabilities"] = tuple(float(p) for p in kept.get("probabilities", ()))
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class Edit:
    """What one action of the reviewer changed: ``before[i]`` became ``after[i]``, None where there was no cell."""

    title: str
    before: tuple[Cell | None, ...]
    after: tuple[Cell | None, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The cells that it touched."""
        return tuple(cell.id for cell in (b or a for b, a in zip(self.before, self.after, strict=True)) if cell)

    @property
    def added(self) -> tuple[Cell, ...]:
        """Cells that came into being."""
        return tuple(a for b, a in zip(self.before, self.after, strict=True) if a is not None and b is None)

    @property
    def removed(self) -> tuple[Cell, ...]:
        """Cells that are gone."""
        return tuple(b for b, a in zip(self.before, self.after, strict=True) if b is not None and a is None)

    def reversed(self) -> Edit:
        """The edit that takes this one back."""
        return Edit(self.title, self.after, self.before)


def _box(values: Iterable[Any]) -> Box:
    x_min, y_min, x_max, y_max = (float(v) for v in values)
    if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))):
        raise ValueError("a box that is no number")
    return x_min, y_min, x_max, y_max
