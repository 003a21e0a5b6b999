"""The cells of a review as a list for Qt: filtered by class and confidence, by class, the most uncertain first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractListModel, QMimeData, QModelIndex, QObject, Qt

from napari_bloodcells.napari.cell import Cell, Edit
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.thumbnails import Thumbnails

MIME = "application/x-bloodcells-ids"
CELL_ROLE = int(Qt.ItemDataRole.UserRole) + 1
UNREVIEWED, CORRECTED = "not reviewed", "corrected"


@dataclass(frozen=True)
class GalleryFilter:
    """Which cells are shown: of one class (None for all), or ``not reviewed``, or ``corrected``; confidence 0 to 1."""

    name: str | None = None
    low: float = 0.0
    high: float = 1.0

    def shows(self, cell: Cell) -> bool:
        """Whether ``cell`` is shown; one that no model saw counts as wholly uncertain."""
        confidence = 0.0 if math.isnan(cell.confidence) else cell.confidence
        if not self.low <= confidence <= self.high:
            return False
        if self.name == UNREVIEWED:
            return not cell.reviewed
        if self.name == CORRECTED:
            return cell.reviewed and cell.name != cell.machine
        return self.name is None or cell.name == self.name


def ordered(review: Review, chosen: GalleryFilter) -> list[int]:
    """Ids of the cells to show: class by class in the order of the scheme, in each the most uncertain first."""
    place = {name: k for k, name in enumerate(review.class_names())}
    cells = [cell for cell in review.reviewable() if chosen.shows(cell)]
    cells.sort(key=lambda c: (place[c.name], -1.0 if math.isnan(c.confidence) else c.confidence, c.id))
    return [cell.id for cell in cells]


class GalleryModel(QAbstractListModel):
    """Cells as list items; follows the review."""

    def __init__(self, review: Review, thumbnails: Thumbnails, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.review = review
        self.thumbnails = thumbnails
        self.filter = GalleryFilter()
        self.rows: list[int] = ordered(review, self.filter)
        self._place = {cell_id: row for row, cell_id in enumerate(self.rows)}
        review.changed.connect(self._on_edit)
        thumbnails.ready.connect(self.refresh)

    def close(self) -> None:
        """Follow the review no longer."""
        self.review.changed.disconnect(self._on_edit, missing_ok=True)

    def set_filter(self, chosen: GalleryFilter) -> None:
        """Show other cells."""
        self.filter = chosen
        self._reorder()

    def row_of(self, cell_id: int) -> int | None:
        """Where a cell is shown; None where it is filtered out."""
        return self._place.get(cell_id)

    def refresh(self, ids: Iterable[int]) -> None:
        """Draw these cells again."""
        for row in sorted(self._place[i] for i in ids if i in self._place):
            index = self.index(row)
            self.dataChanged.emit(index, index)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def data(self, index: QModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        if not index.isValid() or not 0 <= index.row() < len(self.rows):
            return None
        if self.rows[index.row()] not in self.review:  # deleted, and this model is not told yet
            return None
        cell = self.review.cell(self.rows[index.row()])
        if role == CELL_ROLE:
            return cell
        if role == int(Qt.ItemDataRole.DecorationRole):
            return self.thumbnails.get(cell)
        if role == int(Qt.ItemDataRole.ToolTipRole):
            return describe(cell, self.review)
        if role in (int(Qt.ItemDataRole.DisplayRole), int(Qt.ItemDataRole.AccessibleTextRole)):
            return cell.name
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        usual = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return usual | Qt.ItemFlag.ItemIsDragEnabled | Qt.ItemFlag.ItemIsDropEnabled

    def mimeTypes(self) -> list[str]:
        return [MIME]

    def mimeData(self, indexes: Sequence[QModelIndex]) -> QMimeData:
        data = QMimeData()
        data.setData(MIME, ",".join(str(self.rows[i.row()]) for i in indexes).encode())
        return data

    def canDropMimeData(self, data: QMimeData, *args: Any) -> bool:
        return data.hasFormat(MIME)

    def dropMimeData(self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: QModelIndex) -> bool:
        """Cells dropped on a cell get its class."""
        if parent.isValid():
            self.review.classify(dropped_ids(data), self.review.cell(self.rows[parent.row()]).name)
        return False  # nothing is inserted or moved: the order follows the review

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.CopyAction | Qt.DropAction.MoveAction

    def _on_edit(self, edit: Edit) -> None:
        if ordered(self.review, self.filter) == self.rows:
            self.refresh(edit.ids)
        else:
            self._reorder()

    def _reorder(self) -> None:
        self.beginResetModel()
        self.rows = ordered(self.review, self.filter)
        self._place = {cell_id: row for row, cell_id in enumerate(self.rows)}
        self.endResetModel()


def dropped_ids(data: QMimeData) -> list[int]:
    """Ids of the cells that are being dragged; empty where it is something else."""
    text = bytes(data.data(MIME)).decode("ascii", "ignore")
    return [int(part) for part in text.split(",") if part.isdigit()]


def describe(cell: Cell, review: Review) -> str:
    """All that is known of a cell, for a tooltip."""
    lines = [f"<b>{cell.name}</b>, cell {cell.number} of {review.images[cell.image]}"]
    if cell.machine and cell.machine != cell.name:
        lines.append(f"the model said {cell.machine}")
    if cell.probabilities:
        best = sorted(zip(cell.probabilities, review.scheme.names, strict=True), reverse=True)
        lines += [f"{p:.0%} {name}" for p, name in best if p >= 0.01]
    if cell.distance == cell.distance and cell.distance > 1:
        lines.append("unlike the cells that the model was trained on")
    if cell.reviewed:
        lines.append(f"looked at by {cell.reviewer}, {cell.time}")
    return "<br>".join(lines)
