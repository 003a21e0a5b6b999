"""``train --task find`` and ``models info find``, as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_bloodcells.cli.app import run
from napari_bloodcells.synthetic import SmearSettings, write_folder

QUICK = ["--set", "steps=2", "--batch-size", "2", "--set", "weights.synthetic=0"]


def test_a_localizer_of_ones_own_is_trained_and_told_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    write_folder(tmp_path / "fields", 6, settings=SmearSettings(width=200, height=150, um_per_pixel=0.25))
    mine = tmp_path / "mine"
    assert run(["train", "--task", "find", str(tmp_path / "fields"), "-o", str(mine), *QUICK]) == 0
    assert str(mine) in capsys.readouterr().out
    assert run(["models", "info", str(mine)]) == 0
    assert "fields: 6 images" in capsys.readouterr().out


def test_the_shipped_localizer_says_its_size_and_its_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    assert run(["models", "info", "find"]) == 0
    shown = capsys.readouterr().out
    assert "951,983 parameters, 0.152 GMAC" in shown
    assert "3.8 MB" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "find", "--epochs", "3"], "--epochs: not for --task find"),
        (["--task", "find", "--arch", "cnn3"], "--arch: not for --task find"),
        (["--task", "find", "--device", "cuda"], "--device: not for --task find, which trains on the CPU"),
        (["--task", "find", "--set", "stps=3"], "stps is no setting"),
        (["--task", "paint"], "cells or find"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
