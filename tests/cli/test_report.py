"""The command ``report``: a finished page is not replaced by one with less, and lost photographs are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from napari_bloodcells.cli.app import run as call
from napari_bloodcells.core.counting.cellstable import read_cells, write_cells
from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.report.pagefile import MadeWith, made_with


@pytest.fixture
def counted(smears: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """Two samples of six fields, counted."""
    shutil.copytree(smears, tmp_path / "smears")
    out = tmp_path / "out"
    assert call(["count", str(tmp_path / "smears"), "-o", str(out), "--model", str(tiny_model), "--boxes", "xml"]) == 0
    return out


def corrections_of(counted: Path, sample: str) -> Path:
    """Corrections of the cells of one sample, all basophils."""
    cells = read_cells(counted / "cells.csv")
    cells = cells[cells["image"].str.startswith(f"{sample}/")]
    corrected = cells.assign(machine_class=cells["class"], reviewed=True, reviewer="Ada", time="")
    return write_cells(corrected.assign(**{"class": "basophil"}), counted.parent / f"corrected-{sample}.csv")


def test_a_page_with_corrections_is_not_replaced_by_one_without(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrections = ["--corrections", str(corrections_of(counted, "a"))]
    page = counted / "report-a.html"
    assert call(["report", str(counted)]) == 0
    assert call(["report", str(counted), *corrections]) == 0
    assert call(["report", str(counted), *corrections, "--intervals", "multinomial"]) == 0
    assert made_with(page) == MadeWith(6, 18)
    assert made_with(counted / "report-b.html") == MadeWith(6, 0)
    before = {path.name: path.read_bytes() for path in counted.glob("*.html")}
    for others in ([], ["--corrections", str(corrections_of(counted, "b"))]):
        capsys.readouterr()
        assert call(["report", str(counted), *others]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("Error: report-a.html: was made with corrections, which are not given now; ")
        assert "--corrections" in said
        assert "--overwrite" in said
        assert {path.name: path.read_bytes() for path in counted.glob("*.html")} == before
    assert call(["report", str(counted), "--overwrite"]) == 0
    assert made_with(page) == MadeWith(6, 0)


def test_a_page_with_pictures_is_not_replaced_by_one_without(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", str(counted)]) == 0
    assert call(["report", str(counted)]) == 0, "with the same photographs a report is made again"
    before = {path.name: path.read_bytes() for path in counted.glob("*.html")}
    smears = counted.parent / "smears"
    (smears / "b" / "smear_0000.png").rename(counted.parent / "elsewhere.png")
    capsys.readouterr()
    assert call(["report", str(counted)]) == 1
    said = capsys.readouterr().err.strip()
    assert said == (
        f"Error: out: 1 of 12 photographs are not where they were ({smears}); report-b.html has their pictures and is "
        "kept: give their folder with --images, or say --overwrite."
    )
    assert {path.name: path.read_bytes() for path in counted.glob("*.html")} == before
    with pytest.warns(DataWarning, match="1 of 12 photographs are not where they were"):
        assert call(["report", str(counted), "--overwrite"]) == 0
    assert made_with(counted / "report-b.html") == MadeWith(5, 0)


def test_a_first_report_without_photographs_is_made_and_says_so(counted: Path) -> None:
    moved = (counted.parent / "smears").rename(counted.parent / "moved")
    told = r"^out: 12 of 12 photographs are not where they were \(.*smears\); .*: give their folder with --images\.$"
    for _ in range(2):  # nothing is lost by a second page without pictures
        with pytest.warns(DataWarning, match=told):
            assert call(["report", str(counted)]) == 0
    assert made_with(counted / "report-a.html") == MadeWith(0, 0)
    assert call(["report", str(counted), "--images", str(moved)]) == 0
    assert made_with(counted / "report-a.html") == MadeWith(6, 0)


def test_a_count_without_names_keeps_the_pictures_of_its_report(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", str(tmp_path), "--model", str(tiny_model), "--boxes", "xml", "--anonymous", "--report"]
    assert call(["count", str(smears / "a"), *options]) == 0
    capsys.readouterr()
    assert call(["report", str(tmp_path), "--wbc", "7.2"]) == 1
    assert "was counted without the names of its photographs; report.html has their pictures" in capsys.readouterr().err
    assert call(["count", str(smears / "a"), *options, "--resume"]) == 0, "a finished run makes its report again"
    assert made_with(tmp_path / "report.html").pictures == 6
