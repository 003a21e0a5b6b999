"""The gallery: every cell as a crop, by class, the most uncertain first.

A click goes to the cell on the canvas; several can be selected and named at once, by a key or by dragging them onto a
class button or a cell of another class.  Only the crops in view are made and drawn, so ten thousand scroll like ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QRect, QSize, Qt
from qtpy.QtGui import QColor, QFontMetrics, QKeyEvent, QPainter, QPalette, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)
from superqt import QDoubleRangeSlider

from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.gallery_model import CELL_ROLE, CORRECTED, UNREVIEWED, GalleryFilter, GalleryModel
from napari_bloodcells.napari.palette import class_color, ink_on
from napari_bloodcells.napari.review import Review

CROP = 92
_STRIP = 16
_PAD = 3
_KEY_NAMES = {
    Qt.Key.Key_Delete: "Delete",
    Qt.Key.Key_Backspace: "Backspace",
    Qt.Key.Key_Space: "Space",
    Qt.Key.Key_Left: "Left",
    Qt.Key.Key_Right: "Right",
    Qt.Key.Key_Return: "Enter",
    Qt.Key.Key_Enter: "Enter",
}


def key_name(event: QKeyEvent) -> str:
    """A key press as napari spells it, ``Control-Shift-Z``; "" for keys that the list needs itself."""
    name = _KEY_NAMES.get(Qt.Key(event.key()), "")
    if not name and event.key() < 0x80:
        name = chr(event.key()).upper()
    if not name or (name in ("Left", "Right") and event.modifiers() & Qt.KeyboardModifier.ShiftModifier):
        return ""
    parts = [
        word
        for word, modifier in (
            ("Control", Qt.KeyboardModifier.ControlModifier),
            ("Alt", Qt.KeyboardModifier.AltModifier),
            ("Shift", Qt.KeyboardModifier.ShiftModifier),
        )
        if event.modifiers() & modifier
    ]
    return "-".join([*parts, name])


class CellDelegate(QStyledItemDelegate):
    """Draws one cell: its crop in a frame of its class color, the name below, a tick once it was looked at."""

    def __init__(self, review: Review, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.review = review

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        return QSize(CROP + 2 * _PAD, CROP + _STRIP + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        cell: Cell | None = index.data(CELL_ROLE)
        if cell is None:
            return
        color = class_color(self.review.scheme, cell.name)
        area = option.rect.adjusted(_PAD, _PAD, -_PAD, -_PAD)
        crop = QRect(area.left(), area.top(), CROP, CROP)
        painter.save()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, option.palette.color(QPalette.ColorRole.Highlight))
            painter.setPen(QPen(option.palette.color(QPalette.ColorRole.Text), 2))
            painter.drawRect(option.rect.adjusted(1, 1, -1, -1))
        pixmap = index.data(Qt.ItemDataRole.DecorationRole)
        if pixmap is None:
            painter.fillRect(crop, QColor(128, 128, 128, 90))
        else:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawPixmap(crop, pixmap)
        painter.setPen(QPen(QColor(color), 3))
        painter.drawRect(crop.adjusted(1, 1, -2, -2))
        strip = QRect(area.left(), crop.bottom() - 1, CROP, _STRIP)
        painter.fillRect(strip, QColor(color))
        painter.setPen(QColor(ink_on(color)))
        font = painter.font()
        font.setPixelSize(10)
        painter.setFont(font)
        sure = "" if math.isnan(cell.confidence) else f" {cell.confidence:.0%}"
        mark = "\u2713" if cell.reviewed else sure
        width = QFontMetrics(font).horizontalAdvance(mark)
        painter.drawText(strip.adjusted(2, 0, -2, 0), int(Qt.AlignmentFlag.AlignRight), mark)
        name = QFontMetrics(font).elidedText(cell.name, Qt.TextElideMode.ElideRight, CROP - width - 6)
        painter.drawText(strip.adjusted(2, 0, 0, 0), int(Qt.AlignmentFlag.AlignLeft), name)
        painter.restore()


class GalleryView(QListView):
    """The grid of crops."""

    def __init__(self, model: GalleryModel, actions: ReviewActions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.actions_table = actions.table()
        self.review = model.review
        self.go_to: Callable[[int], None] = actions.go_to
        self._following = False
        self._place = 0
        self.setModel(model)
        self.setItemDelegate(CellDelegate(model.review, self))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setLayoutMode(QListView.LayoutMode.Batched)
        self.setBatchSize(1000)
        self.setUniformItemSizes(True)
        self.setSpacing(2)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setDragDropMode(QAbstractItemView.DragDropMode.DragDrop)
        self.setDefaultDropAction(Qt.DropAction.CopyAction)
        self.setAccessibleName("Gallery of cells")
        self.clicked.connect(self._on_click)
        self.selectionModel().selectionChanged.connect(self._on_selection)
        self.review.selected.connect(self.follow)
        model.modelAboutToBeReset.connect(self._remember_place)
        model.modelReset.connect(self._keep_place)

    def gallery_model(self) -> GalleryModel:
        """The model, by its type."""
        model = self.model()
        assert isinstance(model, GalleryModel)
        return model

    def follow(self, ids: tuple[int, ...], scroll: bool = True) -> None:
        """Show the review's selection."""
        model = self.gallery_model()
        rows = [row for row in map(model.row_of, ids) if row is not None]
        chosen = QItemSelection()
        for row in rows:
            chosen.select(model.index(row), model.index(row))
        self._following = True
        flags = QItemSelectionModel.SelectionFlag
        self.selectionModel().select(chosen, flags.ClearAndSelect)
        if rows:
            self.selectionModel().setCurrentIndex(model.index(rows[-1]), flags.NoUpdate)
            if scroll:
                self.scrollTo(model.index(rows[-1]))
        self._following = False

    def _remember_place(self) -> None:
        self._place = self.verticalScrollBar().value()

    def _keep_place(self) -> None:
        """A cell that was named goes to its class; the view stays where the reviewer is at work."""
        self.follow(self.review.selection, scroll=False)
        self.doItemsLayout()
        self.verticalScrollBar().setValue(self._place)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        action = self.actions_table.get(key_name(event))
        if action is None:
            super().keyPressEvent(event)
        else:
            event.accept()
            action()

    def _on_selection(self, *_: object) -> None:
        if not self._following:
            rows = self.gallery_model().rows
            self.review.select([rows[index.row()] for index in self.selectionModel().selectedIndexes()])

    def _on_click(self, index: QModelIndex) -> None:
        if len(self.selectionModel().selectedIndexes()) == 1:
            self.go_to(self.gallery_model().rows[index.row()])


class Gallery(QWidget):
    """The grid with its filters."""

    def __init__(self, model: GalleryModel, actions: ReviewActions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = model
        model.setParent(self)
        model.thumbnails.setParent(self)
        self.view = GalleryView(model, actions, self)
        self.which = QComboBox()
        self.which.addItem("all classes", None)
        for name in (*model.review.class_names(), UNREVIEWED, CORRECTED):
            self.which.addItem(name, name)
        self.which.setToolTip("Show the cells of one class only, those not looked at yet, or those you corrected.")
        self.confidence = QDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.confidence.setRange(0.0, 1.0)
        self.confidence.setValue((0.0, 1.0))
        self.confidence.setToolTip("Show only cells of which the model is this sure.")
        self.tally = QLabel()
        row = QHBoxLayout()
        row.addWidget(self.which)
        self.span = QLabel("sure 0\u2013100 %")
        row.addWidget(self.span)
        row.addWidget(self.confidence, 1)
        row.addWidget(self.tally)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.view, 1)
        self.which.currentIndexChanged.connect(self._filter)
        self.confidence.valueChanged.connect(self._filter)
        model.modelReset.connect(self._tell)
        self._tell()

    def close_review(self) -> None:
        """Follow the review no longer."""
        self.model.close()
        self.model.thumbnails.close()
        self.view.review.selected.disconnect(self.view.follow, missing_ok=True)

    def _filter(self, *_: object) -> None:
        low, high = self.confidence.value()
        self.span.setText(f"sure {100 * low:.0f}\u2013{100 * high:.0f} %")
        self.model.set_filter(GalleryFilter(self.which.currentData(), low, high))

    def _tell(self) -> None:
        self.tally.setText(f"{len(self.model.rows)} of {len(self.model.review.reviewable())}")
