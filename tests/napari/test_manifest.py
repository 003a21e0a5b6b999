"""The manifest: valid, complete, and what napari makes of it: menus, preferences, readers, writers, samples."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManifest

MANIFEST = Path(__file__).resolve().parents[2] / "napari.yaml"
NAME = "napari-bloodcells"


def test_npe2_finds_nothing_wrong() -> None:
    done = subprocess.run([sys.executable, "-m", "npe2", "validate", NAME], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "valid" in done.stdout + done.stderr


def test_every_contribution_of_the_plugin_is_there_and_can_be_imported() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    made = manifest.contributions
    assert {w.display_name for w in made.widgets} == {"Differential count", "Batch", "Train"}
    assert {tuple(r.filename_patterns) for r in made.readers} == {("*.xml",), ("*cells*.csv", "*corrections*.csv"), ()}
    assert {w.filename_extensions[0] for w in made.writers} == {".xml", ".csv", ".json"}
    assert {s.key for s in made.sample_data} == {"synthetic", "bccd"}
    assert set(made.configurations) >= {"counting", "reference", "review"}
    for command in made.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_the_hub_finds_its_classifiers_and_fields() -> None:
    told = metadata(NAME)
    assert "Framework :: napari" in told.get_all("Classifier")
    assert told["Summary"]
    assert told["License-Expression"] == "BSD-3-Clause"
    manifest = PluginManifest.from_file(MANIFEST)
    assert manifest.categories
    assert manifest.display_name == "Blood cells"


@pytest.mark.gui
def test_the_widgets_stand_in_the_menu_layers_classify_and_open_from_there(make_napari_viewer: Any) -> None:
    from app_model.types import MenuItem
    from napari._app_model import get_app_model

    viewer = make_napari_viewer()
    app = get_app_model()
    entries = [e for e in app.menus.get_menu("napari/layers/classify") if isinstance(e, MenuItem)]
    titles = {e.command.title for e in entries}
    assert {"Differential count", "Batch", "Train"} <= {title.split(" (")[0] for title in titles}
    chosen = next(e for e in entries if e.command.title.startswith("Differential count"))
    app.commands.execute_command(chosen.command.id).result()
    assert any("Differential count" in name for name in viewer.window.dock_widgets)


@pytest.mark.gui
def test_the_settings_stand_in_the_preferences(make_napari_viewer: Any) -> None:
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from napari.settings import get_plugin_settings
    from qtpy.QtWidgets import QListWidget

    viewer = make_napari_viewer()
    assert get_plugin_settings(NAME).counting.cells_wanted == 100
    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    pages = [box.item(k).text() for box in dialog.findChildren(QListWidget) for k in range(box.count())]
    dialog.close()
    assert "Blood cells" in pages
