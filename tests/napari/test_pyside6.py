"""The plugin under PySide6: the main path in a process of its own, because one process has one binding."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gui

SCRIPT = Path(__file__).with_name("pyside6_main_path.py")


@pytest.mark.skipif(
    importlib.util.find_spec("PySide6") is None,
    reason="PySide6 is not installed; `pip install --target FOLDER PySide6-Essentials` and name FOLDER in PYTHONPATH",
)
def test_count_review_batch_and_train_work_under_pyside6(tiny_model: Path, artifacts: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "QT_API": "pyside6",
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tiny_model), str(artifacts / "pyside6.png")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "binding": "PySide6",
        "cells": 8,
        "named by key": "basophil",
        "named by button": "monocyte",
        "undone": True,
        "drawn": "drawn",
        "crops": 9,
        "saved": 9,
        "batch": 6,
        "methods": True,
        "canvas black": False,
    }
