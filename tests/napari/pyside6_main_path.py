"""Drives the widgets under PySide6, and prints what came of it as one line of JSON (``test_pyside6.py`` runs it).

python pyside6_main_path.py MODEL SCREENSHOT
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(model: str, screenshot: str) -> dict[str, Any]:
    """Open the sample, count, review by key, button and mouse, save; count a folder; look at the choices of Train."""
    os.environ.pop("QT_QPA_PLATFORM", None)
    from qtpy import API_NAME
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    import napari
    from napari_bloodcells.core.counting.cellstable import read_cells
    from napari_bloodcells.napari.batch_widget import BatchWidget
    from napari_bloodcells.napari.count_widget import CountWidget
    from napari_bloodcells.napari.geometry import rectangle
    from napari_bloodcells.napari.train_widget import TrainWidget
    from napari_bloodcells.synthetic import SmearSettings, write_folder

    def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(widget.run_bar.said.text())
            QApplication.processEvents()
            time.sleep(0.005)

    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    viewer.open_sample("napari-bloodcells", "synthetic")
    widget = CountWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Differential count")
    widget.form.model.refresh(model)
    widget.form.boxes.setCurrentIndex(widget.form.boxes.findData("classical"))
    QTest.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
    wait(lambda: widget.cells is not None and not widget.turns.are_going)
    review, found = widget.cells.review, {"binding": API_NAME}
    found["cells"] = len(review)
    canvas = viewer.window._qt_viewer.canvas.native
    for key in (Qt.Key.Key_Space, Qt.Key.Key_B):
        QTest.keyClick(canvas, key)
    (first,) = review.selection
    found["named by key"] = review.cell(first).name
    QTest.keyClick(widget.gallery.view, Qt.Key.Key_Space)
    QTest.mouseClick(widget.class_bar.buttons["monocyte"], Qt.MouseButton.LeftButton)
    (second,) = review.selection
    found["named by button"] = review.cell(second).name
    QTest.mouseClick(widget.panel.undo, Qt.MouseButton.LeftButton)
    found["undone"] = not review.cell(second).reviewed
    widget.cells.layer.add(rectangle((10, 10, 110, 110)), shape_type="rectangle")
    wait(lambda: bool(review.cells[-1].probabilities))
    found["drawn"] = review.cells[-1].source
    wait(lambda: widget.gallery.model.thumbnails.are_made)
    found["crops"] = len(widget.gallery.model.rows)
    seen = viewer.screenshot(path=screenshot, canvas_only=False)
    with tempfile.TemporaryDirectory() as place:
        (saved,) = widget.cells.layer.save(str(Path(place) / "cells.csv"), plugin="napari-bloodcells")
        found["saved"] = len(read_cells(saved))
        folder = Path(place) / "smears"
        write_folder(folder, 2, 0, SmearSettings(width=320, height=240, um_per_pixel=0.2))
        batch = BatchWidget(viewer)
        viewer.window.add_dock_widget(batch, name="Batch")
        batch.model.refresh(model)
        batch.folder.choose(folder)
        QTest.mouseClick(batch.run_bar.run, Qt.MouseButton.LeftButton)
        wait(lambda: not batch.task.is_running)
        found["batch"] = 0 if batch.result is None else len(batch.result.cells)
        batch.open_image(str(batch.result.images["image"].iloc[0]))
    train = TrainWidget(viewer)
    viewer.window.add_dock_widget(train, name="Train")
    found["methods"] = train.method.count() > 3
    found["canvas black"] = bool(seen[..., :3].std() < 10)
    widget.let_go()
    viewer.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
    sys.stdout.flush()
    os._exit(0)  # the result is told; what Qt does while Python ends is not what is tried here
