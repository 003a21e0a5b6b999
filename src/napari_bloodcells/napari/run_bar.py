"""Run, Cancel and the progress between them: the same three in every widget."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_bloodcells.napari.worker import Standing, Task


class RunBar(QWidget):
    """Two buttons and a bar that follow a task."""

    def __init__(self, task: Task, run_text: str, run_tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.run = QPushButton(run_text)
        self.run.setToolTip(run_tip)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop after the field that is being looked at now; what is shown stays as it is.")
        self.cancel.setEnabled(False)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.hide()
        self.said = QLabel()
        self.said.setWordWrap(True)
        self.row = row = QHBoxLayout()
        row.addWidget(self.run, 2)
        row.addWidget(self.cancel, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.said)
        self.cancel.clicked.connect(self._cancel)
        self._task = task
        task.told.connect(self._told)
        task.running.connect(self._running)

    def say(self, text: str) -> None:
        """Show a line under the buttons."""
        self.said.setText(text)

    def _cancel(self) -> None:
        self.say("Stopping \u2026")
        self.cancel.setEnabled(False)
        self._task.cancel()

    def _running(self, running: bool) -> None:
        self.run.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        if running:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("loading \u2026")
            self.say("")

    def _told(self, standing: Standing, news: list[Standing]) -> None:
        self.bar.setRange(0, standing.total or 1)
        self.bar.setValue(standing.done if standing.total else 0)
        figures = ", ".join(f"{name} {value:.3g}" for name, value in standing.values.items())
        self.bar.setFormat(
            " ".join(filter(None, [standing.task, "%v of %m" if standing.total else f"{standing.done}", figures]))
        )
