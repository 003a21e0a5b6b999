"""``export`` and ``report`` on the command line, from a folder as ``count`` writes it, with corrections."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.example_run import make_run

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import write_cells
from napari_bloodcells.core.counting.output import read_table, table_bytes
from napari_bloodcells.core.statistics.intervals import goodman


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    return _counted(tmp_path, {"a": 1, "b": 1})


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    return _counted(tmp_path, {"a": 1})


def _counted(tmp_path: Path, samples: dict[str, int]) -> Path:
    """An output folder of a count, and corrections of its first cell beside it."""
    data = make_run(samples)
    folder = tmp_path / "out"
    folder.mkdir()
    write_cells(data.cells, folder / "cells.csv")
    data.images.to_csv(folder / "images.csv", index=False)
    (folder / "run.json").write_text(json.dumps({**data.run, "input": None}))
    corrected = data.cells.assign(reviewed=0, reviewer="", time="")
    corrected.loc[0, ["class", "reviewed"]] = ["basophil", 1]
    write_cells(corrected, tmp_path / "cells.csv")
    return folder


def test_corrections_go_into_the_export(counted: Path) -> None:
    corrections = counted.parent / "cells.csv"
    assert run(["export", str(counted), "-f", "csv", "--corrections", str(corrections)]) == 0
    text = (counted / "csv" / "cells.csv").read_text("utf-8")
    assert text.splitlines()[1].split(",")[6] == "basophil"


def test_a_class_written_by_hand_is_understood_or_refused_by_its_row(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrections, table = counted.parent / "cells.csv", counted / "csv" / "differential.csv"
    text = corrections.read_text("utf-8")
    corrections.write_text(text.replace(",basophil,", ",Basofil,", 1), "utf-8")
    assert run(["export", str(counted), "-f", "csv", "--corrections", str(corrections)]) == 0
    assert "all,basophil,1," in table.read_text("utf-8")
    corrections.write_text(text.replace(",basophil,", ",basophill,", 1), "utf-8")
    assert run(["export", str(counted), "-f", "csv", "--overwrite", "--corrections", str(corrections)]) != 0
    assert "Error: cells.csv: row 2 has class 'basophill', which this count" in capsys.readouterr().err


def test_a_file_that_is_there_already_is_named_with_its_folder(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(counted), "-f", "csv"]) == 0
    assert run(["export", str(counted), "-f", "csv"]) == 1
    assert f"Error: {counted}/csv/cells.csv: is already there" in capsys.readouterr().err


def test_pages_are_written_with_the_corrected_classes(alone: Path) -> None:
    assert run(["report", str(alone), "--corrections", str(alone.parent / "cells.csv"), "--wbc", "7.2"]) == 0
    page = (alone / "report-a.html").read_text("utf-8")
    line = page[page.index('<tr data-class="basophil">') :].split("</tr>")[0]
    assert '<td class="n" data-f="count">1</td>' in line


def test_fhir_carries_absolute_counts_when_the_white_cells_are_given(alone: Path) -> None:
    assert run(["export", str(alone), "-f", "fhir-r4", "--wbc", "7.2", "--age", "5", "--sex", "female"]) == 0
    (file,) = (alone / "fhir-r4").glob("*.fhir.json")
    assert '"751-8"' in file.read_text("utf-8")


def test_fhir_has_no_report_of_a_patient_who_is_several(counted: Path) -> None:
    assert run(["export", str(counted), "-f", "fhir-r4"]) == 0
    assert sorted(f.name for f in (counted / "fhir-r4").iterdir()) == ["a.fhir.json", "b.fhir.json"]


@pytest.mark.parametrize("command", [["report"], ["export", "-f", "fhir-r4"]])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--wbc", "7.2"], "--wbc is"),
        (["--age", "44"], "--age is"),
        (["--sex", "female", "--wbc", "7.2"], "--wbc and --sex are"),
    ],
)
def test_what_is_of_one_patient_is_refused_for_several(
    counted: Path, command: list[str], given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(counted.iterdir())
    assert run([command[0], str(counted), *command[1:], *given]) == 2
    said = capsys.readouterr().err
    assert said == f"Error: {says} of one patient, and here are 2 samples: count each folder by itself.\n"
    assert sorted(counted.iterdir()) == before
    assert run(["export", str(counted), "-f", "csv", *given]) == 0, "tables say nothing of a patient"


def test_intervals_of_all_classes_at_once_are_given_on_request(counted: Path) -> None:
    assert run(["report", str(counted), "-o", str(counted / "single")]) == 0
    assert run(["report", str(counted), "-o", str(counted / "joint"), "--intervals", "multinomial"]) == 0
    single, joint = ((counted / name / "report-a.html").read_text("utf-8") for name in ("single", "joint"))
    assert "Goodman 1965" in joint
    assert "Goodman 1965" not in single
    shares = [re.findall(r'data-f="interval">([\d.]+) – ([\d.]+)<', page) for page in (single, joint)]
    labels = make_run({"a": 1, "b": 1}).cells
    counts = [
        int((labels[labels["image"].str.startswith("a/")]["class"] == n).sum()) for n in load_scheme("wbc5").names
    ]
    expected = [100 * limit for limit in goodman(counts)]
    assert shares[0] != shares[1]
    assert [f"{v:.1f}" for pair in zip(*expected, strict=True) for v in pair] == [v for p in shares[1][:5] for v in p]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "csv", "--intervals", "x"], "binomial or multinomial"),
        (["-f", "pdf"], "no such format"),
        (["-f", "fhir-r4", "--wbc", "7200"], "7.2, not 7200"),
        (["-f", "csv", "--age", "-1"], "age in years"),
        (["-f", "csv", "--sex", "x"], "female or male"),
        (["-f", "csv", "--ranges", "none.json"], "none.json: cannot be read"),
    ],
)
def test_a_value_that_cannot_be_meant_is_wrong_usage(
    counted: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(counted), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_a_count_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert "holds no cells.csv" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_tables_of_other_formats_are_read_as_those_of_csv(counted: Path, format: str) -> None:
    other = counted.parent / "other"
    other.mkdir()
    for name in ("cells", "images"):
        table = read_table(counted / f"{name}.csv")
        (other / f"{name}.{format}").write_bytes(table_bytes(table, format))
    for folder in (counted, other):
        assert run(["export", str(folder), "-f", "csv", "-o", str(folder / "csv")]) == 0
        assert run(["report", str(folder), "-o", str(folder / "page")]) == 0
    assert (other / "csv" / "cells.csv").read_bytes() == (counted / "csv" / "cells.csv").read_bytes()
    assert run(["compare", str(counted), str(other)]) == 0


def test_a_folder_of_images_that_is_not_there_is_wrong_usage(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(counted), "--images", "typo"]) == 2
    assert "typo: no such folder" in capsys.readouterr().err
