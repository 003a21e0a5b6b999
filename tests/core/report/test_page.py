"""The report pages as files: what stands in them, and that a file name can do nothing in them."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from tests.example_run import make_run

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import cell_columns, read_cells, write_cells
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.differential import differentials
from napari_bloodcells.core.errors import AnnotationError, BloodcellsError, OutputError, UsageError
from napari_bloodcells.core.report import ReportOptions, write_reports
from napari_bloodcells.core.report.exports import export
from napari_bloodcells.core.report.inputs import ReportInput, confusion_of, from_folder, scheme_of
from napari_bloodcells.core.schema import BundleInfo, ClassEntry, SchemeInfo
from napari_bloodcells.core.statistics.reference import Patient
from napari_bloodcells.core.statistics.unnamed import unnamed


@pytest.fixture(scope="module")
def run() -> ReportInput:
    return make_run({"sample A": 2, "sample B": 1, "sample C": 1})


@pytest.fixture(scope="module")
def folder(run: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    write_reports(run, place)
    return place


def _payload(page: Path) -> dict[str, object]:
    text = page.read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    data: dict[str, object] = json.loads(found[1])
    return data


def test_each_sample_has_a_page_and_the_folder_an_index(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["index.html", "report-sample-A.html", "report-sample-B.html", "report-sample-C.html"]
    index = (folder / "index.html").read_text("utf-8")
    assert all(f'href="{name}"' in index for name in names[1:])


def test_a_folder_without_samples_has_one_page(tmp_path: Path) -> None:
    assert [p.name for p in write_reports(make_run({"": 1}), tmp_path)] == ["report.html", "index.html"]


def test_a_page_loads_nothing_and_runs_only_its_own_script(folder: Path) -> None:
    text = (folder / "report-sample-A.html").read_text("utf-8")
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_the_page_holds_every_cell_with_its_picture(folder: Path, run: ReportInput) -> None:
    data = _payload(folder / "report-sample-A.html")
    expected = run.cells[run.cells["image"].str.startswith("sample A/")]
    assert len(data["cells"]["cell"]) == len(expected)
    assert len(data["sheets"]) == 1
    assert all(image["uri"].startswith("data:image/") for image in data["images"])


def test_the_head_names_sample_date_model_and_its_hash(folder: Path) -> None:
    text = (folder / "report-sample-A.html").read_text("utf-8")
    for part in ("sample A", "2026-11-21 15:02", "wbc5-example", "5f2c9a7be1d0", "For research use only"):
        assert part in text


def test_the_table_says_count_percent_interval_range_and_flag(folder: Path) -> None:
    text = (folder / "report-sample-A.html").read_text("utf-8")
    line = text[text.index('<tr data-class="eosinophil">') :].split("</tr>")[0]
    assert "0 – 5.5" in line
    assert re.search(r'data-code="[^"]*" title="[^"]*">(high|borderline high|within range)<', line)
    assert "Corrected for the classifier" in text


def test_absolute_counts_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    page = write_reports(make_run({"": 1}), tmp_path, options=ReportOptions(wbc=7.2))[0]
    assert '<table class="differential narrow" id="absolute">' in page.read_text("utf-8")


def test_the_head_says_without_a_script_who_reviewed(tmp_path: Path) -> None:
    run = make_run({"": 2})
    n = len(run.cells)
    cells = run.cells.assign(reviewed=False, reviewer="", time="")
    cells.loc[:2, ["reviewed", "reviewer"]] = [[True, "Bert <b>"], [True, "Anna"], [True, ""]]
    cells.loc[3, "reviewer"] = "Carl"  # who did not look
    page = write_reports(ReportInput(cells, run.images, run.scheme), tmp_path)[0].read_text("utf-8")
    assert f'id="fact-reviewed">3 of {n} cells (Anna, Bert &lt;b&gt;)</dd>' in page


def test_a_child_is_not_measured_by_the_ranges_of_adults(tmp_path: Path, run: ReportInput) -> None:
    page = write_reports(run, tmp_path, options=ReportOptions(patient=Patient(age=3)))[0]
    text = page.read_text("utf-8")
    assert "3 years" in text
    assert "40 – 75" not in text
    assert "30 – 77" in text


HOSTILE = "<script>alert(1)</script>\"'><img src=x>&{{7*7}}{%x%}"


def test_a_hostile_name_is_escaped_everywhere(tmp_path: Path) -> None:
    for page in write_reports(make_run({HOSTILE: 1}), tmp_path):
        text = page.read_text("utf-8")
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "{{7*7}}" in text
        assert page.parent == tmp_path


def test_two_samples_that_would_share_a_file_name_do_not(tmp_path: Path) -> None:
    pages = write_reports(make_run({"a b": 1, "a/b": 1, "A-B": 1}), tmp_path)
    assert len({page.name.casefold() for page in pages}) == 4


def test_a_page_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="no report of ours"):
        write_reports(make_run({"": 1}), tmp_path)
    assert (tmp_path / "report.html").read_text() == "<html>mine</html>"


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    run = make_run({"": 1})
    write_reports(run, tmp_path)
    assert write_reports(run, tmp_path)[0].exists()


def test_without_images_the_page_is_whole_but_for_pictures(tmp_path: Path, run: ReportInput) -> None:
    bare = ReportInput(run.cells, run.images, run.scheme)
    page = write_reports(bare, tmp_path)[0]
    assert _payload(page)["sheets"] == []


def test_a_run_without_a_cell_has_a_page(tmp_path: Path, run: ReportInput) -> None:
    empty = ReportInput(run.cells[:0], run.images[:1], run.scheme, confusion=run.confusion)
    page = write_reports(empty, tmp_path)[0]
    assert "No white cell was classified." in page.read_text("utf-8")


def test_the_scheme_of_a_table_is_read_off_its_columns(run: ReportInput) -> None:
    assert scheme_of(run.cells).names == run.scheme.names
    assert scheme_of(run.cells).colors == run.scheme.colors


def test_a_table_cannot_lead_out_of_its_folder(tmp_path: Path, run: ReportInput) -> None:
    from PIL import Image

    inside = tmp_path / "in"
    inside.mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
    run.cells.assign(image="../secret.png").to_csv(inside / "cells.csv", index=False)
    data = from_folder(inside, images=inside)
    assert data.load("../secret.png") is None


def test_the_validation_cells_of_a_model_are_taken_by_source_where_it_has_several() -> None:
    from types import SimpleNamespace as S

    matrix = ((1, 0), (0, 1))
    assert confusion_of(S(confusion=None)) is None
    alone = confusion_of(S(confusion=matrix, confusions={"a": matrix}))
    several = confusion_of(S(confusion=matrix, confusions={"a": matrix, "b": matrix}))
    assert alone is not None
    assert several is not None
    assert (alone.shape, several.shape) == ((1, 2, 2), (2, 2, 2))


def _of_a_model_of_ones_own(folder: Path) -> BundleInfo:
    """What ``count`` leaves of ten cells and a model that is not installed: 4 + 1 white cells, 5 smudge cells."""
    kinds = [("neutrophil", "wbc"), ("my monocyte", "wbc"), ("smudge cell", "other")]
    classes = tuple(ClassEntry(name=name, kind=kind) for name, kind in kinds)
    info = BundleInfo(
        name="mine",
        arch="cnn3",
        scheme=SchemeInfo(name="mine", classes=classes),
        crop=CropSpec(),
        input_size=(50, 50),
        confusions={"ward 7": ((9, 1, 0), (0, 9, 1), (0, 0, 9)), "ward 8": ((8, 2, 0), (0, 8, 2), (0, 0, 8))},
        sha256="a" * 64,
    )
    names = ["neutrophil"] * 4 + ["my monocyte"] + ["smudge cell"] * 5
    rows = [("a.jpg", k, 0, 0, 9, 9, name, 1.0, 0.2, 0.3, 0.5, "found", 0.1) for k, name in enumerate(names, 1)]
    write_cells(pd.DataFrame(rows, columns=cell_columns([name for name, _ in kinds])), folder / "cells.csv")
    (folder / "run.json").write_text(json.dumps({"model": info.record}))
    return info


def test_a_folder_is_reported_with_the_classes_and_validation_cells_of_the_model_that_counted(tmp_path: Path) -> None:
    info = _of_a_model_of_ones_own(tmp_path)
    data = from_folder(tmp_path)
    assert data.scheme == info.class_scheme
    assert [share.percent for share in differentials(data.cells, data.scheme)[-1].shares] == [80, 20]
    wanted = confusion_of(info)
    assert data.confusion is not None
    assert wanted is not None
    assert data.confusion.tolist() == wanted.tolist()
    assert "ward 7" not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [("scheme", {}), ("scheme", [1]), ("confusion", [[1, 2]]), ("confusion", [[1], [2, 3]]), ("confusion", "no")],
)
def test_a_damaged_record_of_the_model_is_one_line(tmp_path: Path, name: str, value: object) -> None:
    record = _of_a_model_of_ones_own(tmp_path).record
    (tmp_path / "run.json").write_text(json.dumps({"model": record | {name: value}}))
    with pytest.raises(UsageError, match=r"^run\.json: [^\n]*$"):
        from_folder(tmp_path)


@pytest.mark.parametrize("text", ["[1]", '"no"', "null", "{", "[" * 100_000, "\xff"])
def test_a_damaged_run_is_one_line(tmp_path: Path, text: str) -> None:
    _of_a_model_of_ones_own(tmp_path)
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"^[^\n]*/run\.json: is (damaged|not JSON) [^\n]*$"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("side", "value"), [("x_max", 1.7e308), ("y_min", -1e9), ("x_min", 40), ("y_max", -3), ("y_max", 10_000_001)]
)
def test_a_box_that_no_image_can_have_is_named(tmp_path: Path, side: str, value: float) -> None:
    _of_a_model_of_ones_own(tmp_path)
    cells = read_cells(tmp_path / "cells.csv")
    cells.loc[3, side] = value
    write_cells(cells, tmp_path / "cells.csv", overwrite=True)
    with pytest.raises(AnnotationError, match=r"^[^\n]*/cells\.csv: cell 4 of a\.jpg has the box [^\n]*$"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_min": "left"}, "has a box that is no number"),
        ({"y_max": None}, "cell 1 of a.jpg has the box 0, 0, 9, nan, "),
    ],
)
def test_boxes_of_a_json_table_are_looked_at_too(tmp_path: Path, change: dict[str, object], says: str) -> None:
    row = {"image": "a.jpg", "cell": 1, "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9, "class": "neutrophil"}
    for rows, said in (([row | change, row], says), ([{"image": "a.jpg", "cell": 1}], "has no column x_min, y_min, ")):
        (tmp_path / "cells.json").write_text(json.dumps(rows))
        with pytest.raises(AnnotationError, match=rf"^[^\n]*/cells\.json: {re.escape(said)}[^\n]*$"):
            from_folder(tmp_path)


def test_a_box_that_a_reviewer_drew_is_looked_at_too(tmp_path: Path) -> None:
    _of_a_model_of_ones_own(tmp_path)
    cells = read_cells(tmp_path / "cells.csv").assign(machine_class="", reviewed=True, reviewer="", time="")
    drawn = cells.iloc[[0]].assign(box_source="drawn", cell=11, x_min=90, x_max=10)
    write_cells(pd.concat([cells, drawn]), tmp_path / "mine.csv")
    with pytest.raises(AnnotationError, match=r"^mine\.csv: cell 11 of a\.jpg has the box 90, 0, 10, 9, "):
        from_folder(tmp_path, corrections=[tmp_path / "mine.csv"])


@pytest.mark.parametrize("text", ["image,status\na,ok\nb,ok,c,d\n", "status\nok\n", "", "image\na.jpg\n"])
def test_a_damaged_table_of_images_is_one_line(tmp_path: Path, text: str) -> None:
    _of_a_model_of_ones_own(tmp_path)
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(BloodcellsError, match=r"images\.csv: "):
        from_folder(tmp_path)


def test_the_names_of_a_table_of_images_stay_texts(tmp_path: Path) -> None:
    _of_a_model_of_ones_own(tmp_path)
    (tmp_path / "images.csv").write_text("image,status\n007,ok\n")
    assert from_folder(tmp_path).images["image"].tolist() == ["007"]


def test_a_page_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"report\.html: .*no space left"):
        write_reports(make_run({"": 1}), tmp_path)
    assert not list(tmp_path.iterdir())


def _flags(page: Path) -> dict[str, tuple[str, str]]:
    """Class to code and tooltip of its flag on a page."""
    text = page.read_text("utf-8")
    found = re.findall(r'<tr data-class="([^"]+)">.*?class="flag" data-code="([^"]*)" title="([^"]*)"', text, re.S)
    return {name: (code, title) for name, code, title in found}


@pytest.mark.parametrize("intervals", ["binomial", "multinomial"])
def test_page_and_fhir_flag_by_the_interval_of_either_kind(tmp_path: Path, intervals: str) -> None:
    """Of 19 eosinophils of 200 (9.5 %) the exact interval lies above 5.5 %, the simultaneous one reaches below it."""
    run = make_run({"": 1})
    labels = ["neutrophil"] * 100 + ["lymphocyte"] * 60 + ["monocyte"] * 21 + ["eosinophil"] * 19
    cells = pd.concat([run.cells.iloc[[0]]] * len(labels), ignore_index=True)
    cells = cells.assign(cell=range(1, len(labels) + 1), **{"class": labels})
    data = ReportInput(cells, run.images, run.scheme, run.run)
    options = ReportOptions(intervals=intervals)  # type: ignore[arg-type]
    flags = _flags(write_reports(data, tmp_path, options=options)[0])
    assert flags["neutrophil"] == ("", "")
    sure = intervals == "binomial"
    says = "lies above the reference range" if sure else "reaches into the reference range, so it may be chance"
    assert flags["eosinophil"][0] == ("H" if sure else "(H)")
    assert says in flags["eosinophil"][1]
    (exported,) = export(data, "fhir-r4", tmp_path / "fhir", options=options)
    resources = [entry["resource"] for entry in json.loads(exported.read_text("utf-8"))["entry"]]
    (eosinophils,) = (r for r in resources if r.get("code", {}).get("text") == "eosinophil percent")
    judged = eosinophils["interpretation"][0]
    assert ("coding" in judged) == sure, "only what is not chance is coded as high"
    assert sure or says in judged["text"]


def test_the_page_says_what_the_model_cannot_name_and_which_platelets_are_the_count(tmp_path: Path) -> None:
    run = make_run({"": 1})
    scheme = load_scheme("pbc8")
    cells = run.cells.assign(**{f"p_{name}": 0.0 for name in scheme.names})
    page = write_reports(ReportInput(cells, run.images.assign(n_platelets=17), scheme), tmp_path)[0].read_text("utf-8")
    assert f'id="unnamed">{unnamed(scheme)}</p>' in page
    assert 'data-kind="found"><dt>platelets found</dt><dd><b>17</b> <small>17.0 per field</small>' in page
    assert 'data-kind="platelet"><dt>platelet in a white-cell box</dt><dd><b>0</b></dd>' in page
    assert page.count("is no platelet count") == 1
