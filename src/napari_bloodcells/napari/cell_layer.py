"""A review on the canvas: one Shapes layer of boxes that follows the review, and whose changes go into it.

Whatever changes the layer (drawing, dragging, napari's delete and paste, the built-in features table, which edits in
place without an event) becomes a change of the review; whatever changes the review is put on the layer.  Rows are
told apart by ``ids``, which runs beside the shapes.  Qt-free: ``check`` is to be called now and then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.napari.cell import Cell, Edit
from napari_bloodcells.napari.cell_shapes import edge_width
from napari_bloodcells.napari.feature_edits import FeatureEdits
from napari_bloodcells.napari.fields import METADATA, Fields
from napari_bloodcells.napari.geometry import box_of, inside, plane_of, rectangle, rectangles
from napari_bloodcells.napari.lettering import Lettering
from napari_bloodcells.napari.names_layer import CellNames
from napari_bloodcells.napari.palette import class_color, rgba
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import deleted_rows, features_frame

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

_LOG = logging.getLogger(__name__)
_FINISHED = ("added", "changed", "removed")
_MANY_ROWS = 64
"""From so many changed rows on the features are set as a whole (36 ms for 5,000), not one by one (0.3 ms each)."""


class CellLayer:
    """Ties a review to a Shapes layer.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Shapes
        Its shapes are the cells of the review in their order (``cell_layer_data`` makes them).
    review : Review
    fields : Fields or None
        The image under the cells; None where it is not open.
    uncertain_below : float
        Unreviewed cells of less confidence are named on the canvas.
    lettering : Lettering, optional
        Has the names drawn a few letters at a time.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        layer: Shapes,
        review: Review,
        fields: Fields | None = None,
        uncertain_below: float = 0.8,
        lettering: Lettering | None = None,
    ) -> None:
        self.viewer = viewer
        self.layer = layer
        self.review = review
        self.fields = fields
        self.ids: list[int] = [cell.id for cell in review.cells]
        self.series = layer.ndim > 2
        self.names = CellNames(viewer, layer, review, uncertain_below, lettering)
        self._busy = False
        self._edits = FeatureEdits(layer)
        with self._alone():
            self._dress(range(len(self.ids)))
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)
        layer.selected_data.events.items_changed.connect(self._on_selected)
        review.changed.connect(self._on_edit)
        review.changed.connect(self._keep_deleted)
        self._keep_deleted()
        review.selected.connect(self._on_review_selected)
        self.names.show(self.ids)

    def close(self) -> None:
        """Cut all ties; the layer stays as it is."""
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.features.disconnect(self._on_features)
        self.layer.selected_data.events.items_changed.disconnect(self._on_selected)
        self.review.changed.disconnect(self._on_edit, missing_ok=True)
        self.review.changed.disconnect(self._keep_deleted, missing_ok=True)
        self.review.selected.disconnect(self._on_review_selected, missing_ok=True)
        self.names.close()

    def go_to(self, cell_id: int) -> None:
        """Select a cell and bring it to the middle of the canvas (its plane, where the layer is a series)."""
        cell = self.review.cell(cell_id)
        self.review.select([cell_id])
        center = rectangle(cell.box, cell.image if self.series else None).mean(0)
        world = self.layer.data_to_world(center)
        if self.series:
            first = self.viewer.dims.ndim - len(world)  # another layer may have more axes, which come before
            for axis in range(len(world) - 2):
                self.viewer.dims.set_point(first + axis, world[axis])
        camera = self.viewer.scene.camera if hasattr(self.viewer, "scene") else self.viewer.camera  # napari 0.9, before
        camera.center = (0.0, *world[-2:])

    def check(self) -> None:
        """What no event tells: classes that a table wrote into the features in place, and names yet to be drawn."""
        if not self._busy and len(self.ids) == self.layer.nshapes and self._edits.found():
            self._adopt_features()
        self.names.go_on()

    def _keep_deleted(self, edit: Edit | None = None) -> None:
        """The layer itself keeps what was deleted, as it is saved without the review."""
        if edit is None or edit.added or edit.removed:
            self.layer.metadata.setdefault(METADATA, {})["deleted"] = deleted_rows(self.review)

    # from the review to the layer

    def _on_edit(self, edit: Edit) -> None:
        if self._busy:
            return
        with self._alone():
            place = {cell_id: row for row, cell_id in enumerate(self.ids)}
            gone = [place[c.id] for c in edit.removed if c.id in place]
            pairs = zip(edit.before, edit.after, strict=True)
            reboxed = [a for b, a in pairs if a is not None and b is not None and a.box != b.box and a.id in place]
            data = self.layer.data if reboxed else []
            misplaced = [place[c.id] for c in reboxed if self._misplaced(c, data[place[c.id]])]
            away = sorted({*gone, *misplaced})
            back = [*(self.ids[row] for row in misplaced), *(c.id for c in edit.added if c.id not in place)]
            if away:
                self.layer.remove(away)
                self.ids = [cell_id for row, cell_id in enumerate(self.ids) if row not in set(away)]
            if back:
                self._add_shapes(back)
            touched = set(edit.ids)
            self._dress([row for row, cell_id in enumerate(self.ids) if cell_id in touched])
        self._on_review_selected(self.review.selection)

    def _add_shapes(self, ids: Sequence[int]) -> None:
        cells = [self.review.cell(i) for i in ids]
        self.layer.add(self._rectangles(cells), shape_type="rectangle", edge_width=self._width())
        self.ids.extend(ids)

    def _on_review_selected(self, ids: tuple[int, ...]) -> None:
        chosen = set(ids)
        rows = {row for row, cell_id in enumerate(self.ids) if cell_id in chosen}
        if not self._busy and rows != {int(row) for row in self.layer.selected_data}:
            with self._alone():
                self.layer.selected_data = rows
        self.names.show(self.ids)

    def _dress(self, rows: Sequence[int]) -> None:
        """Bring features and colors of some rows up to date."""
        cells = [self.review.cell(i) for i in self.ids]
        if not self._edits.covers(len(cells)) or len(rows) > _MANY_ROWS:
            self.layer.features = features_frame(self.review, cells)
        elif len(rows):
            self._write_rows(rows, [cells[row] for row in rows])
        colors = {row: rgba(class_color(self.review.scheme, cells[row].name)) for row in rows}
        self._paint(colors)
        self._edits.remember()

    def _write_rows(self, rows: Sequence[int], cells: Sequence[Cell]) -> None:
        """Write a few rows into the features that stand, which is quicker than a new table, and tell who shows them."""
        shown = self.layer.features
        new = features_frame(self.review, cells)
        if set(new["class"]) - set(shown["class"].cat.categories) or not set(new.columns) <= set(shown.columns):
            self.layer.features = features_frame(self.review, [self.review.cell(i) for i in self.ids])
            return
        for name in new.columns:
            column = shown.columns.get_loc(name)
            for k, row in enumerate(rows):
                shown.iat[row, column] = new[name].iat[k]
        self.layer.events.features()

    def _paint(self, colors: dict[int, tuple[float, float, float, float]]) -> None:
        if not colors:
            return
        if set(colors) == {int(row) for row in self.layer.selected_data} and len(set(colors.values())) == 1:
            self.layer.current_edge_color = np.array(next(iter(colors.values())))  # half the time of painting all
            return
        every = np.array(self.layer.edge_color)
        for row, color in colors.items():
            every[row] = color
        self.layer.edge_color = every

    # from the layer to the review

    def _on_data(self, event: Any) -> None:
        action = getattr(event, "action", None)
        if not self._busy and str(getattr(action, "value", action)) in _FINISHED:
            self._take_up_shapes()

    def _on_features(self, event: Any = None) -> None:
        if self._busy:
            return
        if self.layer.nshapes == len(self.ids):
            self._adopt_features()
        elif not str(self.layer.mode).startswith("add"):  # pasted; what is being drawn is told by ``events.data``
            self._take_up_shapes()

    def _on_selected(self, event: Any = None) -> None:
        if not self._busy:
            with self._alone():
                self.review.select([self.ids[int(r)] for r in self.layer.selected_data if int(r) < len(self.ids)])
            self.names.show(self.ids)

    def _take_up_shapes(self) -> None:
        """Make the review have the boxes that the layer has now."""
        layer = self.layer
        with self._alone():
            if layer.nshapes < len(self.ids):
                self._take_up_removed()
            elif layer.nshapes > len(self.ids):
                self._take_up_drawn(range(len(self.ids), layer.nshapes))
            else:
                boxes = {i: box_of(shape) for i, shape in zip(self.ids, layer.data, strict=True)}
                self._take_up_moved({i: box for i, box in boxes.items() if box != _rounded(self.review.cell(i))})
        self.names.show(self.ids)

    def _take_up_removed(self) -> None:
        left = set(zip(self.layer.features["image"], self.layer.features["cell"], strict=True))
        keys = {i: (self.review.images[c.image], c.number) for i in self.ids for c in [self.review.cell(i)]}
        gone = [i for i in self.ids if keys[i] not in left]
        if len(self.ids) - len(gone) != self.layer.nshapes:
            gone = self.ids[self.layer.nshapes :]
        self.ids = [i for i in self.ids if i not in set(gone)]
        self.review.remove(gone)
        self._dress([])

    def _take_up_drawn(self, rows: range) -> None:
        drawn: dict[int, list[Any]] = {}
        wrong: list[int] = []
        for row, shape in zip(rows, self.layer.data[rows.start :], strict=True):
            plane = plane_of(shape) if self.series else 0
            box = self._on_field(box_of(shape), plane)
            if box is None or not 0 <= plane < len(self.review.images):
                wrong.append(row)
            else:
                drawn.setdefault(plane, []).append(box)
        self.layer.remove(list(rows))
        for plane, boxes in drawn.items():
            self._add_shapes(self.review.add(plane, boxes))
        if wrong:
            _LOG.info("%s: a box outside of the field was left out.", self.layer.name)
        fresh = list(range(rows.start, len(self.ids)))
        self._dress(fresh)
        self.layer.selected_data = set(fresh)
        self.review.select([self.ids[row] for row in fresh])

    def _take_up_moved(self, boxes: dict[int, Any]) -> None:
        kept = {i: self._on_field(box, self.review.cell(i).image) for i, box in boxes.items()}
        self.review.move({i: box for i, box in kept.items() if box is not None})
        place, data = {i: row for row, i in enumerate(self.ids)}, self.layer.data
        crooked = [i for i in boxes if self._misplaced(self.review.cell(i), data[place[i]])]
        if crooked:  # turned, or dragged out of the field: the box goes back upright and inside
            rows = [place[i] for i in crooked]
            self.layer.remove(rows)
            self.ids = [i for i in self.ids if i not in set(crooked)]
            self._add_shapes(crooked)
        touched = set(boxes)
        self._dress([row for row, i in enumerate(self.ids) if i in touched])
        self.layer.selected_data = {row for row, i in enumerate(self.ids) if i in set(self.review.selection)}

    def _adopt_features(self) -> None:
        """Classes that were edited in a table become changes of the review; other columns are put back."""
        with self._alone():
            for name, ids in self._edits.classes(self.review, self.ids).items():
                self.review.classify(ids, name)
        self._edits.forget()
        with self._alone():
            self._dress(range(len(self.ids)))
        self.names.show(self.ids)

    # small things

    def _misplaced(self, cell: Cell, data: Any) -> bool:
        expected = rectangle(cell.box, cell.image if self.series else None)
        if data.shape != expected.shape:
            return True
        corners = np.sort(data, 0), np.sort(expected, 0)
        return not np.allclose(*corners, atol=0.02)

    def _on_field(self, box: Any, plane: int) -> Any:
        if self.fields is None or not 0 <= plane < len(self.fields):
            return box if box[2] - box[0] >= 1 and box[3] - box[1] >= 1 else None
        height, width = self.fields.sizes[plane]
        return inside(box, width, height)

    def _rectangles(self, cells: Sequence[Cell]) -> list[Any]:
        return rectangles([c.box for c in cells], [c.image for c in cells] if self.series else None)

    def _width(self) -> float:
        return edge_width(self.review.cells)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While this runs, what the layer and the review tell is not answered."""
        former, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = former


def _rounded(cell: Cell) -> Any:
    return tuple(round(float(v), 2) for v in cell.box)
