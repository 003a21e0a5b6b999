"""Docks that are closed, floated and low, and of which image a widget in one speaks."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QScrollArea, QWidget

from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.napari.count_widget import CountWidget
from napari_bloodcells.napari.geometry import rectangle
from napari_bloodcells.napari.reviewed_cells import open_reviews, reviews_data

pytestmark = pytest.mark.gui


def dock_of(widget: QWidget) -> Any:
    """The dock that napari put around a widget."""
    while widget.__class__.__name__ != "QtViewerDockWidget":
        widget = widget.parent()
    return widget


def shown(widget: CountWidget) -> tuple[str, str]:
    """What stands above the table."""
    return widget.table.title.text(), widget.table.counted.text()


def test_a_widget_whose_dock_is_closed_lets_go_and_the_next_one_works_alone(
    counted: tuple[Any, CountWidget], tiny_model: Path, qtbot: Any, wait_for: Any, press: Any
) -> None:
    """Two that follow one layer took each drawn box twice."""
    viewer, widget = counted
    review, layer, timer = widget.cells.review, widget.cells.layer, widget._timer
    review.classify([1], "basophil")
    dock_of(widget).title.close_button.click()
    wait_for(lambda: not timer.isActive())
    assert not widget.desk.layers
    viewer.layers.selection.active = layer
    press(viewer, Qt.Key.Key_Space)
    assert not review.selection, "keys of a closed widget would change a review that nobody keeps"
    _, again = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Differential count")
    again.form.model.refresh(str(tiny_model))
    wait_for(lambda: again.cells is not None and not again.turns.are_going)
    assert again.cells.review.cell(1).name == "basophil"
    layer.add(rectangle((10, 10, 110, 110)), shape_type="rectangle")
    wait_for(lambda: bool(again.cells.review.cells[-1].probabilities))
    assert (len(again.cells.review), layer.nshapes) == (4, 4)
    again.cells.review.undo()
    assert (len(again.cells.review), layer.nshapes) == (3, 3)


def test_a_closed_widget_is_forgotten(open_widget: Any, field_image: np.ndarray, count: Any, qtbot: Any) -> None:
    _, widget = open_widget(field_image)
    count(widget)
    gone = weakref.ref(widget)
    dock_of(widget).title.close_button.click()
    del widget
    for _ in range(3):
        qtbot.wait(200)
        gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["Batch", "Train"])
def test_what_runs_stops_when_its_dock_is_closed_but_not_when_it_floats(
    make_napari_viewer: Any, qtbot: Any, wait_for: Any, name: str
) -> None:
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-bloodcells", name)
    dock, stopped = dock_of(widget), []

    def work(progress: Any) -> None:
        while not progress.cancelled():
            time.sleep(0.01)
        stopped.append(True)
        raise Cancelled

    widget.task.start(work, "a test")
    for _ in range(2):
        dock.title.float_button.click()
        qtbot.wait(200)
    viewer.window._qt_window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
    qtbot.wait(200)
    assert widget.task.is_running
    assert not stopped
    dock.title.close_button.click()
    wait_for(lambda: bool(stopped), 10_000)


def test_head_and_table_are_of_one_image(
    counted: tuple[Any, CountWidget], field_image: np.ndarray, wait_for: Any, qtbot: Any, shoot: Any
) -> None:
    viewer, widget = counted
    assert shown(widget) == ("smear", "3 of 100 cells")
    other = viewer.add_image(field_image[::-1].copy(), rgb=True, name="patient B")
    wait_for(lambda: not widget.turns.are_going)
    assert widget.head.text() == "Image and model: patient B"
    assert shown(widget) == ("patient B", "No cells counted yet.")
    assert not widget.panel.report.isEnabled()
    assert widget.run_bar.said.text() == ""
    shoot(viewer, "another_image", widget)
    for active in (viewer.layers["smear"], viewer.layers["smear cells"]):
        viewer.layers.selection.active = active
        wait_for(lambda: widget.cells is not None and not widget.turns.are_going)
        assert widget.head.text() == "Image and model: smear"
        assert shown(widget) == ("smear", "3 of 100 cells")
        viewer.layers.selection.active = other
        assert shown(widget)[0] == "patient B"
    widget.form.image_combo.setCurrentIndex(widget.form.image_combo.findText("smear"))
    wait_for(lambda: widget.cells is not None and not widget.turns.are_going)
    assert shown(widget) == ("smear", "3 of 100 cells")


def test_an_image_that_was_renamed_is_counted_and_learned_from(counted: tuple[Any, CountWidget], count: Any) -> None:
    viewer, widget = counted
    widget.cells.review.confirm([1])
    widget.cells.review.classify([2], "basophil")
    viewer.layers["smear"].name = "patient 7"
    assert widget.form.image() == viewer.layers["patient 7"]
    assert widget.form.image_combo.currentText() == "patient 7"
    assert widget.head.text() == "Image and model: patient 7"
    assert shown(widget)[0] == "patient 7"
    assert len(reviews_data(open_reviews(viewer.layers))) == 2
    review = count(widget)
    assert sum(cell.reviewed for cell in review.cells) == 2
    assert "basophil" in {cell.name for cell in review.cells}


def test_in_a_low_dock_nothing_lies_over_the_table(counted: tuple[Any, CountWidget], shoot: Any, qtbot: Any) -> None:
    viewer, widget = counted
    viewer.window.add_plugin_dock_widget("napari-bloodcells", "Train")
    qtbot.wait(300)
    table, remarks = widget.table.table, widget.table.remarks
    assert widget.findChild(QScrollArea).verticalScrollBar().maximum() > 0
    assert widget.height() > 300
    assert remarks.isVisible()
    assert table.mapTo(widget.table, QPoint(0, table.height())).y() <= remarks.y()
    assert remarks.y() + remarks.height() <= widget.table.height()
    shoot(viewer, "low_dock", widget)


def test_three_docks_make_the_window_no_higher_than_the_screen_and_each_has_its_share(
    counted: tuple[Any, CountWidget], qtbot: Any, shoot: Any
) -> None:
    viewer, widget = counted
    window = viewer.window._qt_window
    room = window.screen().availableGeometry().height()
    window.resize(1300, room - 20)
    widgets = [widget]
    for name in ("Batch", "Train"):
        widgets.append(viewer.window.add_plugin_dock_widget("napari-bloodcells", name)[1])
        qtbot.wait(300)
    shoot(viewer, "three_docks", widget)
    assert window.height() <= room
    assert all(w.height() >= min(200, room // 5) for w in widgets)
    dock_of(widgets[2]).title.close_button.click()
    qtbot.wait(300)
    assert window.height() <= room
