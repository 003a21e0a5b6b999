"""What an overwritten run leaves: its report pages and overlays go, exports and what is somebody else's stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from napari_bloodcells.cli.app import run as call
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.former import EXPORTS, remove_former
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.report import write_reports
from napari_bloodcells.core.report.exports import FORMS


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_report_and_the_overlays_of_an_overwritten_run_go_with_its_tables(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = ["-o", str(out), "--model", str(tiny_model), "--boxes", "xml"]
    assert call(["count", str(smears), *common, "--report", "--overlay"]) == 0
    assert call(["export", str(out), "-f", "fhir-r4"]) == 0
    mine = {"report-notes.html": "<html>mine</html>", "overlay/mine.jpg": "mine", "overlay/a/notes.txt": "mine"}
    for name, text in mine.items():
        (out / name).write_text(text)
    for name in ("b/smear_0000.png", "b/smear_0001.png"):
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy((smears / name).with_suffix(".xml"), (tmp_path / "other" / name).parent)
        shutil.copy(smears / name, tmp_path / "other" / name)
    tables = {"cells.csv", "images.csv", "differential.csv", "run.json"}
    exported = {name for name in files_in(out) if name.startswith("fhir-r4/")}
    with pytest.warns(DataWarning, match=r"^out: holds exports of the former count \(fhir-r4\), which are kept; "):
        assert call(["count", str(tmp_path / "other"), *common, "--overwrite", "--overlay"]) == 0
    assert len(exported) == 2
    drawn = {"overlay/b/smear_0000.png.jpg", "overlay/b/smear_0001.png.jpg"}
    assert files_in(out) == {*tables, *exported, *mine, *drawn}
    assert all((out / name).read_text() == text for name, text in mine.items())


def test_the_overview_of_a_slide_goes_and_nothing_beyond_a_link(tmp_path: Path) -> None:
    out, beyond = tmp_path / "out", tmp_path / "beyond"
    (out / "overlay" / "b").mkdir(parents=True)
    beyond.mkdir()
    kept = [beyond / "1.png.jpg", out / "s.svs.jpg", tmp_path / "x.jpg"]
    for path in (out / "overlay" / "b" / "s.svs-overview.jpg", *kept):
        path.touch()
    (out / "overlay" / "far").symlink_to(beyond)
    remove_former(out, ["b/s.svs", "far/1.png", "../../x", "", "gone.png"], frozenset({"b/s.svs"}))
    assert all(path.exists() for path in kept)
    assert not (out / "overlay" / "b").exists(), "a folder that is empty goes too"


def test_tables_of_the_very_run_leave_its_report_alone(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = CountOptions(output=tmp_path)
    result = count(smears / "a", str(tiny_model), "xml", "cpu", options=options)
    (page, _) = write_reports(result, tmp_path)
    result.to_csv(tmp_path, overwrite=True)
    assert page.exists()
    count(smears / "b", str(tiny_model), "xml", "cpu").to_csv(tmp_path, overwrite=True)
    assert not page.exists()


def test_the_folders_of_all_exports_are_known() -> None:
    assert tuple(FORMS) == EXPORTS
