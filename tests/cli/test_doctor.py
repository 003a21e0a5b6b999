"""The doctor: says in words what is there, and has exit code 1 when counting cannot work."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata, util
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from napari_bloodcells.cli import doctor as doctor_module
from napari_bloodcells.cli.doctor import EXTRAS, PACKAGES, Finding, doctor, examine, extras, formats, total_memory

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return examine()


def test_on_a_complete_installation_nothing_is_broken(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.state == "broken"] == []
    result = CliRunner().invoke(app)
    assert result.exit_code == 0
    assert "bloodcells-batch demo" in result.output


def test_every_area_is_looked_at(findings: list[Finding]) -> None:
    areas = dict.fromkeys(finding.area for finding in findings)
    assert list(areas) == ["Versions", "Machine", "Picture formats", "Models", "Extras"]
    names = {finding.subject: finding.words for finding in findings}
    assert names["torch"] == metadata.version("torch")
    assert names["device"].startswith(("CPU", "GPU"))
    assert re.search(r"hash [0-9a-f]{12} right", names["wbc5"])


def test_every_extra_of_the_package_for_users_is_known() -> None:
    root = Path(__file__).resolve().parents[2]
    asked = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(asked) - {"all", "docs", "test"}


def test_every_dependency_that_counting_needs_is_asked_for() -> None:
    required = {re.split(r"[<>=;\[ ]", line)[0] for line in metadata.requires("napari-bloodcells") or []}
    assert set(PACKAGES) <= required


def test_a_missing_extra_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    for finding in extras():
        assert finding.state == "extra"
        assert f'pip install "napari-bloodcells[{finding.subject}]"' in finding.words


def test_napari_without_a_window_toolkit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_is_there", lambda name: name not in doctor_module.QT)
    assert [finding.subject for finding in extras() if finding.state == "extra"] == ["Qt"]


def test_a_reader_that_fails_is_broken_and_the_exit_code_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_bloodcells.core import images

    def fails(data: bytes, name: str) -> None:
        raise OSError("no such codec")

    monkeypatch.setattr(images, "read_image_bytes", fails)
    assert {finding.state for finding in formats()} == {"broken"}
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    assert "no such codec" in result.output
    assert "Traceback" not in result.output


def test_a_reader_that_swaps_the_colors_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_bloodcells.core import images

    monkeypatch.setattr(
        images, "read_image_bytes", lambda data, name, read=images.read_image_bytes: 255 - read(data, name)
    )
    assert {finding.state for finding in formats()} == {"broken"}


def test_a_damaged_model_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import napari_bloodcells
    from napari_bloodcells.core.errors import BundleError

    def damaged(name: str, device: str) -> None:
        raise BundleError(f"{name}: the weights do not have the hash that model.json names.")

    monkeypatch.setattr(napari_bloodcells, "load_model", damaged, raising=False)
    monkeypatch.setattr("napari_bloodcells.core.localize.load_localizer", lambda name: damaged(name, "cpu"))
    states = {finding.subject: finding for finding in doctor_module.models()}
    assert states["cell finder"].state == "broken"
    assert states["wbc5"].state == "broken"
    assert "hash" in states["wbc5"].words


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(doctor_module, "machine", fails)
    trouble = [finding for finding in examine() if finding.area == "Trouble"]
    assert [(finding.state, finding.words) for finding in trouble] == [("broken", "RuntimeError: driver too old")]


def test_the_memory_is_plausible_or_unknown() -> None:
    memory = total_memory()
    assert memory is None or 2**28 < memory < 2**50
