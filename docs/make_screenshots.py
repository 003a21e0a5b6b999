"""Makes the pictures of the plugin that ``docs/napari.md`` shows, from drawn smears only.

    python docs/make_screenshots.py [FOLDER]

Opens a real napari window (start it under ``xvfb-run -s "-screen 0 1600x1000x24"`` where there is no display) and
writes PNG files into ``docs/images/napari`` or the folder that is named.  ``QT_SCALE_FACTOR=2`` shows them as on a
dense screen (under ``xvfb-run -s "-screen 0 3200x2000x24"``).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_bloodcells.core.boxes import iou

if TYPE_CHECKING:
    from napari import Viewer
    from napari_bloodcells.napari.review import Review

HERE = Path(__file__).resolve().parent


def drawn_as(viewer: Viewer, review: Review, cell: int) -> str:
    """What the sample's hidden layer of truth says of the box of a cell: a picture should show a right correction."""
    truth = viewer.layers["truth"]
    boxes = np.array([[*shape[:, ::-1].min(0), *shape[:, ::-1].max(0)] for shape in truth.data], np.float32)
    found = np.array([review.cell(cell).box], np.float32)
    return str(truth.features["truth"].iloc[int(iou(found, boxes)[0].argmax())])


def main(folder: Path) -> None:
    """Count the drawn sample, correct two cells, and take a picture at each step."""
    os.environ.pop("QT_QPA_PLATFORM", None)
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()  # no review of the user's is opened or changed
    from qtpy.QtWidgets import QApplication

    import napari
    from napari_bloodcells.napari.batch_widget import BatchWidget
    from napari_bloodcells.napari.count_widget import CountWidget
    from napari_bloodcells.synthetic import SmearSettings, write_folder

    folder.mkdir(parents=True, exist_ok=True)

    def settle(until: Callable[[], bool] = lambda: True, seconds: float = 0.7) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end or not until():
            QApplication.processEvents()
            time.sleep(0.01)

    def shoot(name: str) -> None:
        settle()
        viewer.screenshot(path=str(folder / f"{name}.png"), canvas_only=False)

    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    widget = CountWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Differential count")
    settle()
    viewer.open_sample("napari-bloodcells", "synthetic")
    settle(lambda: widget.form.device_text.text().startswith(("CPU", "GPU", "CUDA")))
    viewer.reset_view(margin=0.02)
    shoot("before")
    widget.run()
    settle(lambda: not widget.counting.is_running and not widget.turns.are_going)
    if widget.cells is None or widget.gallery is None:
        raise SystemExit(widget.run_bar.said.text())
    settle(lambda: widget.gallery.model.thumbnails.are_made, seconds=2)
    viewer.reset_view(margin=0.02)
    shoot("counted")
    review = widget.cells.review
    cell = review.next_unreviewed() or review.cells[0].id
    widget.cells.go_to(cell)
    review.classify(review.selection, drawn_as(viewer, review, cell))
    viewer.reset_view(margin=0.02)
    shoot("corrected")
    viewer.theme = "light"
    shoot("light")
    viewer.theme = "dark"
    viewer.window.remove_dock_widget(dock)
    widget.let_go()
    viewer.layers.clear()

    with tempfile.TemporaryDirectory() as place:
        for seed, sample in ((0, "patient 1"), (50, "patient 2")):
            write_folder(Path(place) / "smears" / sample, 4, seed, SmearSettings())
        batch = BatchWidget(viewer)
        viewer.window.add_dock_widget(batch, name="Batch")
        batch.folder.choose(Path(place) / "smears")
        batch.run()
        settle(lambda: not batch.task.is_running)
        batch.table.topLevelItem(0).setExpanded(True)
        if batch.result is not None:
            batch.open_image(str(batch.result.images["image"].iloc[0]))
        shoot("batch")
    viewer.close()
    for path in sorted(folder.glob("*.png")):
        shrink(path)


def shrink(path: Path) -> None:
    """Rewrite a picture with 256 colors, which takes a quarter of the room."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images" / "napari")
