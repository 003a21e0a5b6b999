"""A line to choose a folder: a text field that takes drops, and a button that opens the dialog."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QToolButton, QWidget


class FolderChoice(QWidget):
    """The folder as text, changed by typing, by the dialog or by dropping one on it.

    Signals
    -------
    changed : str
    """

    changed = Signal(str)

    def __init__(self, caption: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.caption = caption
        self.line = QLineEdit()
        self.line.setToolTip(tip)
        self.line.setPlaceholderText("drop a folder here")
        self.line.setAcceptDrops(False)  # the widget takes them as a whole
        self.setAcceptDrops(True)
        browse = QToolButton()
        browse.setText("\u2026")
        browse.setToolTip(caption)
        browse.setAccessibleName(caption)
        browse.clicked.connect(self._browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(browse)
        self.line.textChanged.connect(self.changed)

    @property
    def path(self) -> Path | None:
        """The folder; None where nothing is written."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def choose(self, folder: Path | str) -> None:
        """Write a folder into the field."""
        self.line.setText(str(folder))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(Path(url.toLocalFile()).is_dir() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        for url in event.mimeData().urls():
            if Path(url.toLocalFile()).is_dir():
                self.choose(url.toLocalFile())
                event.acceptProposedAction()
                return

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.caption, self.line.text())
        if folder:
            self.choose(folder)
