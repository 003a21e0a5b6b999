"""Reports of what is hardly there: no cells, no size, no code, no confidence; and pages that cannot be closed early."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.example_run import make_run

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.report import ReportOptions, fhir, page
from napari_bloodcells.core.report.annotations import coco, geojson
from napari_bloodcells.core.report.exports import _instant, export
from napari_bloodcells.core.report.inputs import ReportInput, loader, scheme_of
from napari_bloodcells.core.statistics.reference import Flag


@pytest.fixture(scope="module")
def run() -> ReportInput:
    return make_run({"a": 1})


def test_cells_without_a_confidence_have_no_score(run: ReportInput) -> None:
    bare = replace(run, cells=run.cells.drop(columns="confidence"))
    assert all("score" not in entry for entry in json.loads(coco(bare))["annotations"])
    image = str(run.cells["image"].iloc[0])
    for data in (bare, replace(run, cells=run.cells.assign(confidence=float("nan")))):
        shapes = json.loads(geojson(data, image))["features"]
        assert all("confidence" not in shape["properties"]["measurements"] for shape in shapes)
        assert all("score" not in entry for entry in json.loads(coco(data))["annotations"])


def test_what_has_no_code_goes_as_text() -> None:
    assert fhir._code("smudge cell", "percent", "smudge cell percent") == {"text": "smudge cell percent"}
    assert "coding" in fhir._code("neutrophil", "percent", "neutrophil percent")


@pytest.mark.parametrize(("code", "display"), [("H", "High"), ("L", "Low")])
def test_what_lies_beyond_its_range_is_judged(code: str, display: str) -> None:
    entry = fhir._judged({}, Flag(code, "above"), None, "percent", {})
    coding = entry["interpretation"][0]["coding"][0]
    assert (coding["code"], coding["display"], entry["interpretation"][0]["text"]) == (code, display, "above")
    assert "referenceRange" not in entry


def test_a_count_of_nothing_says_that_its_percents_are_unknown(run: ReportInput, tmp_path: Path) -> None:
    cells = run.cells.assign(**{"class": "unidentified"})
    files = export(replace(run, cells=cells), "fhir-r4", tmp_path, options=ReportOptions())
    entries = [entry["resource"] for entry in json.loads(files[0].read_text("utf-8"))["entry"]]
    percents = [e for e in entries if e["resourceType"] == "Observation" and "percent" in e["code"].get("text", "")]
    assert percents
    for entry in percents:
        assert entry["dataAbsentReason"]["coding"][0]["code"] == "unknown"
        assert "valueQuantity" not in entry


def test_a_device_of_unknown_version_names_its_model_alone() -> None:
    head = {"model": "wbc5", "hash": "12ab"}
    assert fhir._device(head, "R4")["version"] == [{"value": "model wbc5 12ab"}]
    both = fhir._device({**head, "version": "0.1.0"}, "R5")["version"]
    assert [v["value"] for v in both] == ["napari-bloodcells 0.1.0", "model wbc5 12ab"]


@pytest.mark.parametrize("times", [{"started": "yesterday"}, {}, None, {"started": "2026-11-21T15:02:11"}])
def test_an_instant_has_a_time_zone_whatever_the_run_says(run: ReportInput, times: object) -> None:
    text = _instant(replace(run, run={"times": times}))
    assert text.endswith("+00:00")
    assert text.startswith("2026-11-21T15:02:11") == (times == {"started": "2026-11-21T15:02:11"})


def test_voc_needs_the_size_of_an_image(run: ReportInput, tmp_path: Path) -> None:
    lost = replace(run, load=loader(None))
    with pytest.raises(UsageError, match="its size is not known and it is not at hand; name its folder with --images"):
        export(lost, "voc", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_probabilities_has_the_classes_that_it_names(run: ReportInput) -> None:
    plain = run.cells[["image", "cell", "class"]]
    assert set(scheme_of(plain).names) == {n for n in plain["class"] if n != "unidentified"}
    assert scheme_of(plain.iloc[:0]).names == ("white blood cell",)


def test_a_loader_of_ones_own_is_taken_as_it_is() -> None:
    def mine(name: str) -> None:
        return None

    assert loader(mine) is mine


def test_no_asset_can_close_its_own_element(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "evil.js").write_text("x = '</SCRIPT>'")
    monkeypatch.setattr(page, "files", lambda name: tmp_path)
    with pytest.raises(ValueError, match="would close its own element"):
        page._asset("evil.js")
