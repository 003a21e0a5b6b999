"""The choices before a count: image, model, where the boxes are from, device; and the line on what will compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QToolButton,
    QWidget,
)

from napari_bloodcells.napari import catalog, preferences
from napari_bloodcells.napari.counting import CountRequest
from napari_bloodcells.napari.device_line import DeviceLine
from napari_bloodcells.napari.preferences import Counting

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

BOXES = {
    "auto": "VOC file, else found",
    "xml": "VOC file only",
    "find": "found in the image",
    "classical": "found by the stain alone",
    "whole": "the image is one cell",
}
DEVICES = {"auto": "fastest", "cpu": "processor (CPU)", "cuda": "graphics card (CUDA)", "mps": "Apple (MPS)"}
WIDTH = 440
MARGINS = (8, 4, 8, 8)
"""Least width and margins of every widget of the plugin, in pixels."""


class ModelChoice(QWidget):
    """The installed models, those trained in this session, and a folder of one's own."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = QComboBox()
        self.combo.setToolTip(
            "The network that names the cells. 'default' is the one that comes with the package; models that you "
            "trained or adapted to your microscope are offered here too."
        )
        self.combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        browse = QToolButton()
        browse.setText("\u2026")
        browse.setToolTip("Take a model from a folder (it holds model.json and model.safetensors).")
        browse.setAccessibleName("Choose the folder of a model")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.combo, 1)
        row.addWidget(browse)
        self.refresh(name)
        catalog.events.offered.connect(self._on_offered)

    @property
    def name(self) -> str:
        """The chosen model, as ``load_model`` takes it."""
        return str(self.combo.currentData())

    def refresh(self, choose: str = "") -> None:
        """List the models anew, and choose one."""
        choose = choose or self.name
        self.combo.clear()
        for name in dict.fromkeys([*catalog.model_names(), choose]):
            self.combo.addItem(Path(name).name if "/" in name or "\\" in name else name, name)
        self.combo.setCurrentIndex(self.combo.findData(choose))

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if folder:
            catalog.offer(folder)
            self.refresh(folder)

    def _on_offered(self, _: str) -> None:
        """A new model can be chosen; what is chosen stays, so that no count changes its model unasked."""
        if isalive(self.combo):  # the list of models outlives a widget that Qt has deleted
            self.refresh()


class CountForm(QWidget):
    """The form.

    Signals
    -------
    image_chosen : Image or None
    image_renamed
        A listed image has another name now.
    """

    image_chosen = Signal(object)
    image_renamed = Signal()

    def __init__(self, viewer: ViewerModel, chosen: Counting, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self._images: list[Image] = []  # as they stand in the list: a layer keeps its place when its name changes
        self.image_combo = QComboBox()
        self.image_combo.setToolTip("The photograph (or series of photographs) whose white cells are counted.")
        self.image_combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.model = ModelChoice(chosen.model)
        self.boxes = combo_of(BOXES, chosen.boxes, "Where the frames around the cells are from.")
        self.device = combo_of(DEVICES, chosen.device, "Which processor computes; the line below says what there is.")
        self.scale = scale_choice()
        self.device_text = QLabel()
        self.device_text.setWordWrap(True)
        self.device_text.setObjectName("device-line")
        form = form_of(
            ("&Image", self.image_combo),
            ("&Model", self.model),
            ("&Cells", self.boxes),
            ("&Scale", self.scale),
            ("&Device", self.device),
        )
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow(self.device_text)
        self.setLayout(form)
        self.line = DeviceLine(self)
        self.line.said.connect(self.device_text.setText)
        self.device.currentIndexChanged.connect(lambda _: self.line.ask(self.device.currentData()))
        self.image_combo.currentIndexChanged.connect(lambda _: self.image_chosen.emit(self.image()))
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.connect(self.refresh_images)
        events.renamed.connect(self._on_renamed)
        self.refresh_images()
        self.line.ask(chosen.device)

    def close_form(self) -> None:
        """Follow the viewer no longer."""
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.disconnect(self.refresh_images)
        events.renamed.disconnect(self._on_renamed)
        self.line.stop()

    def image(self) -> Image | None:
        """The chosen image layer."""
        row = self.image_combo.currentIndex()
        return self._images[row] if 0 <= row < len(self._images) else None

    def choose_image(self, layer: Any) -> None:
        """Choose an image layer."""
        if layer in self._images:
            self.image_combo.setCurrentIndex(self._images.index(layer))

    def refresh_images(self, event: Any = None) -> None:
        """List the image layers anew; a new one is chosen, else the choice stays."""
        former = self.image()
        fresh = getattr(event, "type", "") == "inserted" and event.value.__class__.__name__ == "Image"
        keep = event.value if fresh else former
        self._images = [layer for layer in self.viewer.layers if layer.__class__.__name__ == "Image"]
        self.image_combo.blockSignals(True)
        self.image_combo.clear()
        self.image_combo.addItems([layer.name for layer in self._images])
        self.image_combo.setCurrentIndex(self._images.index(keep) if keep in self._images else len(self._images) - 1)
        self.image_combo.blockSignals(False)
        if self.image() != former:
            self.image_chosen.emit(self.image())

    def _on_renamed(self, event: Any = None) -> None:
        for row, layer in enumerate(self._images):
            self.image_combo.setItemText(row, layer.name)
        self.image_renamed.emit()

    def request(self) -> CountRequest:
        """What is chosen, and below which confidence the preferences have a cell unidentified now."""
        threshold = preferences.counting().least_confidence
        scale = self.scale.value() or None
        return CountRequest(self.model.name, self.boxes.currentData(), self.device.currentData(), threshold, scale)


def scale_choice() -> QDoubleSpinBox:
    """How many micrometers a pixel covers; 0 where it shall be measured."""
    scale = QDoubleSpinBox()
    scale.setRange(0.0, 2.0)
    scale.setDecimals(4)
    scale.setSingleStep(0.01)
    scale.setSpecialValueText("measured")
    scale.setSuffix(" \u00b5m per pixel")
    scale.setToolTip(
        "How many micrometers a pixel covers, where you know it; 0 has it measured by the red cells (7.5 \u00b5m)."
    )
    return scale


def form_of(*rows: tuple[str, QWidget]) -> QFormLayout:
    """A form of labels and widgets; ``&`` in a label marks its key."""
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for label, widget in rows:
        form.addRow(label, widget)
    return form


def combo_of(choices: dict[str, str], chosen: str, tip: str) -> QComboBox:
    """A combo box of value and text; ``chosen`` is the value that it begins with."""
    combo = QComboBox()
    for value, text in choices.items():
        combo.addItem(text, value)
    combo.setCurrentIndex(max(0, combo.findData(chosen)))
    combo.setToolTip(tip)
    return combo
