"""The differential beside the image, true at every moment: it is made anew from the review after every change."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_bloodcells.core.differential import Differential, Intervals, Share, make_differential, slides_in
from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.core.statistics.reference import (
    PERCENT,
    Flag,
    Patient,
    ReferenceRange,
    ReferenceSet,
    flag,
    load_ranges,
)
from napari_bloodcells.core.statistics.remarks import remarks
from napari_bloodcells.napari.class_bar import swatch
from napari_bloodcells.napari.palette import class_color
from napari_bloodcells.napari.preferences import Reference
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import images_frame, review_frame

COLUMNS = ("class", "n", "%", "95 % interval", "reference", "flag")
WANTED = (100, 200, 400)
_ROW_HEIGHT = 21
_FIGURES = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LOG = logging.getLogger(__name__)


def differential_of(review: Review, intervals: Intervals = "binomial") -> Differential:
    """The differential of all cells of a review (red cells and other bystanders left aside)."""
    told = {entry["image"]: entry for entry in review.info.get("fields", ())}
    slides = slides_in(review.info)
    found = {name: told.get(name, {}) for name in review.images}
    read = {name: entry.get("n_platelets") for name, entry in found.items() if entry.get("status", "ok") == "ok"}
    photos, on_slides = ([n for name, n in read.items() if (name in slides) == whole] for whole in (False, True))
    labels = (c.name for c in review.reviewable())
    return make_differential(
        labels, review.scheme, fields=len(photos), intervals=intervals, platelets=photos, on_slides=on_slides
    )


def intervals_of(chosen: Reference) -> Intervals:
    """The kind of intervals of the preferences; by them the flags are given."""
    return "multinomial" if chosen.intervals == "multinomial" else "binomial"


def ranges_of(chosen: Reference) -> tuple[ReferenceSet, Patient]:
    """The reference ranges of the preferences, and whom they are for; the package's own where a file cannot be read."""
    patient = Patient(chosen.age, chosen.sex if chosen.sex in ("female", "male") else None)  # type: ignore[arg-type]
    try:
        return load_ranges(chosen.file or None), patient
    except BloodcellsError as error:
        _LOG.warning("%s The ranges of the package are used.", error)
        return load_ranges(), patient


class DifferentialTable(QWidget):
    """Class, count, percent, interval, reference range and flag; cells counted of those wanted; remarks."""

    def __init__(self, reference: Reference, wanted: int = 100, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.review: Review | None = None
        self.wanted = wanted
        self.reference = reference
        self.ranges, self.patient = ranges_of(reference)
        self.intervals = intervals_of(reference)
        self.table = self._new_table()
        self.title = QElidingLabel()
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.title.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.title.setStyleSheet("font-weight: bold")
        self.counted = QLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.choice = QComboBox()
        for number in dict.fromkeys((*WANTED, wanted)):
            self.choice.addItem(f"{number} wanted", number)
        self.choice.setCurrentIndex(self.choice.findData(wanted))
        self.choice.setToolTip("How many white cells the differential shall rest on.")
        self.choice.currentIndexChanged.connect(lambda _: self.set_wanted(self.choice.currentData()))
        self.remarks = QLabel()
        self.remarks.setWordWrap(True)
        self.remarks.setStyleSheet("QLabel { border-left: 3px solid #E69F00; padding: 1px 0 1px 7px; }")
        row = QHBoxLayout()
        row.addWidget(self.counted)
        row.addWidget(self.bar, 1)
        row.addWidget(self.choice)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.title)
        layout.addLayout(row)
        layout.addWidget(self.table)
        layout.addWidget(self.remarks)
        self.show_review(None)

    def name_image(self, name: str) -> None:
        """Write above the figures whose they are."""
        self.title.setText(name)
        self.title.setToolTip(name)
        self.title.setVisible(bool(name))

    def show_review(self, review: Review | None) -> None:
        """Show another review, and follow it."""
        if self.review is not None:
            self.review.changed.disconnect(self.refresh, missing_ok=True)
        self.review = review
        if review is not None:
            review.changed.connect(self.refresh)
        self.refresh()

    def set_reference(self, reference: Reference) -> None:
        """Whose reference ranges, and which intervals, the flags use from now on."""
        self.reference = reference
        self.ranges, self.patient = ranges_of(reference)
        self.intervals = intervals_of(reference)
        self.refresh()

    def set_wanted(self, wanted: int) -> None:
        """How many cells the differential shall rest on."""
        self.wanted = wanted
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Make the table anew from the review."""
        if self.review is None:
            self.table.setRowCount(0)
            self.counted.setText("No cells counted yet.")
            self.bar.setValue(0)
            self.remarks.hide()
            self._fit()
            return
        block = differential_of(self.review, self.intervals)
        apart = [a for a in block.apart if a.count or a.kind in ("unidentified", "not_wbc", "found")]
        self.table.setRowCount(len(block.shares) + len(apart))
        for row, share in enumerate(block.shares):
            self._fill(row, share.name, self._figures(share))
        for row, part in enumerate(apart, start=len(block.shares)):
            self._fill(row, part.name, (str(part.count), "", part.shown_rate, "", ""))
            if part.kind in ("platelet", "found"):
                self.table.item(row, 0).setText(part.shown)
                self.table.item(row, 0).setToolTip(block.of_platelets)
        self._fit()
        self.counted.setText(f"{block.total} of {self.wanted} cells")
        self.bar.setRange(0, self.wanted)
        self.bar.setValue(min(block.total, self.wanted))
        said = remarks(block, review_frame(self.review, self.review.reviewable()), images_frame(self.review))
        self.remarks.setText("<br>".join(said))
        self.remarks.setVisible(bool(said))

    @staticmethod
    def _new_table() -> QTableWidget:
        table = QTableWidget(0, len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        for column in range(1, len(COLUMNS)):
            table.horizontalHeaderItem(column).setTextAlignment(int(_FIGURES))
        table.horizontalHeaderItem(0).setTextAlignment(int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter))
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setShowGrid(False)
        table.setAccessibleName("Differential count")
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        table.setToolTip(
            "n cells of each class and their share of all classified white cells, with the 95 % interval (which one "
            "is set in the preferences). H or L: the whole interval lies above or below the reference range; in "
            "brackets: only the figure does, so it may be chance."
        )
        return table

    def _fit(self) -> None:
        """As high as its rows: it is never scrolled."""
        rows = self.table.rowCount() * _ROW_HEIGHT
        frame = 2 * self.table.frameWidth()
        self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + rows + frame + 2)

    def cell_text(self, name: str, column: str) -> str:
        """What stands in the row of class ``name``; for tests and for screen readers."""
        for row in range(self.table.rowCount()):
            if self.table.item(row, 0).text() == name:
                return self.table.item(row, COLUMNS.index(column)).text()
        return ""

    def _figures(self, share: Share) -> tuple[str, str, str, str, str]:
        limits = self.ranges.find(share.name, PERCENT, self.patient)
        shown = flag(share.percent, share.low, share.high, limits)
        if share.percent != share.percent:
            return str(share.count), "", "", _range(limits), ""
        interval = f"{share.low:.1f} \u2013 {share.high:.1f}"
        return str(share.count), f"{share.percent:.1f}", interval, _range(limits), shown.code

    def _fill(self, row: int, name: str, figures: Sequence[str]) -> None:
        assert self.review is not None
        first = QTableWidgetItem(swatch(class_color(self.review.scheme, name)), name)
        self.table.setItem(row, 0, first)
        for column, text in enumerate(figures, start=1):
            item = QTableWidgetItem(text)
            item.setTextAlignment(int(_FIGURES))
            if column == len(COLUMNS) - 1 and text:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
                item.setToolTip(Flag(text).meaning)
            self.table.setItem(row, column, item)


def _range(limits: ReferenceRange | None) -> str:
    return "" if limits is None else f"{limits.low:g} \u2013 {limits.high:g}"
