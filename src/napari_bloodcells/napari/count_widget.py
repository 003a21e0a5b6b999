"""Differential count: the widget in which a smear is counted and reviewed.

It holds no cell itself: counting gives a ``Review``, the ``Desk`` puts it on the canvas, and the ``ReviewPanel`` shows
the review of the cell layer that is active.  What takes the window longer than a blink goes in ``Turns``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_bloodcells.core.errors import BloodcellsError, Cancelled
from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.class_bar import ClassBar
from napari_bloodcells.napari.count_form import MARGINS, WIDTH, CountForm
from napari_bloodcells.napari.counting import Counted, ModelShelf, count_fields
from napari_bloodcells.napari.desk import Desk
from napari_bloodcells.napari.differential_table import DifferentialTable
from napari_bloodcells.napari.drawn_cells import DrawnCells
from napari_bloodcells.napari.fields import Fields, fields_of
from napari_bloodcells.napari.gallery import Gallery
from napari_bloodcells.napari.reporting import report_input, report_options
from napari_bloodcells.napari.review_panel import ReviewPanel
from napari_bloodcells.napari.run_bar import RunBar
from napari_bloodcells.napari.software_gl import keep_programs
from napari_bloodcells.napari.turns import Turns
from napari_bloodcells.napari.worker import Task, report_error

if TYPE_CHECKING:
    import napari

_CHECK_MS = 250


class CountWidget(QWidget):
    """Count the white cells of an image and review them.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        keep_programs()
        self.viewer = napari_viewer
        chosen = preferences.counting()
        self.shelf = ModelShelf()
        self.counting = Task(self)
        self.reporting = Task(self)
        self.turns = Turns(self)
        self._fields: Fields | None = None

        self.form = CountForm(napari_viewer, chosen, self)
        self.run_bar = RunBar(self.counting, "Run", "Find and name every white cell of the image (Ctrl+Return).")
        self.run_bar.run.setShortcut("Ctrl+Return")
        self.panel = ReviewPanel(chosen.cells_wanted, self.say)
        self.desk = Desk(napari_viewer, self.say)
        self.drawn = DrawnCells(self.shelf, self.form.request, self.say, self)
        self._lay_out()

        self.run_bar.run.clicked.connect(self.run)
        self.counting.finished.connect(self._counted)
        self.counting.failed.connect(self._failed)
        self.reporting.finished.connect(lambda path: self.say(f"The report is in {path}."))
        self.reporting.failed.connect(lambda error: report_error(error, "Writing the report"))
        self.panel.draw.clicked.connect(self._start_drawing)
        self.panel.report.clicked.connect(self._ask_report)
        self.form.image_chosen.connect(self._on_image)
        self.desk.opened.connect(self.show_cells)
        self.desk.closed.connect(self._on_closed)
        self.desk.restored.connect(lambda _: show_info(self.run_bar.said.text()))
        napari_viewer.layers.selection.events.active.connect(self._on_active)
        self._timer = QTimer(self)
        self._timer.setInterval(_CHECK_MS)
        self._timer.timeout.connect(self.desk.check)
        self._timer.start()
        QTimer.singleShot(0, self._take_up)

    @property
    def cells(self) -> CellLayer | None:
        """The cell layer whose review is shown."""
        return self.panel.cells

    @property
    def table(self) -> DifferentialTable:
        """The differential of the review that is shown."""
        return self.panel.table

    @property
    def gallery(self) -> Gallery | None:
        """The gallery of the review that is shown."""
        return self.panel.gallery

    @property
    def class_bar(self) -> ClassBar | None:
        """The class buttons of the review that is shown."""
        return self.panel.class_bar

    def run(self) -> None:
        """Count the chosen image in a thread, after what is just being put on the canvas."""
        if self.turns.are_going:
            self.turns.take(self._run_in_turn())
        else:
            self._run_now()

    def say(self, text: str) -> None:
        """Show a line to the reviewer, here and in napari's status bar."""
        self.run_bar.say(text)
        self.viewer.status = text

    def show_cells(self, cells: CellLayer | None) -> None:
        """Show the review of a cell layer in table, buttons and gallery."""
        if cells is self.cells:
            return
        self.drawn.follow(cells)
        if cells is None:
            self.panel.clear()
        else:
            self.turns.take(self._showing(cells))

    def write_report(self, folder: Path) -> None:
        """Write the report of the review that is shown into a folder (``report.html``), in a thread."""
        if self.cells is None or self.cells.fields is None:
            self.say("Count or open some cells first.")
            return
        try:
            data = report_input(self.cells.review, self.cells.fields)
        except BloodcellsError as error:
            report_error(error, "Writing the report")
            return
        chosen = preferences.reference()
        self.table.set_reference(chosen)  # page and window flag by the same ranges
        options = report_options(chosen)

        def work(_: object) -> Path:
            from napari_bloodcells.core.report import write_reports

            return write_reports(data, folder, options=options)[0]

        self.reporting.start(work, f"Report into {folder}")

    def closeEvent(self, event: Any) -> None:
        self.let_go()
        super().closeEvent(event)

    def let_go(self) -> None:
        """Stop what runs and let go of the viewer; every review is in its journal."""
        self._timer.stop()
        self.turns.stop()
        for task in (self.counting, self.drawn.task, self.reporting):
            task.cancel()
        self.form.close_form()
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        self.desk.close()

    def _lay_out(self) -> None:
        self.head = QCollapsible("Image and model")
        self.head.addWidget(self.form)
        self.head.layout().setContentsMargins(0, 0, 0, 0)
        self.head.content().layout().setContentsMargins(2, 4, 0, 2)
        self.head.toggleButton().setToolTip("Show or hide what is chosen before a count.")
        self.head.expand(animate=False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*MARGINS)
        for widget in (self.head, self.run_bar):
            layout.addWidget(widget)
        layout.addWidget(self.panel, 1)
        self.setMinimumWidth(WIDTH)

    def _run_in_turn(self) -> Iterator[None]:
        yield
        self._run_now()

    def _run_now(self) -> None:
        image = self.form.image()
        if image is None:
            self.say("Open a photograph of a smear first (File, Open, or Open Sample).")
            return
        try:
            self._fields = fields_of(image)
        except BloodcellsError as error:
            report_error(error, "Counting")
            self.say(str(error))
            return
        fields, request, shelf = self._fields, self.form.request(), self.shelf
        self.counting.start(lambda progress: count_fields(fields, request, progress, shelf), f"Counting {image.name}")

    def _showing(self, cells: CellLayer) -> Iterator[None]:
        if self.desk.layers.get(cells.layer) is not cells:
            return
        for _ in self.panel.showing(cells):
            yield
            if self.desk.layers.get(cells.layer) is not cells:  # its layer was removed meanwhile
                self.panel.clear()
                return

    def _counted(self, counted: Counted) -> None:
        fields = self._fields
        if fields is not None and fields.layer in self.viewer.layers:
            self.turns.take(self._placing(counted, fields))

    def _placing(self, counted: Counted, fields: Fields) -> Iterator[None]:
        yield from self.desk.placing(counted.review, fields)
        n = len(counted.review)
        said = f"{n} white cells in {len(fields)} field{'s' if len(fields) > 1 else ''}."
        if counted.failed:
            said += f" {len(counted.failed)} could not be counted: {counted.failed[0]}"
        if not n:
            said += " Is this a stained smear in focus? Draw a frame around a cell that was missed."
        self.say(said)
        yield
        if n:  # what was chosen before Run makes room for the cells
            self.head.collapse(animate=False)
        self._canvas_focus()

    def _failed(self, error: BaseException) -> None:
        self.say("Stopped." if isinstance(error, Cancelled) else str(error))
        report_error(error, "Counting")

    def _start_drawing(self) -> None:
        if self.cells is not None:
            self.viewer.layers.selection.active = self.cells.layer
            self.cells.layer.mode = "add_rectangle"
            self.say("Drag a frame around the cell.")

    def _ask_report(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the report")
        if folder:
            self.write_report(Path(folder))

    def _on_image(self, image: Any) -> None:
        self.head.setText("Image and model" if image is None else f"Image and model: {image.name}")
        if image is not None and not self.counting.is_running:
            self.turns.take(self.desk.restoring(image))

    def _take_up(self) -> None:
        """What is open already when the widget comes: cell layers first, then the kept review of the image."""
        for layer in list(self.viewer.layers):
            self.desk.adopt(layer)
        self._on_image(self.form.image())

    def _on_active(self, event: Any = None) -> None:
        found = self.desk.layers.get(self.viewer.layers.selection.active)
        if found is not None:
            self.show_cells(found)

    def _on_closed(self, cells: CellLayer) -> None:
        if cells is self.cells:
            self.show_cells(None)
            other = next(iter(self.desk.layers.values()), None)
            if other is not None:
                self.show_cells(other)

    def _canvas_focus(self) -> None:
        """So that the keys work at once, without a click into the image."""
        canvas = self.window().findChild(QOpenGLWidget)
        if canvas is not None:
            canvas.setFocus()
