"""Differential count: the widget in which a smear is counted and reviewed.

It holds no cell itself: counting gives a ``Review``, the ``Desk`` puts it on the canvas, and table, class buttons and
gallery show the review of the cell layer that is active.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import Qt, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QPushButton, QSplitter, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_bloodcells.core.errors import BloodcellsError, Cancelled
from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.actions import ReviewActions
from napari_bloodcells.napari.cell import Edit
from napari_bloodcells.napari.cell_layer import CellLayer
from napari_bloodcells.napari.class_bar import ClassBar
from napari_bloodcells.napari.count_form import CountForm
from napari_bloodcells.napari.counting import Counted, ModelShelf, classify_boxes, count_fields
from napari_bloodcells.napari.desk import Desk, unclassified
from napari_bloodcells.napari.differential_table import DifferentialTable
from napari_bloodcells.napari.fields import Fields, fields_of
from napari_bloodcells.napari.gallery import CROP, Gallery
from napari_bloodcells.napari.gallery_model import GalleryModel
from napari_bloodcells.napari.reporting import report_input
from napari_bloodcells.napari.run_bar import RunBar
from napari_bloodcells.napari.thumbnails import Thumbnails
from napari_bloodcells.napari.worker import Task, report_error

if TYPE_CHECKING:
    import napari

_CHECK_MS = 250
WANTED = (100, 200, 400)


class CountWidget(QWidget):
    """Count the white cells of an image and review them.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        chosen = preferences.counting()
        self.shelf = ModelShelf()
        self.counting = Task(self)
        self.classifying = Task(self)
        self.reporting = Task(self)
        self.cells: CellLayer | None = None
        self.gallery: Gallery | None = None
        self.class_bar: ClassBar | None = None
        self._waiting: list[int] = []
        self._fields: Fields | None = None

        self.form = CountForm(napari_viewer, chosen, self)
        self.run_bar = RunBar(self.counting, "Run", "Find and name every white cell of the image (Ctrl+Return).")
        self.run_bar.run.setShortcut("Ctrl+Return")
        self.table = DifferentialTable(preferences.reference(), chosen.cells_wanted)
        self.desk = Desk(napari_viewer, self.say)
        self._lay_out(chosen.cells_wanted)

        self.run_bar.run.clicked.connect(self.run)
        self.counting.finished.connect(self._counted)
        self.counting.failed.connect(self._failed)
        self.classifying.finished.connect(self._classified)
        self.classifying.failed.connect(lambda error: report_error(error, "Naming the drawn cell"))
        self.reporting.finished.connect(lambda path: self.say(f"The report is in {path}."))
        self.reporting.failed.connect(lambda error: report_error(error, "Writing the report"))
        self.form.image_chosen.connect(self._on_image)
        self.desk.opened.connect(self.show_cells)
        self.desk.closed.connect(self._on_closed)
        napari_viewer.layers.selection.events.active.connect(self._on_active)
        self._timer = QTimer(self)
        self._timer.setInterval(_CHECK_MS)
        self._timer.timeout.connect(self.desk.check)
        self._timer.start()
        QTimer.singleShot(0, self._take_up)

    def run(self) -> None:
        """Count the chosen image in a thread."""
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

    def say(self, text: str) -> None:
        """Show a line to the reviewer, here and in napari's status bar."""
        self.run_bar.say(text)
        self.viewer.status = text

    def show_cells(self, cells: CellLayer | None) -> None:
        """Show the review of a cell layer in table, buttons and gallery."""
        if cells is self.cells:
            return
        if self.cells is not None:
            self.cells.review.changed.disconnect(self._on_edit, missing_ok=True)
        self.cells = cells
        self.table.show_review(None if cells is None else cells.review)
        self._drop_panels()
        if cells is None:
            return
        cells.review.changed.connect(self._on_edit)
        keys = preferences.class_keys(cells.review.scheme, preferences.reviewing().keys)
        on_canvas = ReviewActions(cells.review, keys, cells.go_to, self.say)
        in_gallery = ReviewActions(cells.review, keys, cells.go_to, self.say)
        thumbnails = Thumbnails(cells.fields, round(CROP * self.devicePixelRatioF()), self)
        model = GalleryModel(cells.review, thumbnails, self)
        in_gallery.order = lambda: model.rows
        self.class_bar = ClassBar(on_canvas)
        self.gallery = Gallery(model, in_gallery)
        self._buttons.addWidget(self.class_bar)
        self._lower.addWidget(self.gallery, 1)
        self._draw.setEnabled(True)

    def closeEvent(self, event: Any) -> None:
        self.let_go()
        super().closeEvent(event)

    def let_go(self) -> None:
        """Stop what runs and let go of the viewer; every review is in its journal."""
        self._timer.stop()
        for task in (self.counting, self.classifying, self.reporting):
            task.cancel()
        self.form.close_form()
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        self.desk.close()

    def _lay_out(self, wanted: int) -> None:
        head = QCollapsible("Count")
        head.addWidget(self.form)
        head.expand(animate=False)
        self.head = head
        self.wanted = QComboBox()
        for number in WANTED:
            self.wanted.addItem(f"{number} wanted", number)
        self.wanted.setCurrentIndex(max(0, self.wanted.findData(wanted)))
        self.wanted.setToolTip("How many white cells the differential shall rest on.")
        self.wanted.currentIndexChanged.connect(lambda _: self.table.set_wanted(self.wanted.currentData()))
        self._draw = QPushButton("Draw a cell")
        self._draw.setToolTip("Drag a frame around a cell that was missed; it is named at once.")
        self._draw.setEnabled(False)
        self._draw.clicked.connect(self._start_drawing)
        undo, redo = QPushButton("Undo"), QPushButton("Redo")
        undo.setToolTip("Take the last change of a class or a frame back (Ctrl+Z).")
        redo.setToolTip("Make the change again (Ctrl+Shift+Z).")
        undo.clicked.connect(lambda: self.cells and self.cells.review.undo())
        redo.clicked.connect(lambda: self.cells and self.cells.review.redo())
        self.undo, self.redo = undo, redo
        self.report = QPushButton("Report \u2026")
        self.report.setToolTip("Write the differential, with every cell and your corrections, as one HTML page.")
        self.report.clicked.connect(self._ask_report)
        row = QHBoxLayout()
        for widget in (self._draw, undo, redo, self.report, self.wanted):
            row.addWidget(widget)
        upper, lower = QWidget(), QWidget()
        above = QVBoxLayout(upper)
        above.setContentsMargins(0, 0, 0, 0)
        above.addWidget(head)
        above.addWidget(self.run_bar)
        above.addWidget(self.table)
        above.addLayout(row)
        above.addStretch()
        self._lower = QVBoxLayout(lower)
        self._lower.setContentsMargins(0, 0, 0, 0)
        self._buttons = QVBoxLayout()
        self._lower.addLayout(self._buttons)
        self._hint = QLabel("The cells appear here, class by class, the most uncertain first.")
        self._hint.setWordWrap(True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._lower.addWidget(self._hint)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.addWidget(upper)
        splitter.addWidget(lower)
        splitter.setStretchFactor(1, 1)
        splitter.setChildrenCollapsible(False)
        layout = QVBoxLayout(self)
        layout.addWidget(splitter)
        self.setMinimumWidth(420)

    def write_report(self, folder: Path) -> None:
        """Write the report of the review that is shown into a folder (``report.html``), in a thread."""
        if self.cells is None or self.cells.fields is None:
            self.say("Count or open some cells first.")
            return
        data = report_input(self.cells.review, self.cells.fields)

        def work(_: object) -> Path:
            from napari_bloodcells.core.report import write_reports

            return write_reports(data, folder)[0]

        self.reporting.start(work, f"Report into {folder}")

    def _ask_report(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the report")
        if folder:
            self.write_report(Path(folder))

    def _drop_panels(self) -> None:
        if self.gallery is not None:
            self.gallery.close_review()
        for panel in (self.gallery, self.class_bar):
            if panel is not None:
                panel.setParent(None)
                panel.deleteLater()
        self.gallery = self.class_bar = None
        self._draw.setEnabled(False)
        self._hint.setVisible(self.cells is None)

    def _start_drawing(self) -> None:
        if self.cells is not None:
            self.viewer.layers.selection.active = self.cells.layer
            self.cells.layer.mode = "add_rectangle"
            self.say("Drag a frame around the cell.")

    def _counted(self, counted: Counted) -> None:
        fields = self._fields
        if fields is None or fields.layer not in self.viewer.layers:
            return
        self.show_cells(self.desk.place(counted.review, fields))
        n = len(counted.review)
        said = f"{n} white cells in {len(fields)} field{'s' if len(fields) > 1 else ''}."
        if counted.failed:
            said += f" {len(counted.failed)} could not be counted: {counted.failed[0]}"
        if not n:
            said += " Is this a stained smear in focus? Draw a frame around a cell that was missed."
        self.say(said)
        self._canvas_focus()

    def _failed(self, error: BaseException) -> None:
        self.say("Stopped." if isinstance(error, Cancelled) else str(error))
        report_error(error, "Counting")

    def _on_image(self, image: Any) -> None:
        if image is not None:
            QTimer.singleShot(0, lambda: self._restore(image))

    def _restore(self, image: Any) -> None:
        if image in self.viewer.layers and not self.counting.is_running:
            cells = self.desk.restore(image)
            if cells is not None:
                show_info(self.run_bar.said.text())

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
            self.show_cells(next(iter(self.desk.layers.values()), None))

    def _on_edit(self, edit: Edit) -> None:
        self._waiting += unclassified(edit)
        if self._waiting:
            QTimer.singleShot(0, self._classify_drawn)

    def _classify_drawn(self) -> None:
        """Have the model name freshly drawn cells of one field."""
        if self.cells is None or self.cells.fields is None or self.classifying.is_running or self.counting.is_running:
            return
        review, fields = self.cells.review, self.cells.fields
        drawn = [review.cell(i) for i in dict.fromkeys(self._waiting) if i in review]
        if not drawn:
            self._waiting.clear()
            return
        here = [cell for cell in drawn if cell.image == drawn[0].image]
        self._waiting = [cell.id for cell in drawn if cell not in here]
        index, request, shelf = here[0].image, self.form.request(), self.shelf
        self.cells.layer.mode = "select"
        self._drawn_for = review
        self.classifying.start(lambda _: classify_boxes(fields, index, here, request, shelf), "Naming the drawn cell")

    def _classified(self, named: list[Any]) -> None:
        review = self._drawn_for
        review.settle([cell for cell in named if cell.id in review and review.cell(cell.id).name == "unidentified"])
        self.say(", ".join(f"{cell.name} ({cell.confidence:.0%})" for cell in named))
        QTimer.singleShot(0, self._classify_drawn)

    def _canvas_focus(self) -> None:
        """So that the keys work at once, without a click into the image."""
        canvas = self.window().findChild(QOpenGLWidget)
        if canvas is not None:
            canvas.setFocus()
