"""The result of a batch as a tree: one row per sample with its differential, its images below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_bloodcells.core.differential import WHOLE_FOLDER, differentials, sample_of

if TYPE_CHECKING:
    from napari_bloodcells.core.count import CountResult

IMAGE_ROLE = int(Qt.ItemDataRole.UserRole) + 1


class BatchTable(QTreeWidget):
    """Samples and their images; a double click on an image asks to open it.

    Signals
    -------
    image_opened : str
        Name of the image, as in the column ``image``.
    """

    image_opened = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setColumnCount(2)
        self.setHeaderLabels(["sample", "n"])
        self.setUniformRowHeights(True)
        self.setAccessibleName("Differential of each sample")
        self.setToolTip(
            "Percent of each class by sample, with the count in brackets. Open a sample to see its images; "
            "a double click on an image opens it with its cells."
        )
        self.itemActivated.connect(self._on_activated)

    def show_result(self, result: CountResult) -> None:
        """Fill the tree with a finished count."""
        self.clear()
        names = [c.name for c in result.scheme.classes if c.kind == "wbc"]
        self.setColumnCount(3 + len(names))
        self.setHeaderLabels(["sample", "n", *names, "unidentified"])
        header = self.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        images = result.images
        for block in differentials(result.cells, result.scheme, images):
            figures = [f"{s.percent:.1f} ({s.count})" if block.total else "" for s in block.shares]
            row = [block.sample, str(block.total), *figures, str(block.count_of("unidentified"))]
            item = QTreeWidgetItem(row)
            self.addTopLevelItem(item)
            if block.sample == WHOLE_FOLDER:
                font = item.font(0)
                font.setBold(True)
                item.setFont(0, font)
            own = [n == WHOLE_FOLDER or sample_of(str(n)) == block.sample for n in images["image"]]
            shown = images if block.sample == WHOLE_FOLDER else images[own]
            self._add_images(item, shown.to_dict("records"), names)
        if self.topLevelItemCount() == 1:
            self.topLevelItem(0).setExpanded(True)

    def _add_images(self, parent: QTreeWidgetItem, rows: list[dict[str, object]], names: list[str]) -> None:
        items = []
        for row in rows:
            read = row["status"] == "ok"
            counts = [str(row.get(name, "")) for name in (*names, "unidentified")] if read else []
            item = QTreeWidgetItem([str(row["image"]), str(row["n_wbc"]) if read else "not read", *counts])
            item.setToolTip(0, str(row["status"]) if not read else str(row.get("problems") or row["image"]))
            if read:
                item.setData(0, IMAGE_ROLE, str(row["image"]))
            items.append(item)
        parent.addChildren(items)

    def _on_activated(self, item: QTreeWidgetItem, column: int = 0) -> None:
        name = item.data(0, IMAGE_ROLE)
        if name:
            self.image_opened.emit(str(name))
