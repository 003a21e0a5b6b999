"""What a new user does on the first day, as one story in a real window with a picture at each step; and keys alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit

from napari_bloodcells.core.counting.cellstable import read_cells
from napari_bloodcells.napari.batch_widget import BatchWidget
from napari_bloodcells.napari.train_widget import TrainWidget

pytestmark = pytest.mark.gui

CTRL = Qt.KeyboardModifier.ControlModifier
LETTERS = {"basophil": Qt.Key.Key_B, "eosinophil": Qt.Key.Key_E}
WIDGET = ("napari-bloodcells", "Differential count")


def test_a_new_user_corrects_five_cells_undoes_two_saves_closes_and_finds_the_same_five_less_two(
    make_napari_viewer: Any, tiny_model: Path, count: Any, press: Any, shoot: Any, wait_for: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    shoot(viewer, "new_user_1_napari")
    viewer.open_sample("napari-bloodcells", "synthetic")
    shoot(viewer, "new_user_2_sample")
    _, widget = viewer.window.add_plugin_dock_widget(*WIDGET)
    widget.form.model.refresh(str(tiny_model))
    widget.form.boxes.setCurrentIndex(widget.form.boxes.findData("classical"))
    viewer.reset_view()
    shoot(viewer, "new_user_3_widget")
    review = count(widget)
    machine = {c.number: c.name for c in review.cells}
    assert len(review) >= 5
    shoot(viewer, "new_user_4_counted", widget)

    wanted = [name for name in LETTERS for _ in range(3)][:5]
    corrected: list[int] = []
    for name in wanted:
        press(viewer, Qt.Key.Key_Space, LETTERS[name])
        corrected.append(review.selection[0])
    assert [review.cell(i).name for i in corrected] == wanted
    shoot(viewer, "new_user_5_corrected", widget)
    press(viewer, (Qt.Key.Key_Z, CTRL), (Qt.Key.Key_Z, CTRL))
    left = {review.cell(i).number: review.cell(i).name for i in corrected[:3]}
    assert sum(c.reviewed for c in review.cells) == 3
    shoot(viewer, "new_user_6_undone", widget)

    (saved,) = viewer.layers["drawn smear cells"].save(str(tmp_path / "cells.csv"), plugin="napari-bloodcells")
    table = read_cells(saved)
    assert dict(zip(table["cell"], table["class"], strict=True)) == {**machine, **left}
    assert dict(zip(table["cell"], table["machine_class"], strict=True)) == machine
    widget.let_go()
    viewer.close()

    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1500, 950)
    _, widget = viewer.window.add_plugin_dock_widget(*WIDGET)
    viewer.open_sample("napari-bloodcells", "synthetic")
    wait_for(lambda: widget.cells is not None and not widget.turns.are_going)
    viewer.reset_view()
    shoot(viewer, "new_user_7_reopened", widget)
    again = widget.cells.review
    assert {c.number: c.name for c in again.cells if c.reviewed} == left
    assert {c.number: c.name for c in again.cells} == {**machine, **left}
    assert {c.number: c.machine for c in again.cells} == machine
    assert "3 of them looked at" in widget.run_bar.said.text()


def test_everything_can_be_done_by_keys_alone(open_widget: Any, field_image: Any, wait_for: Any, qtbot: Any) -> None:
    viewer, widget = open_widget(field_image)
    window = activated(viewer, qtbot)
    widget.form.boxes.setFocus()
    qtbot.keyClick(window, Qt.Key.Key_Return, CTRL)
    wait_for(lambda: widget.cells is not None and not widget.turns.are_going)
    canvas = viewer.window._qt_viewer.canvas.native
    assert window.focusWidget() is canvas
    for letter in (Qt.Key.Key_B, Qt.Key.Key_U, Qt.Key.Key_Delete):
        qtbot.keyClick(window.focusWidget(), Qt.Key.Key_Space)
        qtbot.keyClick(window.focusWidget(), letter)
    assert {c.name for c in widget.cells.review.cells} == {"basophil", "unidentified", "not a WBC"}
    reached = []
    widget.run_bar.run.setFocus()
    for _ in range(20):
        reached.append(window.focusWidget())
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
    wanted = [widget.gallery.view, widget.panel.undo, widget.panel.draw, widget.panel.report, widget.gallery.which]
    missed = [w for w in (*wanted, *widget.class_bar.buttons.values()) if w.isEnabled() and w not in reached]
    assert not missed, reached


def test_after_a_click_on_a_class_the_keys_go_on_in_the_gallery(counted: tuple[Any, Any], qtbot: Any) -> None:
    viewer, widget = counted
    window = activated(viewer, qtbot)
    widget.cells.review.select([1])
    qtbot.mouseClick(widget.class_bar.buttons["monocyte"], Qt.MouseButton.LeftButton)
    assert widget.cells.review.cell(1).name == "monocyte"
    assert window.focusWidget() is widget.gallery.view
    qtbot.keyClick(window.focusWidget(), Qt.Key.Key_Space)
    assert widget.cells.review.selection not in ((), (1,))


def activated(viewer: Any, qtbot: Any) -> Any:
    """The window, brought to the front so that it has the keys."""
    window = viewer.window._qt_window
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=20_000)
    return window


def test_every_control_tells_in_a_tooltip_what_it_does(counted: tuple[Any, Any], make_napari_viewer: Any) -> None:
    viewer, widget = counted
    for form in (widget, BatchWidget(viewer), TrainWidget(viewer)):
        for kind in (QAbstractButton, QComboBox, QLineEdit):
            for control in form.findChildren(kind):
                inner = control.parent() is not form and isinstance(control.parent(), QComboBox)
                own = control.objectName().startswith("qt_") or inner
                told = control.toolTip() or (control.parent() is not None and control.parent().toolTip())
                assert own or told, f"{type(form).__name__}: {type(control).__name__} {control.objectName()!r}"


def test_the_text_of_the_panel_lies_under_its_table_and_not_over_it(counted: tuple[Any, Any], qtbot: Any) -> None:
    """Whatever is said of the differential, no widget of the panel overlaps another."""
    _, widget = counted
    qtbot.wait(300)
    table = widget.panel.table
    assert table.remarks.isVisible()
    shown = [table.table, table.remarks, widget.panel.draw, widget.class_bar, widget.gallery]
    spans = []
    for part in shown:
        top = part.mapTo(widget, part.rect().topLeft()).y()
        spans.append((top, top + part.height()))
    assert all(lower[0] >= upper[1] for upper, lower in pairwise(spans)), spans
    assert table.remarks.height() >= table.remarks.heightForWidth(table.remarks.width())
    assert table.table.verticalScrollBar().maximum() == 0
    rows = table.table.rowCount()
    assert (
        table.table.rowViewportPosition(rows - 1) + table.table.rowHeight(rows - 1) <= table.table.viewport().height()
    )
