"""One button per class, with its color and key: it names the selected cells, and takes cells dropped on it."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QDragEnterEvent, QDropEvent, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QToolButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.gallery_model import MIME, dropped_ids
from napari_bloodcells.napari.palette import class_color


def swatch(color: str, side: int = 14) -> QIcon:
    """A small square of a class color with a rim that is seen on dark and on light grounds."""
    pixmap = QPixmap(side * 2, side * 2)
    pixmap.fill(QColor(color))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, side * 2 - 1, side * 2 - 1)
    painter.end()
    return QIcon(pixmap)


class ClassButton(QToolButton):
    """The button of one class."""

    def __init__(self, name: str, key: str, actions: ReviewActions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.review = actions.review
        self.setText(f"{name}  [{key}]" if key else name)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setIcon(swatch(class_color(actions.review.scheme, name)))
        self.setToolTip(f"Name the selected cells {name} (key {key or 'none'}), or drag cells here from the gallery.")
        self.setAccessibleName(f"name selected cells {name}")
        self.setAutoRaise(False)
        self.setStyleSheet("QToolButton { border: 1px solid palette(mid); border-radius: 3px; padding: 2px 5px; }")
        self.setAcceptDrops(True)
        self.clicked.connect(lambda: actions.classify(name))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if event.mimeData().hasFormat(MIME):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.review.classify(dropped_ids(event.mimeData()), self.name)
        event.acceptProposedAction()


class ClassBar(QWidget):
    """All class buttons, in as many rows as they need."""

    def __init__(self, actions: ReviewActions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.buttons: dict[str, ClassButton] = {}
        inner = QWidget()
        flow = QFlowLayout(inner)
        flow.setContentsMargins(0, 0, 0, 0)
        flow.setSpacing(3)
        keys = {name: key for key, name in actions.keys.items()}
        for name in actions.review.class_names():
            key = "Del" if name == NOT_A_WBC else keys.get(name, "")
            self.buttons[name] = ClassButton(name, key, actions, inner)
            flow.addWidget(self.buttons[name])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(inner)
