"""Edits that a table made in the features of a layer: napari's features table writes in place and tells nobody.

So the features are compared with what was put there last: the table itself, the codes of its classes, then the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_bloodcells.napari.review import Review

if TYPE_CHECKING:
    from napari.layers import Shapes


class FeatureEdits:
    """Compares the features of a layer with those that were put there.

    Parameters
    ----------
    layer : Shapes
    """

    def __init__(self, layer: Shapes) -> None:
        self.layer = layer
        self._table: Any = None
        self._copy: Any = None
        self._codes: bytes | None = None

    def covers(self, n: int) -> bool:
        """Whether ``n`` rows were put there, so that a few of them can be written in place."""
        return self._table is not None and len(self._table) == n

    def remember(self) -> None:
        """What stands in the layer now was put there by the review."""
        self._table = self.layer.features
        self._copy = self._table.copy()
        self._codes = _codes(self._table)

    def forget(self) -> None:
        """What stands in the layer is to be replaced as a whole."""
        self._table = None

    def found(self) -> bool:
        """Whether the features are no longer what was put there."""
        if self._table is None:
            return False
        shown = self.layer.features
        return not (shown is self._table and _codes(shown) == self._codes and bool(shown.equals(self._copy)))

    def classes(self, review: Review, ids: Sequence[int]) -> dict[str, list[int]]:
        """The classes that the table gave to cells (row by row ``ids``), with the cells that got each."""
        shown = self.layer.features
        wanted: dict[str, list[int]] = {}
        if "class" in shown.columns and len(shown) == len(ids):
            for cell_id, name in zip(ids, shown["class"].astype(str), strict=True):
                if name != review.cell(cell_id).name and name in review.class_names():
                    wanted.setdefault(name, []).append(cell_id)
        return wanted


def _codes(frame: Any) -> bytes | None:
    column = frame.get("class")
    return None if column is None or not hasattr(column, "cat") else column.cat.codes.to_numpy().tobytes()
