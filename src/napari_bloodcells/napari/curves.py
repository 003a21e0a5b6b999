"""Loss and accuracy while a network learns, drawn by matplotlib in the colors of napari's theme."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_bloodcells.napari.worker import Standing

TRAINING, VALIDATION = "#E69F00", "#56B4E9"
_REDRAW_MS = 400


class Curves(QWidget):
    """Two small plots, drawn again at most a few times a second."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        self._timer = QTimer(self)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.draw)
        self.steps: dict[str, list[tuple[float, float]]] = {}
        self._count = 0
        self.figure = Figure(figsize=(4, 3.2), layout="constrained")
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.canvas.setMinimumHeight(240)
        self.canvas.setAccessibleName("Loss and accuracy of the training")
        self.axes = dict(zip(("loss", "accuracy"), self.figure.subplots(2, 1, sharex=True), strict=True))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)

    def clear(self) -> None:
        """Forget all points."""
        self.steps, self._count = {}, 0
        self.draw()

    def add(self, news: Sequence[Standing]) -> None:
        """Take up the figures of some steps: ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``."""
        for standing in news:
            self._count += bool(standing.values)
            for name, value in standing.values.items():
                if name.removeprefix("val_") in self.axes:
                    self.steps.setdefault(name, []).append((self._count, value))
        if news and not self._timer.isActive():
            self._timer.start()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):  # another theme
            self._timer.start()

    def draw(self) -> None:
        """Draw all points."""
        from matplotlib.ticker import MaxNLocator

        palette = self.palette()
        ground, ink = (palette.color(role).name() for role in (QPalette.ColorRole.Window, QPalette.ColorRole.Text))
        self.figure.set_facecolor(ground)
        for name, axis in self.axes.items():
            axis.clear()
            axis.set_facecolor(ground)
            axis.set_ylabel(name, color=ink)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.tick_params(colors=ink, labelsize=8)
            for spine in axis.spines.values():
                spine.set_color(ink)
            for key, color, label in ((name, TRAINING, "training"), (f"val_{name}", VALIDATION, "validation")):
                points = self.steps.get(key, [])
                if points:
                    marker = "o" if key.startswith("val_") else ""
                    axis.plot(*zip(*points, strict=True), color=color, label=label, marker=marker, markersize=4)
            if axis.lines and name == "loss":
                axis.legend(fontsize=8, labelcolor=ink, frameon=False)
        self.axes["accuracy"].set_xlabel("step", color=ink)
        self.canvas.draw_idle()
