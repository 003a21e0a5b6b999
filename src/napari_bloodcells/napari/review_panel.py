"""The review of one cell layer in the window: differential, class buttons, gallery, undo and redo.

It is filled piece by piece (``showing``), because class buttons and gallery are made anew for each review.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from qtpy.QtCore import Qt
from qtpy.QtGui import QFocusEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.class_bar import ClassBar
from napari_bloodcells.napari.differential_table import DifferentialTable
from napari_bloodcells.napari.gallery import CROP, Gallery
from napari_bloodcells.napari.gallery_model import GalleryModel
from napari_bloodcells.napari.thumbnails import Thumbnails


class ReviewPanel(QWidget):
    """Shows the review of one cell layer, or that there is none.

    Parameters
    ----------
    wanted : int
        How many white cells a differential shall rest on.
    say : callable
        Shows a short line to the reviewer.
    """

    def __init__(self, wanted: int, say: Callable[[str], None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.say = say
        self.cells: CellLayer | None = None
        self.gallery: Gallery | None = None
        self.class_bar: ClassBar | None = None
        self.table = DifferentialTable(preferences.reference(), wanted)
        self.draw = _button("Draw a cell", "Drag a frame around a cell that was missed; it is named at once.")
        self.undo = _button("Undo", "Take the last change of a class or a frame back (Ctrl+Z).")
        self.redo = _button("Redo", "Make the change again (Ctrl+Shift+Z).")
        self.report = _button(
            "Report \u2026", "Write the differential, with every cell and your corrections, as one HTML page."
        )
        self.save = _button(
            "Save \u2026",
            "Save the cells with their classes: cells.csv, VOC XML or COCO JSON; nothing is written over.",
        )
        self.undo.clicked.connect(lambda: self.cells and self.cells.review.undo())
        self.redo.clicked.connect(lambda: self.cells and self.cells.review.redo())
        row = QHBoxLayout()
        for button in (self.draw, self.undo, self.redo, self.save, self.report):
            row.addWidget(button, 1)
        self._hint = QLabel("The cells appear here, class by class, the most uncertain first.")
        self._hint.setWordWrap(True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.table)
        self._layout.addLayout(row)
        self._layout.addWidget(self._hint, 1)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self._tell_history()

    def clear(self) -> None:
        """Show no review."""
        if self.cells is not None:
            self.cells.review.changed.disconnect(self._tell_history, missing_ok=True)
        self.cells = None
        self.table.show_review(None)
        if self.gallery is not None:
            self.gallery.close_review()
        for panel in (self.gallery, self.class_bar):
            if panel is not None:
                self._layout.removeWidget(panel)
                panel.hide()
                panel.deleteLater()
        self.gallery = self.class_bar = None
        self._hint.show()
        self._tell_history()

    def showing(self, cells: CellLayer) -> Iterator[None]:
        """Show the review of a cell layer, piece by piece."""
        self.clear()
        keys = preferences.class_keys(cells.review.scheme, preferences.reviewing().keys)
        class_bar = ClassBar(ReviewActions(cells.review, keys, cells.go_to, self.say))
        yield
        in_gallery = ReviewActions(cells.review, keys, cells.go_to, self.say)
        thumbnails = Thumbnails(cells.fields, round(CROP * self.devicePixelRatioF()), self)
        model = GalleryModel(cells.review, thumbnails, self)
        in_gallery.order = lambda: model.rows
        gallery = Gallery(model, in_gallery)
        yield
        self.cells, self.class_bar, self.gallery = cells, class_bar, gallery
        self.table.set_reference(preferences.reference())
        self.table.show_review(cells.review)
        yield
        if self.cells is not cells:  # closed meanwhile
            return
        self._hint.hide()
        self._layout.addWidget(class_bar)
        self._layout.addWidget(gallery, 1)
        stops = [self.save, self.report, *class_bar.buttons.values(), gallery.which, gallery.confidence, gallery.view]
        for before, after in pairwise(stops):
            QWidget.setTabOrder(before, after)
        cells.review.changed.connect(self._tell_history)
        self._tell_history()

    def focusInEvent(self, event: QFocusEvent) -> None:
        """A click on a class, on Undo or beside leads the keys to the gallery (a proxy would part the tab order)."""
        super().focusInEvent(event)
        if self.gallery is not None:
            self.gallery.view.setFocus()

    def _tell_history(self, *_: object) -> None:
        """What undo and redo would do stands in their tooltips; they are grey where there is nothing."""
        review = None if self.cells is None else self.cells.review
        self.draw.setEnabled(review is not None)
        self.save.setEnabled(review is not None)
        self.report.setEnabled(review is not None)
        for button, title, tip in (
            (self.undo, "" if review is None else review.undo_title, "Take back: {} (Ctrl+Z)."),
            (self.redo, "" if review is None else review.redo_title, "Make again: {} (Ctrl+Shift+Z)."),
        ):
            button.setEnabled(bool(title))
            button.setToolTip(tip.format(title or "nothing yet"))


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button
