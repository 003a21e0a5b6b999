"""Differential count: the widget in which a smear is counted and reviewed.

It holds no cell itself: counting gives a ``Review``, the ``Desk`` puts it on the canvas, and the ``ReviewPanel`` shows
the review of the image that is chosen, which is the one whose layer, or whose cells, were made active last; so head,
table and report are always of one image.  What takes the window longer than a blink goes in ``Turns``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QFileDialog, QVBoxLayout
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
from napari_bloodcells.napari.worker import DockedWidget, Task, report_error
from napari_bloodcells.napari.writers import write_cells_layer, write_coco_layer, write_voc_layer

if TYPE_CHECKING:
    import napari

_CHECK_MS = 250
_LOG = logging.getLogger(__name__)


class CountWidget(DockedWidget):
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
        self._shown: CellLayer | None = None  # whose review is shown, or will be in a turn
        self._gone = False
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="image")

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
        self.panel.save.clicked.connect(self._ask_file)
        self.panel.report.clicked.connect(self._ask_report)
        self.form.image_chosen.connect(self._on_image)
        self.form.image_renamed.connect(self._name_images)
        self.desk.opened.connect(self._open)
        self.desk.closed.connect(self._on_closed)
        self.desk.restored.connect(lambda _: show_info(self.run_bar.said.text()))
        napari_viewer.layers.selection.events.active.connect(self._on_active)
        self._timer = QTimer(self)
        self._timer.setInterval(_CHECK_MS)
        self._timer.timeout.connect(self._check)
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
        if cells is self._shown:
            return
        self._shown = cells
        self.drawn.follow(cells)
        self.panel.clear()
        self._name_images()
        if cells is not None:
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

    def save_cells(self, file: Path) -> None:
        """Save the cells that are shown, with their classes, as ``.csv``, ``.xml`` or ``.json``."""
        if self.cells is None:
            return
        writer = {".csv": write_cells_layer, ".xml": write_voc_layer, ".json": write_coco_layer}.get(
            file.suffix.casefold()
        )
        if writer is None:
            self.say(f"{file.name}: cells are saved as .csv, .xml or .json.")
            return
        try:
            data, attributes, _ = self.cells.layer.as_layer_data_tuple()
            written = [Path(name) for name in writer(str(file), data, attributes)]
        except BloodcellsError as error:
            report_error(error, "Saving the cells")
            return
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        self.say(f"The cells are in {written[0].name}{more}." if written else "There is no cell to save.")

    def let_go(self) -> None:
        """Stop what runs and let go of the viewer; every review is in its journal."""
        if self._gone:
            return
        self._gone = True
        self._timer.stop()
        self._reader.shutdown(wait=False, cancel_futures=True)
        for task in (self.counting, self.drawn.task, self.reporting):
            task.cancel()
        self.form.close_form()
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        self.desk.close()
        self.turns.stop()

    def _lay_out(self) -> None:
        self.head = QCollapsible("Image and model")
        self.head.addWidget(self.form)
        self.head.layout().setContentsMargins(0, 0, 0, 0)
        self.head.content().layout().setContentsMargins(2, 4, 0, 2)
        self.head.toggleButton().setToolTip("Show or hide what is chosen before a count.")
        self.head.expand(animate=False)
        layout = QVBoxLayout()
        layout.setContentsMargins(*MARGINS)
        for widget in (self.head, self.run_bar):
            layout.addWidget(widget)
        layout.addWidget(self.panel, 1)
        self.lay_out(layout)
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
            self._fields = fields_of(image, look=False)  # the thread looks
        except BloodcellsError as error:
            report_error(error, "Counting")
            self.say(str(error))
            return
        fields, request, shelf = self._fields, self.form.request(), self.shelf
        self.counting.start(lambda progress: count_fields(fields, request, progress, shelf), f"Counting {image.name}")

    def _showing(self, cells: CellLayer) -> Iterator[None]:
        if self._shown is not cells:
            return
        for _ in self.panel.showing(cells):
            yield
            if self._shown is not cells:  # its layer was removed meanwhile, or another image was chosen
                self.panel.clear()
                return

    def _check(self) -> None:
        """What no event tells: edits of the layers, and whose reference ranges the preferences ask for."""
        self.desk.check()
        if (chosen := preferences.reference()) != self.table.reference:
            self.table.set_reference(chosen)

    def _counted(self, counted: Counted) -> None:
        fields, self._fields = self._fields, None
        if not self._gone and fields is not None and fields.layer in self.viewer.layers:
            self.turns.take(self._placing(counted, fields))

    def _placing(self, counted: Counted, fields: Fields) -> Iterator[None]:
        kept = yield from self.desk.placing(counted.review, fields)
        n = len(counted.review)
        said = f"{n} white cells in {len(fields)} field{'s' if len(fields) > 1 else ''}."
        if counted.failed:
            said += f" {len(counted.failed)} could not be counted: {counted.failed[0]}"
        if not n:
            said += " Is this a stained smear in focus? Draw a frame around a cell that was missed."
        self.say(f"{said} {kept}".strip())
        yield
        if n:  # what was chosen before Run makes room for the cells
            self.head.collapse(animate=False)
        self._canvas_focus()

    def _failed(self, error: BaseException) -> None:
        self._fields = None
        self.say("Stopped." if isinstance(error, Cancelled) else str(error))
        report_error(error, "Counting")

    def _start_drawing(self) -> None:
        if self.cells is not None:
            self.viewer.layers.selection.active = self.cells.layer
            self.cells.layer.mode = "add_rectangle"
            self.say("Drag a frame around the cell.")

    def _ask_file(self) -> None:
        kinds = "Cells with their classes (*.csv);;VOC XML (*.xml);;COCO JSON (*.json)"
        name, kind = QFileDialog.getSaveFileName(
            self, "Save the cells", "cells.csv", kinds, options=QFileDialog.Option.DontConfirmOverwrite
        )  # a file of that name is put aside
        if name:
            file = Path(name)
            self.save_cells(file if file.suffix else file.with_suffix(kind[kind.index("*") + 1 : -1]))

    def _ask_report(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the report")
        if folder:
            self.write_report(Path(folder))

    def _on_image(self, image: Any) -> None:
        """Another image is chosen."""
        if not self.counting.is_running:
            self.run_bar.say("")  # what was said of the former one
        self._show_image(image)
        if image is not None and not self.counting.is_running:
            self.turns.take(self._restoring(image))

    def _show_image(self, image: Any) -> None:
        """Show the cells of an image, or that it has none, so that no other's differential stands under its name."""
        self._name_images()
        if image is not None and (self._shown is None or not _lie_on(self._shown, image)):
            self.show_cells(self.desk.of_image(image))

    def _open(self, cells: CellLayer) -> None:
        """Show cells, and choose their image."""
        self.show_cells(cells)
        if cells.fields is not None:
            self.form.choose_image(cells.fields.layer)

    def _restoring(self, image: Any) -> Iterator[None]:
        """Bring back the review that was kept of an image; the pixels that tell one without a file are read in a
        thread."""
        if image not in self.viewer.layers or self.desk.of_image(image) is not None:
            return
        try:
            fields = fields_of(image, look=False)
        except BloodcellsError:
            return
        if not fields.paths:
            reading = self._reader.submit(fields.digest)
            while not reading.done():
                yield
            if (error := reading.exception()) is not None:  # whatever stands behind a lazy array raises what it likes
                _LOG.warning("%s: cannot be read (%s: %s).", image.name, type(error).__name__, error)
                return
        yield from self.desk.restoring(image, fields)

    def _name_images(self) -> None:
        """The image that is chosen stands in the head, the one whose cells are shown over the table."""
        image, cells = self.form.image(), self._shown
        chosen = "" if image is None else image.name
        self.head.setText(f"Image and model: {chosen}" if chosen else "Image and model")
        if cells is None:
            self.table.name_image(chosen)
        elif cells.fields is not None:
            self.table.name_image(cells.fields.layer.name)
        else:
            self.table.name_image(", ".join(cells.review.images))

    def _take_up(self) -> None:
        """What is open already when the widget comes: cell layers first, then the kept review of the image."""
        if self._gone:
            return
        for layer in list(self.viewer.layers):
            self.desk.adopt(layer)
        self._on_image(self.form.image())

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        found = self.desk.layers.get(active)
        if found is not None:
            self._open(found)
        elif active.__class__.__name__ == "Image":
            self.form.choose_image(active)
            self._show_image(active)

    def _on_closed(self, cells: CellLayer) -> None:
        if cells is self._shown:
            self.show_cells(None)
            if not self._gone:
                self._show_image(self.form.image())

    def _canvas_focus(self) -> None:
        """So that the keys work at once, without a click into the image."""
        canvas = self.window().findChild(QOpenGLWidget)
        if canvas is not None:
            canvas.setFocus()


def _lie_on(cells: CellLayer, image: Any) -> bool:
    return cells.fields is not None and bool(cells.fields.layer == image)
