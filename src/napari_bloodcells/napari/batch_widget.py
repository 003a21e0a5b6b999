"""Batch: count a whole folder from napari, with the results of the command, and open any image of it to look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QPushButton, QVBoxLayout

from napari_bloodcells.core.counting.shards import PARTIAL, PLAN
from napari_bloodcells.core.errors import BloodcellsError, Cancelled
from napari_bloodcells.napari import preferences
from napari_bloodcells.napari.batch_table import BatchTable
from napari_bloodcells.napari.cell_shapes import cell_layer_data
from napari_bloodcells.napari.count_form import (
    BOXES,
    DEVICES,
    MARGINS,
    WIDTH,
    ModelChoice,
    combo_of,
    form_of,
    scale_choice,
)
from napari_bloodcells.napari.counting import scales_of
from napari_bloodcells.napari.fields import METADATA
from napari_bloodcells.napari.folder_choice import FolderChoice
from napari_bloodcells.napari.quiet_import import load_torch
from napari_bloodcells.napari.readers import OUTPUT_SUFFIX
from napari_bloodcells.napari.run_bar import RunBar
from napari_bloodcells.napari.series import image_layer
from napari_bloodcells.napari.tables import image_records, review_of_frame
from napari_bloodcells.napari.worker import Task, TaskWidget, ThreadProgress, report_error

if TYPE_CHECKING:
    import napari
    from napari_bloodcells.core.counting.result import CountResult

FORMATS = {"csv": "CSV", "parquet": "Parquet", "json": "JSON"}


def free_output(folder: Path) -> Path:
    """Where the results of ``folder`` go: beside it, under a name that holds no results yet."""
    first = folder.with_name(f"{folder.name}{OUTPUT_SUFFIX}")
    number, place = 2, first
    while (place / "run.json").exists():
        place, number = first.with_name(f"{first.name}-{number}"), number + 1
    return place


def is_unfinished(output: Path | None) -> bool:
    """Whether a run that was stopped in any way, also by a crash, left finished work in ``output``."""
    return output is not None and (output / PARTIAL / PLAN).is_file()


class BatchWidget(TaskWidget):
    """Count a folder of smears, each sub-folder a sample.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        chosen = preferences.counting()
        self.task = Task(self)
        self.result: CountResult | None = None
        self._written: Path | None = None  # where the run writes, whatever is chosen for the next one meanwhile
        self.folder = FolderChoice("Folder of smears", "Each folder inside it is a sample; nothing is written into it.")
        self.output = FolderChoice("Folder for the results", "Tables and run.json go there; never over results.")
        self.model = ModelChoice(chosen.model)
        self.boxes: QComboBox = combo_of(BOXES, chosen.boxes, "Where the frames around the cells are from.")
        self.device: QComboBox = combo_of(DEVICES, chosen.device, "Which processor computes.")
        self.format: QComboBox = combo_of(FORMATS, "csv", "As what the tables are written.")
        self.recursive = QCheckBox("folders inside too")
        self.recursive.setChecked(True)
        self.recursive.setToolTip("Also count the photographs of folders inside this one; each folder is a sample.")
        self.scale = scale_choice()
        self.report = QCheckBox("write a report")
        self.report.setToolTip("Also write a page per sample with its differential and every cell (open index.html).")
        self.anonymous = QCheckBox("no file names")
        self.anonymous.setToolTip("Numbers instead of the names of files and samples in all results.")
        self.run_bar = RunBar(self.task, "Count the folder", "Count every photograph of the folder.")
        self.go_on_button = QPushButton("Go on")
        self.go_on_button.setToolTip("Go on with the run that was stopped: what was counted is not counted again.")
        self.go_on_button.setEnabled(False)
        self.run_bar.row.insertWidget(1, self.go_on_button, 1)
        self.table = BatchTable()
        form = form_of(
            ("F&older", self.folder),
            ("&Results", self.output),
            ("&Model", self.model),
            ("&Cells", self.boxes),
            ("&Scale", self.scale),
            ("&Device", self.device),
            ("&Tables", self.format),
        )
        checks = QHBoxLayout()
        for check in (self.recursive, self.report, self.anonymous):
            checks.addWidget(check)
        form.addRow(checks)
        layout = QVBoxLayout()
        layout.setContentsMargins(*MARGINS)
        layout.addLayout(form)
        layout.addWidget(self.run_bar)
        layout.addWidget(self.table, 1)
        self.lay_out(layout)
        self.setMinimumWidth(WIDTH)
        self.folder.changed.connect(self._on_folder)
        self.output.changed.connect(self._offer_to_go_on)
        self.task.running.connect(self._offer_to_go_on)
        self.run_bar.run.clicked.connect(lambda: self.run())
        self.go_on_button.clicked.connect(lambda: self.run(resume=True))
        self.task.finished.connect(self._counted)
        self.task.failed.connect(self._failed)
        self.table.image_opened.connect(self.open_image)

    def run(self, resume: bool = False) -> None:
        """Count the folder in a thread; with ``resume`` go on with the run that was stopped."""
        folder, output = self.folder.path, self.output.path
        if folder is None or not folder.is_dir():
            self.run_bar.say("Choose a folder of photographs first.")
            return
        if output is None or (not resume and (output / "run.json").exists()):  # results are never written over
            output = free_output(folder)
            self.output.choose(output)
        if is_unfinished(output) and not resume:
            self.run_bar.say(f"{output.name} holds a run that was stopped: press Go on, or choose another folder.")
            return
        model, boxes, device = self.model.name, self.boxes.currentData(), self.device.currentData()
        kind, recursive = self.format.currentData(), self.recursive.isChecked()
        threshold = preferences.counting().least_confidence
        scale, report, anonymous = self.scale.value() or None, self.report.isChecked(), self.anonymous.isChecked()

        def work(progress: ThreadProgress) -> CountResult:
            load_torch()
            from napari_bloodcells import count
            from napari_bloodcells.core.counting.options import CountOptions

            options = CountOptions(
                output=output,
                resume=resume,
                recursive=recursive,
                threshold=threshold,
                format=kind,
                um_per_pixel=scale,
                anonymous=anonymous,
            )
            result = count(folder, model, boxes, device, progress, options)
            if report:
                from napari_bloodcells.core.report import write_reports

                write_reports(result, output, images=result.files)
            return result

        self._written = output
        self.task.start(work, f"Counting {folder.name}")

    def open_image(self, name: str) -> None:
        """Open an image of the result with its cells."""
        if self.result is None or name not in self.result.files:
            return
        try:
            data, keywords, _ = image_layer([Path(self.result.files[name])], [name], name)
        except BloodcellsError as error:
            report_error(error, f"Opening {name}")
            return
        image = self.viewer.add_image(data, **keywords)
        cells = self.result.cells
        images = self.result.images[self.result.images["image"] == name]
        info = {
            "model": self.result.run["model"],
            "sizes": keywords["metadata"][METADATA]["sizes"],
            "um_per_pixel": scales_of(images),
            "fields": image_records(images),
            "slides": [name] if name in self.result.run.get("slides", ()) else [],
        }
        review = review_of_frame(cells[cells["image"] == name], [name], self.result.scheme, info=info)
        shapes, keywords = cell_layer_data(review, f"{image.name} cells", False, image)
        self.viewer.add_shapes(shapes or None, **keywords)

    def _on_folder(self, _: str) -> None:
        folder = self.folder.path
        if folder is not None and folder.is_dir():
            self.output.choose(free_output(folder))

    def _offer_to_go_on(self, *_: object) -> None:
        self.go_on_button.setEnabled(not self.task.is_running and is_unfinished(self.output.path))

    def _counted(self, result: CountResult) -> None:
        self.result = result
        self.table.show_result(result)
        failed = len(result.failed)
        said = f"{len(result.cells)} cells in {len(result.images) - failed} images"
        said += f"; tables in {self._written.name}." if self._written is not None else "."
        if failed:
            said += f" {failed} images could not be read; they are named in images.csv."
        self.run_bar.say(said)

    def _failed(self, error: BaseException) -> None:
        more = " Go on counts the rest." if is_unfinished(self._written) else ""
        self.run_bar.say(f"Stopped.{more}" if isinstance(error, Cancelled) else str(error))
        report_error(error, "Counting the folder")
