"""The result of a batch as a tree: one row per sample with its differential, its images below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_bloodcells.core.differential import WHOLE_FOLDER, differentials, sample_of

if TYPE_CHECKING:
    from napari_bloodcells.core.counting.result import CountResult

_FIGURES = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_FIRST_WIDTH = 170
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
        self.setIndentation(12)
        self.setStyleSheet("QTreeView::item { padding: 3px 4px; }")
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
        for column in range(1, self.columnCount()):
            self.headerItem().setTextAlignment(column, _FIGURES)
        header = self.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(False)
        header.resizeSection(0, _FIRST_WIDTH)
        images = result.images
        for block in differentials(result.cells, result.scheme, images):
            figures = [f"{s.percent:.1f} ({s.count})" if block.total else "" for s in block.shares]
            row = [block.sample, str(block.total), *figures, str(block.count_of("unidentified"))]
            item = self._row(row)
            self.addTopLevelItem(item)
            if block.sample == WHOLE_FOLDER:
                font = item.font(0)
                font.setBold(True)
                item.setFont(0, font)
                continue
            own = [sample_of(str(name)) == block.sample for name in images["image"]]
            self._add_images(item, images[own].to_dict("records"), names)
        if self.topLevelItemCount() == 1:  # one sample and no folders: the images stand under the whole
            self._add_images(self.topLevelItem(0), images.to_dict("records"), names)
            self.topLevelItem(0).setExpanded(True)

    def _add_images(self, parent: QTreeWidgetItem, rows: list[dict[str, object]], names: list[str]) -> None:
        items = []
        for row in rows:
            read, name = row["status"] == "ok", str(row["image"])
            counts = [str(row.get(name, "")) for name in (*names, "unidentified")] if read else []
            item = self._row([name.rsplit("/", 1)[-1], str(row["n_wbc"]) if read else "not read", *counts])
            item.setToolTip(0, str(row["status"]) if not read else str(row.get("problems") or name))
            if read:
                item.setData(0, IMAGE_ROLE, name)
            items.append(item)
        parent.addChildren(items)

    @staticmethod
    def _row(texts: list[str]) -> QTreeWidgetItem:
        item = QTreeWidgetItem(texts)
        for column in range(1, len(texts)):
            item.setTextAlignment(column, _FIGURES)
        return item

    def _on_activated(self, item: QTreeWidgetItem, column: int = 0) -> None:
        name = item.data(0, IMAGE_ROLE)
        if name:
            self.image_opened.emit(str(name))
