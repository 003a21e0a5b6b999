"""A viewer with settings and reviews of its own for every test, and a review to work on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.review import Review

ROOT = Path(__file__).resolve().parents[2]
os.environ.pop("QT_QPA_PLATFORM", None)  # "offscreen" crashes or draws black: a real canvas, under xvfb if need be


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings, data and models of the user lie in the test's folder; no device is asked for by another process."""
    from napari import settings
    from napari_bloodcells.napari import device_line

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("BLOODCELLS_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LOGNAME", "tester")
    monkeypatch.setattr(settings, "_CFG_PATH", str(tmp_path / "settings.yaml"))
    settings._clear_plugin_settings_cache()
    monkeypatch.setattr(device_line, "_known", {name: f"CPU ({name})" for name in ("auto", "cpu", "cuda", "mps")})
    yield
    settings._clear_plugin_settings_cache()


@pytest.fixture(scope="session")
def import_of_torch() -> float:
    """Processor seconds that importing torch takes here: what a window may take is a share of it, as machines differ in
    speed by a factor of two and more (1.1 s on the one on which the shares were set)."""
    script = "import time, torch; print(time.process_time())"
    return min(float(subprocess.check_output([sys.executable, "-c", script])) for _ in range(3))


@pytest.fixture
def artifacts() -> Path:
    """Where screenshots are kept to be looked at (git-ignored)."""
    folder = ROOT / "artifacts" / "napari"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_review(names: list[str], images: tuple[str, ...] = ("a.jpg",), **changes: Any) -> Review:
    """A review of cells 40 pixels wide, 60 apart, spread over the images in turn; confidence falls from 0.95."""
    cells = []
    for k, name in enumerate(names):
        box = (10.0 + 60 * k, 20.0, 50.0 + 60 * k, 60.0)
        confidence = max(0.3, 0.95 - 0.1 * k)
        p = [round((1 - confidence) / 4, 4)] * 5
        p[load_scheme("wbc5").names.index(name)] = confidence
        image = k % len(images)
        cells.append(Cell(k + 1, image, k // len(images) + 1, box, name, name, confidence, tuple(p), distance=0.5))
    review = Review(load_scheme("wbc5"), images, cells, reviewer="ada", **changes)
    review.now = lambda: "2026-01-02T03:04:05Z"
    return review


@pytest.fixture
def make_review() -> Callable[..., Review]:
    """Makes reviews of given classes: ``make_review(["neutrophil"], ("a.jpg",))``."""
    return new_review


@pytest.fixture
def review() -> Review:
    """Three cells on one field: neutrophil 0.95, lymphocyte 0.85, monocyte 0.75."""
    return new_review(["neutrophil", "lymphocyte", "monocyte"])


@pytest.fixture
def field_image() -> np.ndarray:
    """A drawn field of 640 x 480 pixels with three cells."""
    from napari_bloodcells.synthetic import SmearSettings, draw_smear

    return draw_smear(4, SmearSettings(cells=("neutrophil", "lymphocyte", "eosinophil"))).image


@pytest.fixture
def wait_for(qtbot: Any) -> Callable[..., None]:
    """Wait until something is so; long, because test machines are busy."""

    def wait(condition: Callable[[], bool], timeout: int = 120_000) -> None:
        qtbot.waitUntil(condition, timeout=timeout)

    return wait


@pytest.fixture
def open_widget(make_napari_viewer: Any, tiny_model: Path) -> Callable[..., tuple[Any, Any]]:
    """Opens a window with Differential count docked, as the menu Plugins does; ``images`` are added first."""

    def opened(*images: Any, **keywords: Any) -> tuple[Any, Any]:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1500, 950)
        for image in images:
            viewer.add_image(image, rgb=True, name="smear", **keywords)
        _, widget = viewer.window.add_plugin_dock_widget("napari-bloodcells", "Differential count")
        widget.form.model.refresh(str(tiny_model))
        widget.form.boxes.setCurrentIndex(widget.form.boxes.findData("classical"))
        return viewer, widget

    return opened


@pytest.fixture
def count(wait_for: Callable[..., None], qtbot: Any) -> Callable[[Any], Review]:
    """Presses Run and waits until the cells are there: their review."""

    def pressed(widget: Any) -> Review:
        former = widget.cells
        qtbot.mouseClick(widget.run_bar.run, Qt.MouseButton.LeftButton)
        wait_for(lambda: not widget.counting.is_running and not widget.turns.are_going)
        assert widget.cells is not None, widget.run_bar.said.text()
        assert widget.cells is not former, widget.run_bar.said.text()
        return widget.cells.review

    return pressed


@pytest.fixture
def counted(open_widget: Any, field_image: np.ndarray, count: Callable[[Any], Review]) -> tuple[Any, Any]:
    """A counted field of three cells."""
    viewer, widget = open_widget(field_image)
    count(widget)
    return viewer, widget


@pytest.fixture
def press(qtbot: Any) -> Callable[..., None]:
    """Presses keys on the canvas of a viewer; a tuple is a key with its modifier."""

    def pressed(viewer: Any, *keys: Any) -> None:
        for one in keys:
            code, modifier = one if isinstance(one, tuple) else (one, Qt.KeyboardModifier.NoModifier)
            qtbot.keyClick(viewer.window._qt_viewer.canvas.native, code, modifier)

    return pressed


@pytest.fixture
def shoot(artifacts: Path, qtbot: Any, wait_for: Callable[..., None]) -> Callable[..., np.ndarray]:
    """Takes a picture of the whole window once it is at rest, and checks that its canvas is not black."""

    def shot(viewer: Any, name: str, widget: Any = None) -> np.ndarray:
        qtbot.wait(300)
        if widget is not None and widget.gallery is not None:
            widget.gallery.view.viewport().repaint()  # what comes into view is asked for when it is painted
            wait_for(lambda: widget.gallery.model.thumbnails.are_made)
        seen = viewer.screenshot(path=str(artifacts / f"{name}.png"), canvas_only=False)
        if len(viewer.layers):
            drawn = viewer.screenshot(canvas_only=True)[..., :3]
            assert drawn.std() > 10
            assert (drawn.max(-1) > 100).mean() > 0.1
        return seen

    return shot
