"""``models info``: what is told of a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.bundle import load_model, save_bundle
from napari_bloodcells.core.schema import TrainingSource


def test_a_source_of_unlabeled_cells_is_not_said_to_have_none(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    model = load_model(tiny_model, "cpu")
    sources = (
        TrainingSource(source="bccd", counts={"neutrophil": 1200, "monocyte": 34}),
        TrainingSource(source="unlabeled: a60", counts={}),
    )
    place = save_bundle(tmp_path / "ad60", model.module, model.info.model_copy(update={"training": sources}))
    assert run(["models", "info", str(place)]) == 0
    said = capsys.readouterr().out
    assert "bccd: 1,234 cells; unlabeled: a60\n" in "\n".join(line.rstrip() for line in said.splitlines())
    assert " 0 cells" not in said
