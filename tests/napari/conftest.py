"""A viewer with settings and reviews of its own for every test, and a review to work on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

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
