"""``models``: what is told of a bundle, and of one that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from napari_bloodcells.cli.app import run
from napari_bloodcells.cli.doctor import models
from napari_bloodcells.core.bundle import installed_models, load_model, save_bundle
from napari_bloodcells.core.errors import BundleError
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


@pytest.fixture
def damaged(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of own models with a sound one and one whose metadata were cut off."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("BLOODCELLS_MODELS", str(tmp_path / "models"))
    for name in ("sound", "hurt"):
        shutil.copytree(tiny_model, tmp_path / "models" / name)
    (tmp_path / "models" / "hurt" / "model.json").write_text("{")
    return tmp_path / "models" / "hurt"


def test_a_model_that_cannot_be_read_is_listed_with_its_problem(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "list"]) == 0
    shown = capsys.readouterr()
    rows = {row.split()[1]: row for row in shown.out.splitlines() if len(row.split()) > 3}
    assert "cannot be read" in rows["hurt"]
    assert "cnn3" in rows["sound"]
    assert "stainnet" in rows["wbc5"]
    assert "Warning: hurt: its metadata cannot be used" in shown.err
    assert str(damaged) in shown.err


def test_beside_a_model_that_cannot_be_read_all_others_are_known(damaged: Path) -> None:
    assert {"tiny", "wbc5"} <= {info.name for info in installed_models()}
    with pytest.raises(BundleError, match=r"no such model; installed: hurt, .*sound"):
        load_model("nowhere", "cpu")


def test_the_doctor_does_not_take_an_own_model_for_what_counting_needs(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {finding.subject: finding for finding in models()}
    assert found["hurt"].state == "unusable"
    assert f"remove {damaged}" in found["hurt"].words
    assert {name for name, finding in found.items() if finding.state == "ok"} >= {"sound", "wbc5", "cell finder"}
    assert run(["doctor"]) == 0
    assert "All that counting needs is here" in capsys.readouterr().out
