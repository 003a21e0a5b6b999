"""The commands train, evaluate and models, as a person types them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.bundle import load_model, save_bundle

QUICK = ["--epochs", "2", "--scheme", "wbc4", "--batch-size", "8", "--set", "val_fraction=0.25"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOODCELLS_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "150")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for name in ("neutrophil", "eosinophil", "lymphocyte", "monocyte"):
        (folder / name).mkdir()
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_train_evaluate_and_info_work_together(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "models" / "mine"
    assert run(["train", str(cells), "--arch", "cnn3", "-o", str(model), *QUICK]) == 0
    shown = capsys.readouterr()
    assert "balanced accuracy" in shown.out
    assert "epoch 2: validation loss" in shown.err
    with open(model / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert run(["evaluate", "mine", str(cells), "-o", str(tmp_path / "report.json")]) == 0
    assert "40 cells of" in capsys.readouterr().out
    assert (tmp_path / "report.json").exists()
    assert run(["evaluate", "mine", str(cells), "-o", str(tmp_path / "report.json")]) == 1
    assert "not overwritten" in capsys.readouterr().err
    assert run(["models", "info", "mine"]) == 0
    shown_info = capsys.readouterr().out
    for words in ("cnn3, 1,224,052 parameters", "GMAC a cell", "SHA-256", "BSD-3-Clause", "recall, neutrophil"):
        assert words in shown_info
    assert run(["models", "list"]) == 0
    assert "cnn3" in capsys.readouterr().out


def test_the_folder_of_the_report_is_made_before_the_evaluation(
    cells: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "new" / "folder" / "report.json"
    assert run(["evaluate", str(tiny_model), str(cells), "-o", str(place)]) == 0
    assert place.exists()
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert run(["evaluate", str(tiny_model), str(cells), "-o", str(tmp_path / "file" / "report.json")]) != 0
    shown = capsys.readouterr()
    assert "file" in shown.err
    assert "cells of" not in shown.out  # nothing was evaluated


def test_that_no_cell_is_identified_is_said(
    cells: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(tiny_model, "cpu")
    place = save_bundle(tmp_path / "shy", model.module, model.info.model_copy(update={"min_confidence": 1.0}))
    assert run(["evaluate", str(place), str(cells)]) == 0
    assert "0 of 40 cells identified: all are beyond the model's limits" in capsys.readouterr().out


def test_the_networks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--architectures"]) == 0
    shown = capsys.readouterr().out
    for name in ("cnn3", "cnn4", "cnn4bn", "cnn5bn", "cnn6", "vgg16"):
        assert name in shown


WRONG = [
    (["--arch", "cnn3", "--recipe", "cnn3"], 2, "not both"),
    (["--arch", "resnet"], 2, "choose one of"),
    (["--recipe", "nowhere.toml"], 2, "no such recipe"),
    (["--arch", "cnn3", "--set", "lr"], 2, "NAME=VALUE"),
    (["--arch", "cnn3", "--set", "lr=3"], 2, "unknown setting"),
    (["--arch", "cnn3", "--device", "abacus"], 2, "no device"),
    (["--arch", "vgg16"], 2, "--weights imagenet (528 MB from download.pytorch.org"),
    (["--arch", "cnn6", "--weights", "imagenet"], 2, "no option weights"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_wrong_usage_is_one_line(
    cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert run(["train", str(cells), "-o", str(tmp_path / "m"), *arguments]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown


def test_a_folder_without_labels_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["train", str(tmp_path / "empty"), "--arch", "cnn3", "-o", str(tmp_path / "m")]) == 1
    assert "empty" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to another process is a Unix thing")
def test_ctrl_c_keeps_everything_and_resume_goes_on(cells: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    command = [sys.executable, "-m", "napari_bloodcells.cli", "train", str(cells), "--arch", "cnn3", "-o", str(model)]
    command += ["--scheme", "wbc4", "--epochs", "100000", "--set", "patience=0", "--set", "val_fraction=0.25"]
    script = "from napari_bloodcells.cli import main; main()"
    command[1:3] = ["-c", script]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while not (model / "history.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said
    done = len((model / "history.csv").read_text().splitlines()) - 1
    assert run(["train", str(cells), "-o", str(model), "--resume", "--epochs", str(done + 1)]) == 0
    assert len((model / "history.csv").read_text().splitlines()) - 1 == done + 1
    assert run(["train", str(cells), "-o", str(model), "--resume", "--epochs", "1"]) == 0
    assert (model / "model.safetensors").exists()
