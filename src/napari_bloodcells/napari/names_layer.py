"""The names of the cells on the canvas.

Where a field has few cells each is named by the Shapes layer itself.  Where there are many, napari's text would take
seconds (13 s for 5,000 shapes, and a time that grows with their square even where most texts are empty), so only the
selected and the most uncertain cells are named, by a small Points layer that comes and goes with the need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.geometry import rectangle
from napari_bloodcells.napari.lettering import Lettering
from napari_bloodcells.napari.review import Review

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points, Shapes

FEW = 60
"""Up to so many shapes the Shapes layer carries the names."""
NAMED = 40
"""Of more cells, so many uncertain ones are named beside the selected."""
SIZE = 9


class CellNames:
    """Names on the canvas, kept beside the Shapes layer of a review."""

    def __init__(
        self,
        viewer: ViewerModel,
        layer: Shapes,
        review: Review,
        uncertain_below: float,
        lettering: Lettering | None = None,
    ) -> None:
        self.viewer = viewer
        self.layer = layer
        self.review = review
        self.uncertain_below = uncertain_below
        self.lettering = lettering
        self.points: Points | None = None
        self._shown: tuple[Any, ...] | None = None
        self._on_layer = False
        self._ids: Sequence[int] = ()
        self._held_back = False

    def close(self) -> None:
        """Take the names away."""
        self._drop_points()

    def show(self, ids: Sequence[int]) -> None:
        """Bring the names up to date; ``ids`` are the cells of the layer in the order of its shapes."""
        chosen = self._to_name(ids)
        state = (len(ids) <= FEW, tuple((c.id, c.box, self.text(c)) for c in chosen), tuple(ids[:FEW]))
        if (state == self._shown and not self._held_back) or self.layer not in self.viewer.layers:
            return
        self._shown, self._ids = state, ids
        texts = self._drawable([self.text(cell) for cell in chosen])
        if len(ids) <= FEW:
            self._drop_points()
            named = dict(zip((cell.id for cell in chosen), texts, strict=True))
            self._on_shapes([named.get(cell_id, "") for cell_id in ids])
        else:
            if self._on_layer:
                self.layer.text = None
                self._on_layer = False
            self._on_points(chosen, texts)

    def go_on(self) -> None:
        """Draw names that waited for their letters."""
        if self._held_back:
            self.show(self._ids)

    def text(self, cell: Cell) -> str:
        """What stands beside a cell: its class, with a question mark and the confidence while it is uncertain."""
        if self._uncertain(cell):
            return f"{cell.name}? {cell.confidence:.0%}"
        return cell.name

    def _drawable(self, texts: list[str]) -> list[str]:
        if self.lettering is None:
            return texts
        allowed = self.lettering.allow(texts)
        self._held_back = allowed != texts
        return allowed

    def _uncertain(self, cell: Cell) -> bool:
        return not cell.reviewed and cell.confidence < self.uncertain_below

    def _to_name(self, ids: Sequence[int]) -> list[Cell]:
        cells = [self.review.cell(i) for i in ids if i in self.review]
        shown = [c for c in cells if not self.review.is_bystander(c)]
        if len(ids) <= FEW:
            return shown
        selected = [self.review.cell(i) for i in self.review.selection[:NAMED]]
        doubtful = sorted((c for c in shown if self._uncertain(c)), key=lambda c: c.confidence)[:NAMED]
        return list({c.id: c for c in (*selected, *doubtful)}.values())

    def _on_shapes(self, texts: list[str]) -> None:
        if not texts:
            return
        self._on_layer = True
        self.layer.text = {
            "string": texts,
            "size": SIZE,
            "color": "black",
            "anchor": "upper_left",
            "translation": [0] * (self.layer.ndim - 2) + [-2, 0],
        }

    def _on_points(self, cells: Sequence[Cell], texts: list[str]) -> None:
        series = self.layer.ndim > 2
        corners = [rectangle(c.box, c.image if series else None)[0] for c in cells]
        data = np.array(corners, float).reshape(-1, self.layer.ndim)
        if self.points is None or self.points not in self.viewer.layers:
            active = self.viewer.layers.selection.active
            self.points = self.viewer.add_points(
                np.zeros((0, self.layer.ndim)),
                name=f"{self.layer.name} (names)",
                size=1,
                face_color="transparent",
                border_color="transparent",
                scale=self.layer.scale,
                translate=self.layer.translate,
                rotate=self.layer.rotate,
                shear=self.layer.shear,
                affine=self.layer.affine,
                units=self.layer.units,
                opacity=1,
            )
            self.points.editable = False
            self.viewer.layers.selection.active = active
        self.points.text = None
        self.points.data = data
        if len(cells):
            self.points.text = {
                "string": texts,
                "size": SIZE,
                "color": "black",
                "anchor": "upper_left",
            }

    def _drop_points(self) -> None:
        if self.points is not None and self.points in self.viewer.layers:
            self.viewer.layers.remove(self.points)
        self.points = None
