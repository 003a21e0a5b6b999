"""One button per class, with its color and key: it names the selected cells, and takes cells dropped on it."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QDragEnterEvent, QDropEvent, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QToolButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.gallery_model import MIME, dropped_ids
from napari_bloodcells.napari.palette import class_color, ink_on

_SHARP = 3
"""Pixels of a patch per pixel of the screen, so that it is sharp on dense screens too."""
_PATCH = (22, 16)


def swatch(color: str, letters: str = "", width: int = 14, height: int = 14) -> QIcon:
    """A patch of a class color with a rim that is seen on dark and on light grounds, and a key written on it."""
    pixmap = QPixmap(_SHARP * width, _SHARP * height)
    pixmap.fill(QColor(color))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, pixmap.width() - 1, pixmap.height() - 1)
    if letters:
        font = painter.font()
        font.setPixelSize(_SHARP * (height - (4 if len(letters) == 1 else 6)))
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(QColor(ink_on(color)))
        painter.drawText(pixmap.rect(), int(Qt.AlignmentFlag.AlignCenter), letters)
    painter.end()
    return QIcon(pixmap)


class ClassButton(QToolButton):
    """The button of one class: its color with the key on it, and its name."""

    def __init__(self, name: str, key: str, actions: ReviewActions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.key = key
        self.review = actions.review
        self.setText(name)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setIcon(swatch(class_color(actions.review.scheme, name), key.upper() if len(key) == 1 else key, *_PATCH))
        self.setIconSize(QSize(*_PATCH))
        self.setToolTip(
            f"Name the selected cells {name}: press {key or 'this button'}, or drag cells here from the gallery."
        )
        self.setAccessibleName(f"name selected cells {name}" + (f", key {key}" if key else ""))
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # so that a click leads the keys to the gallery
        self.setStyleSheet(
            "QToolButton { border: 1px solid rgba(128, 128, 128, 110); border-radius: 3px; padding: 2px 5px 2px 3px; }"
            "QToolButton:hover, QToolButton:focus { border-color: palette(highlight); }"
        )
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
        widest = max(button.sizeHint().width() for button in self.buttons.values())
        for button in self.buttons.values():
            button.setFixedWidth(widest)  # so that the rows stand in line
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(inner)
