"""The plugin comes up quickly and loads torch only when something is to be computed."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, sys, time
import napari, qtpy.QtWidgets, pandas, scipy.special, superqt, napari.qt.threading
start = time.process_time()
import napari_bloodcells.napari.count_widget, napari_bloodcells.napari.batch_widget
import napari_bloodcells.napari.train_widget, napari_bloodcells.napari.readers, napari_bloodcells.napari.writers
spent = time.process_time() - start
print(json.dumps([spent, "torch" in sys.modules, "matplotlib.pyplot" in sys.modules]))
"""


def test_the_plugin_is_imported_in_under_a_second_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    seconds, torch, pyplot = json.loads(done.stdout.splitlines()[-1])
    assert seconds < 1
    assert not torch
    assert not pyplot
