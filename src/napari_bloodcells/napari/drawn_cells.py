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
        self._waiting: list[int] = []
        self.task.finished.connect(self._named)
        self.task.failed.connect(lambda error: report_error(error, "Naming the drawn cell"))

    def follow(self, cells: CellLayer | None) -> None:
        """Follow the review of another layer, or none."""
        if self._cells is not None:
            self._cells.review.changed.disconnect(self._on_edit, missing_ok=True)
        self._cells = cells
        self._waiting.clear()
        if cells is not None:
            cells.review.changed.connect(self._on_edit)

    def _on_edit(self, edit: Edit) -> None:
        self._waiting += unclassified(edit)
        if self._waiting:
            QTimer.singleShot(0, self._name)

    def _name(self) -> None:
        """Have the model name the drawn cells of one field."""
        if self._cells is None or self._cells.fields is None or self.task.is_running:
            return
        review, fields = self._cells.review, self._cells.fields
        drawn = [review.cell(i) for i in dict.fromkeys(self._waiting) if i in review]
        if not drawn:
            self._waiting.clear()
            return
        here = [cell for cell in drawn if cell.image == drawn[0].image]
        self._waiting = [cell.id for cell in drawn if cell not in here]
        index, request, shelf = here[0].image, self.request(), self.shelf
        self._cells.layer.mode = "select"
        self._review = review
        self.task.start(lambda _: classify_boxes(fields, index, here, request, shelf), "Naming the drawn cell")

    def _named(self, named: list[Any]) -> None:
        review = self._review
        review.settle(named)
        self.say(", ".join(f"{cell.name} ({cell.confidence:.0%})" for cell in named))
        QTimer.singleShot(0, self._name)


def unclassified(edit: Edit) -> list[int]:
    """Cells that an edit drew and no model has seen."""
    return [cell.id for cell in edit.added if cell.source == "drawn" and not cell.machine and not cell.probabilities]
