"""Train: teach a network with the cells that you looked at, or fit the present one to your microscope."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QSpinBox, QVBoxLayout

from napari_bloodcells.core.errors import BloodcellsError, Cancelled
from napari_bloodcells.core.installed import recipe_names
from napari_bloodcells.napari import catalog, preferences
from napari_bloodcells.napari.count_form import DEVICES, MARGINS, WIDTH, ModelChoice, combo_of, form_of
from napari_bloodcells.napari.curves import Curves
from napari_bloodcells.napari.folder_choice import FolderChoice
from napari_bloodcells.napari.quiet_import import load_torch
from napari_bloodcells.napari.reviewed_cells import class_counts, folder_data, open_reviews, reviews_data
from napari_bloodcells.napari.run_bar import RunBar
from napari_bloodcells.napari.worker import Standing, Task, TaskWidget, ThreadProgress, report_error

if TYPE_CHECKING:
    import napari
    from napari_bloodcells.core.datasets.base import DataSet

CALIBRATE, ADAPT = "calibrate", "adapt"
LAYERS, FOLDER = "layers", "folder"
SOURCES = {LAYERS: "reviewed cells of the open layers", FOLDER: "a folder (reviews, or class folders)"}
UNLABELED = {LAYERS: "all cells of the open layers", FOLDER: "a folder (photographs, or a count's results)"}


class TrainWidget(TaskWidget):
    """Train, calibrate or adapt, watch the curves, and use the result at once.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer

    Signals
    -------
    learning : str
        What the cells are, once the thread has read them.
    """

    learning = Signal(str)

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        chosen = preferences.counting()
        self.task = Task(self)
        self.source: QComboBox = combo_of(SOURCES, LAYERS, "Where the cells to learn from are.")
        self.folder = FolderChoice(
            "Folder of cells",
            "A folder with reviews that this plugin kept (.bloodcells.jsonl), or with one folder per class.",
        )
        self.method = QComboBox()
        self.method.addItem("calibrate to my microscope (5 to 100 cells)", CALIBRATE)
        self.method.addItem("adapt to my microscope (50 unnamed cells)", ADAPT)
        for name in recipe_names():
            self.method.addItem(f"train {name} from the start", name)
        self.method.setToolTip(
            "Calibrate keeps what the model knows and needs few cells and a minute. "
            "Adapt does so too and needs no cell that was looked at, but nobody knows then how well it did. "
            "Training from the start needs hundreds of cells of each class."
        )
        self.model = ModelChoice(chosen.model)
        self.epochs = QSpinBox()
        self.epochs.setRange(0, 10_000)
        self.epochs.setSpecialValueText("as the recipe says")
        self.epochs.setToolTip("How often the training goes through all cells.")
        self.device: QComboBox = combo_of(DEVICES, chosen.device, "Which processor computes.")
        self.output = FolderChoice("Folder for the new model", "A new folder; nothing is overwritten.")
        self.run_bar = RunBar(self.task, "Train", "Learn from the cells; Cancel keeps what was learned so far.")
        self.curves = Curves()
        self.found = QLabel()
        self.found.setWordWrap(True)
        form = form_of(
            ("&Cells", self.source),
            ("F&older", self.folder),
            ("Me&thod", self.method),
            ("&Model", self.model),
            ("&Epochs", self.epochs),
            ("&Device", self.device),
            ("&Result", self.output),
        )
        layout = QVBoxLayout()
        layout.setContentsMargins(*MARGINS)
        layout.addLayout(form)
        layout.addWidget(self.run_bar)
        layout.addWidget(self.found)
        layout.addWidget(self.curves, 1)
        layout.addStretch()
        self.lay_out(layout)
        self.setMinimumWidth(WIDTH)
        self.source.currentIndexChanged.connect(self._show_choices)
        self.method.currentIndexChanged.connect(self._show_choices)
        self.run_bar.run.clicked.connect(self.run)
        self.learning.connect(self.found.setText)
        self.task.told.connect(self._told)
        self.task.finished.connect(self._trained)
        self.task.failed.connect(self._failed)
        self._show_choices()

    def run(self) -> None:
        """Train in a thread."""
        output = self.output.path
        if output is None:
            self.run_bar.say("Name a new folder for the model first.")
            return
        try:
            read = self._reading()
        except BloodcellsError as error:
            self.run_bar.say(str(error))
            report_error(error, "Reading the cells")
            return
        method, model, device = self.method.currentData(), self.model.name, self.device.currentData()
        overrides = {"epochs": self.epochs.value()} if self.epochs.value() else {}
        self.found.setText("")
        self.curves.clear()

        def work(progress: ThreadProgress) -> Any:
            data = read(progress)
            if not isinstance(data, Path) and method != ADAPT:
                self.learning.emit(f"Learning from {class_counts(data)}.")
            load_torch(for_training=True)
            if method == CALIBRATE:
                from napari_bloodcells.core.calibrate import calibrate

                return calibrate(model, data, output, device=device, progress=progress)
            if method == ADAPT:
                from napari_bloodcells.core.adapt import adapt

                return adapt(model, data, output, device=device, progress=progress)
            from napari_bloodcells import train

            resume = (output / "checkpoint.safetensors").exists()
            return train(data, method, output, resume=resume, device=device, progress=progress, overrides=overrides)

        self.task.start(work, f"Training {output.name}")

    def _reading(self) -> Callable[[ThreadProgress], DataSet | Path]:
        """What reads the chosen cells, in the thread: photographs and folders may lie on a slow disk."""
        adapting = self.method.currentData() == ADAPT
        if self.source.currentData() == LAYERS:
            found = open_reviews(self.viewer.layers, unseen=adapting)
            return lambda progress: reviews_data(found, unseen=adapting, progress=progress)
        folder = self.folder.path
        if folder is None or not folder.is_dir():
            raise BloodcellsError("Choose the folder of the cells first.")
        return lambda _: folder if adapting else folder_data(folder)

    def _show_choices(self, *_: object) -> None:
        """Show only the choices that count."""
        self.folder.setEnabled(self.source.currentData() == FOLDER)
        method = self.method.currentData()
        for name, text in (UNLABELED if method == ADAPT else SOURCES).items():
            self.source.setItemText(self.source.findData(name), text)
        self.model.setEnabled(self._fitting)
        self.epochs.setEnabled(not self._fitting)
        self.curves.setVisible(not self._fitting)  # fitted in one go: there is no curve

    @property
    def _fitting(self) -> bool:
        """Whether the chosen method fits a finished model, in one go, and trains none."""
        return self.method.currentData() in (CALIBRATE, ADAPT)

    def _told(self, standing: Standing, news: list[Standing]) -> None:
        self.curves.add(news)

    def _trained(self, result: Any) -> None:
        catalog.offer(result.output)
        if hasattr(result, "n_changed"):  # adapted: nobody knows how well
            n = sum(result.after.values())
            said = f"{result.info.name}: {result.n_changed} of {n} cells have another class now"
            if result.one_sided:
                said += f"; nearly all are called {result.one_sided}, so take other patients too"
            self._say_ready(said, result)
            return
        scores = getattr(result, "after", None) or result.scores
        accuracy = scores["accuracy"]
        said = f"{result.info.name}: accuracy {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%})"
        before = getattr(result, "before", None)
        if before is not None:
            said += f", before it was {before['accuracy'].value:.1%}, on cells it had not learned from"
            if result.missing:
                said += f"; no labeled cell of {', '.join(result.missing)}"
            if result.by_slide:
                said += "; most cells are of a class that one photograph alone gave, so take cells of others too"
        self._say_ready(said, result)

    def _say_ready(self, said: str, result: Any) -> None:
        self.run_bar.say(f"{said}. It can be chosen as model in the other widgets now.")
        show_info(f"The model in {result.output} is ready.")

    def _failed(self, error: BaseException) -> None:
        stopped = "Stopped; nothing was kept." if self._fitting else "Stopped; Train goes on from there."
        self.run_bar.say(str(error) if not isinstance(error, Cancelled) else stopped)
        report_error(error, "Training")
