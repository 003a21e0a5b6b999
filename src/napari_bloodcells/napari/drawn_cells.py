"""Cells that a reviewer drew: the model names them at once, in a thread, one field after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer

from napari_bloodcells.napari.cell import Edit
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.counting import CountRequest, ModelShelf, classify_boxes
from napari_bloodcells.napari.worker import Task, report_error


class DrawnCells(QObject):
    """Follows the review of one cell layer and has what is drawn there named.

    Parameters
    ----------
    shelf : ModelShelf
    request : callable
        What is chosen in the form now.
    say : callable
        Shows a short line to the reviewer.
    """

    def __init__(
        self,
        shelf: ModelShelf,
        request: Callable[[], CountRequest],
        say: Callable[[str], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.shelf = shelf
        self.request = request
        self.say = say
        self.task = Task(self)
        self._cells: CellLayer | None = None
        self._waiting: list[tuple[CellLayer, int]] = []
        """Cells to be named, with their layers: another image may be shown by then."""
        self.task.finished.connect(self._named)
        self.task.failed.connect(lambda error: report_error(error, "Naming the drawn cell"))

    def follow(self, cells: CellLayer | None) -> None:
        """Follow the review of another layer, or none."""
        if self._cells is not None:
            self._cells.review.changed.disconnect(self._on_edit, missing_ok=True)
        self._cells = cells
        if cells is not None:
            cells.review.changed.connect(self._on_edit)

    def _on_edit(self, edit: Edit) -> None:
        if self._cells is not None:
            self._waiting += [(self._cells, number) for number in unclassified(edit)]
        if self._waiting:
            QTimer.singleShot(0, self._name)

    def _name(self) -> None:
        """Have the model name the drawn cells of one field."""
        if self.task.is_running:
            return
        self._waiting = [(cells, i) for cells, i in dict.fromkeys(self._waiting) if cells.fields and i in cells.review]
        if not self._waiting:
            return
        first, review, fields = self._waiting[0][0], self._waiting[0][0].review, self._waiting[0][0].fields
        assert fields is not None
        index = review.cell(self._waiting[0][1]).image
        chosen = [(cells, i) for cells, i in self._waiting if cells is first and review.cell(i).image == index]
        here = [review.cell(i) for _, i in chosen]
        self._waiting = [entry for entry in self._waiting if entry not in chosen]
        request, shelf, scheme = self.request(), self.shelf, review.scheme
        first.layer.mode = "select"
        self._review = review
        self.task.start(lambda _: classify_boxes(fields, index, here, scheme, request, shelf), "Naming the drawn cell")

    def _named(self, named: list[Any]) -> None:
        review = self._review
        review.settle(named)
        self.say(", ".join(f"{cell.name} ({cell.confidence:.0%})" for cell in named))
        QTimer.singleShot(0, self._name)


def unclassified(edit: Edit) -> list[int]:
    """Cells that an edit drew and no model has seen."""
    return [cell.id for cell in edit.added if cell.source == "drawn" and not cell.machine and not cell.probabilities]
