"""Exports read back by the libraries of those who take them in."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.example_run import make_run

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cells import recount_images
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import OutputError, UsageError
from napari_bloodcells.core.report import ReportOptions, write_reports
from napari_bloodcells.core.report.exports import FORMS, export
from napari_bloodcells.core.report.inputs import ReportInput
from napari_bloodcells.core.statistics.reference import load_ranges
from napari_bloodcells.core.statistics.unnamed import unnamed
from napari_bloodcells.core.voc import read_voc

CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
PERCENT = dict(zip(CLASSES, ("770-8", "736-9", "5905-5", "713-8", "706-2"), strict=True))
ABSOLUTE = dict(zip(CLASSES, ("751-8", "731-0", "742-7", "711-2", "704-7"), strict=True))


@pytest.fixture(scope="module")
def run() -> ReportInput:
    return make_run({"sample A": 2, "b": 1})


def _sample(run: ReportInput, name: str) -> ReportInput:
    """One sample of a run, as it is counted by itself."""
    cells, images = (table[table["image"].str.startswith(f"{name}/")] for table in (run.cells, run.images))
    return replace(run, cells=cells.reset_index(drop=True), images=images.reset_index(drop=True))


def _labeled(labels: list[str], scheme: str = "wbc5") -> ReportInput:
    """A run of one field with a cell for each of ``labels``."""
    run = make_run({"": 1})
    cells = pd.concat([run.cells.iloc[[0]]] * len(labels), ignore_index=True)
    cells = cells.assign(cell=range(1, len(labels) + 1), **{"class": labels})
    return ReportInput(cells, run.images, load_scheme(scheme), run.run)


def _report_of(file: Path) -> dict[str, Any]:
    """The DiagnosticReport of a bundle."""
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))["entry"][0]["resource"]
    return report


def _ids(run: ReportInput, folder: Path) -> list[str]:
    entries = json.loads(export(run, "fhir-r4", folder, overwrite=True)[0].read_text("utf-8"))["entry"]
    return [entry["fullUrl"] for entry in entries]


def _observations(bundle: Any) -> dict[str, Any]:
    found = {}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "Observation" and "coding" in resource["code"]:
            found[resource["code"]["coding"][0]["code"]] = resource
    return found


@pytest.mark.parametrize("release", ["r4", "r5"])
def test_fhir_has_an_observation_per_class_that_the_library_validates(
    tmp_path: Path, run: ReportInput, release: str
) -> None:
    if release == "r5":
        from fhir.resources.bundle import Bundle
    else:
        from fhir.resources.R4B.bundle import Bundle
    names = [path.name for path in export(run, f"fhir-{release}", tmp_path)]
    assert [name.partition(".")[0] for name in names] == ["sample-A-" + names[0][9:15], "b"]  # no pool
    files = export(_sample(run, "b"), f"fhir-{release}", tmp_path / "b", options=ReportOptions(wbc=7.2))
    for path in (*tmp_path.glob("*.json"), *files):
        Bundle.model_validate_json(path.read_text("utf-8"))
    bundle = json.loads(files[-1].read_text("utf-8"))
    found = _observations(bundle)
    assert {*PERCENT.values(), *ABSOLUTE.values()} <= set(found)
    cells = run.cells[run.cells["image"].str.startswith("b/")]
    n = (cells["class"] == "lymphocyte").sum()
    total = (~cells["class"].isin(["unidentified", "not a WBC"])).sum()
    assert found["736-9"]["valueQuantity"]["value"] == pytest.approx(100 * n / total, abs=1e-3)
    assert found["731-0"]["valueQuantity"]["value"] == pytest.approx(7.2 * n / total, abs=1e-3)
    assert found["731-0"]["valueQuantity"]["code"] == "10*9/L"
    report = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport")
    ids = {entry["fullUrl"] for entry in bundle["entry"]}
    assert {result["reference"] for result in report["result"]} <= ids
    assert report["status"] == "preliminary"
    assert "research use" in report["conclusion"]
    assert report["identifier"][0]["value"] == "b"
    assert found["736-9"]["referenceRange"][0]["text"] != "davis"


def test_fhir_of_one_sample_is_of_its_folder_and_says_who_reviewed(tmp_path: Path) -> None:
    one = make_run({"": 1})
    cells = one.cells.assign(reviewed=False, reviewer="")
    cells.loc[0, ["reviewed", "reviewer"]] = [True, "Ada"]
    made = export(ReportInput(cells, one.images, one.scheme, one.run), "fhir-r4", tmp_path)
    report = json.loads(made[0].read_text("utf-8"))["entry"][0]["resource"]
    assert report["identifier"][0]["value"] == "smears"
    assert f"1 of {len(cells)} cells were reviewed by Ada." in report["conclusion"]


def test_erythroblasts_have_their_rate_with_its_code(tmp_path: Path, run: ReportInput) -> None:
    cells = run.cells.copy()
    cells.loc[cells.index[:3], "class"] = "erythroblast"
    names = load_scheme("pbc8").names
    pictures = ReportInput(cells.assign(**{f"p_{n}": 0.0 for n in names}), run.images, load_scheme("pbc8"), run.run)
    bundle = json.loads(export(pictures, "fhir-r4", tmp_path)[0].read_text("utf-8"))
    rate = _observations(bundle)["58413-6"]["valueQuantity"]
    cells = cells[cells["image"].str.startswith("sample A/")]
    white = cells["class"].isin([c.name for c in pictures.scheme.classes if c.kind == "wbc"]).sum()
    assert rate["value"] == pytest.approx(300 / white, abs=1e-3)
    assert rate["code"] == "/100{WBCs}"


def test_every_code_says_where_it_was_checked_and_has_a_sound_check_digit() -> None:
    table = json.loads((files("napari_bloodcells") / "reference" / "loinc.json").read_text("utf-8"))
    assert {c["code"] for c in table["codes"]} >= {*PERCENT.values(), *ABSOLUTE.values()}
    for entry in table["codes"]:
        assert entry["checked"], entry
        assert set(entry["checked"]) <= set(table["sources"])
        digits, check = entry["code"].split("-")
        odd, even = digits[::-1][::2], digits[::-1][1::2]  # modulus 10, as LOINC numbers are made
        total = sum(map(int, str(2 * int(odd[::-1])))) + sum(map(int, even))
        assert (10 - total % 10) % 10 == int(check), entry["code"]
    by_code = {c["code"]: c["display"].lower() for c in table["codes"]}
    assert all(by_code[code].startswith(name) for code, name in {**{v: k for k, v in PERCENT.items()}}.items())


def test_the_same_run_gives_the_same_fhir(tmp_path: Path, run: ReportInput) -> None:
    a, b = (export(run, "fhir-r4", tmp_path / name)[0].read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"input": "/smears/patient 1"}, {"input": "/smears/patient 2"}),
        (
            {"input": None, "fingerprint": {"list of images": "1a"}},
            {"input": None, "fingerprint": {"list of images": "2b"}},
        ),
    ],
)
def test_two_runs_of_one_second_share_no_id_and_each_keeps_its_own_through_a_review(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    run = make_run({"": 1})
    empty = replace(run, cells=run.cells[:0])
    for data in (run, empty):
        first, second = (replace(data, run={**data.run, **told}) for told in (one, other))
        assert set(_ids(first, tmp_path)).isdisjoint(_ids(second, tmp_path))
        assert _ids(first, tmp_path) == _ids(replace(first, run=json.loads(json.dumps(first.run))), tmp_path)
    cells = run.cells.assign(reviewed=True, x_max=run.cells["x_max"] + 2)
    assert _ids(replace(run, cells=cells), tmp_path) == _ids(run, tmp_path), "a moved box makes no new report"


def test_runs_of_arrays_are_told_apart_by_their_cells(tmp_path: Path) -> None:
    run = make_run({"": 1})
    first = replace(run, run={**run.run, "input": None})
    second = replace(first, cells=first.cells.assign(x_max=first.cells["x_max"] + 1))
    assert set(_ids(first, tmp_path)).isdisjoint(_ids(second, tmp_path))
    assert _ids(first, tmp_path) == _ids(first, tmp_path)


def test_a_white_cell_count_is_not_that_of_several_patients(tmp_path: Path, run: ReportInput) -> None:
    says = "^wbc is of one patient, and here are 2 samples: count each folder by itself\\.$"
    for write in (
        lambda o: export(run, "fhir-r4", tmp_path, options=o),
        lambda o: write_reports(run, tmp_path, options=o),
    ):
        with pytest.raises(UsageError, match=says):
            write(ReportOptions(wbc=7.2))
    assert list(tmp_path.iterdir()) == []
    assert export(run, "csv", tmp_path, options=ReportOptions(wbc=7.2)), "tables say nothing of it"


def test_an_absolute_count_out_of_range_is_said_in_the_conclusion_and_on_the_index(tmp_path: Path) -> None:
    data = _labeled(["neutrophil"] * 120 + ["lymphocyte"] * 65 + ["monocyte"] * 12 + ["eosinophil"] * 3)
    options = ReportOptions(wbc=1.0)
    says = "neutrophil low (0.60 x 10^9/L). lymphocyte low (0.33 x 10^9/L)."
    conclusion = _report_of(export(data, "fhir-r4", tmp_path, options=options)[0])["conclusion"]
    assert conclusion.startswith(says), "and nothing of the percents, which are within their ranges"
    assert says in write_reports(data, tmp_path, options=options)[-1].read_text("utf-8")
    assert "10^9/L" not in _report_of(export(data, "fhir-r4", tmp_path, overwrite=True)[0])["conclusion"]


@pytest.mark.parametrize(
    ("nrbc", "says"), [(20, "; of 6.00 x 10^9/L, corrected for 20.0 NRBC per 100 WBC from 7.20."), (4, ".")]
)
def test_absolute_counts_say_of_which_white_cell_count_they_are(tmp_path: Path, nrbc: int, says: str) -> None:
    data = _labeled(["neutrophil"] * 60 + ["lymphocyte"] * 40 + ["erythroblast"] * nrbc, "pbc8")
    bundle = json.loads(export(data, "fhir-r4", tmp_path, options=ReportOptions(wbc=7.2))[0].read_text("utf-8"))
    (note,) = _observations(bundle)["751-8"]["note"]
    interval, _, rest = note["text"].partition(" x 10^9/L")
    assert interval.startswith("95 % interval ")
    assert rest == says


def test_a_source_that_is_not_named_is_left_out(tmp_path: Path) -> None:
    base = {"class": "neutrophil", "unit": "%", "low": 1, "high": 2, "age_min": 0, "age_max": None}
    for source in ({}, {"source": None}, {"source": " "}, {"source": "own"}):
        (tmp_path / "mine.json").write_text(json.dumps({"sources": {"own": ""}, "ranges": [base | source]}))
        options = ReportOptions(ranges=load_ranges(tmp_path / "mine.json"))
        (file,) = export(_labeled(["neutrophil"]), "fhir-r4", tmp_path, options=options, overwrite=True)
        (limits,) = _observations(json.loads(file.read_text("utf-8")))["770-8"]["referenceRange"]
        assert set(limits) == {"low", "high"}


def test_images_that_differ_by_suffix_or_case_alone_have_files_of_their_own(tmp_path: Path) -> None:
    run = make_run({"": 1})
    names = ["a.png", "a.tif", "A.TIF", "a.tif.jpg", "x/a.png"]
    cells = pd.concat([run.cells.iloc[[0]].assign(image=name) for name in names], ignore_index=True)
    images = pd.DataFrame({"image": names, "status": "ok", "width": 300, "height": 240})
    data = ReportInput(cells, images, run.scheme, run.run)
    for form in ("voc", "geojson"):
        files = export(data, form, tmp_path / form)
        assert len({path.name.casefold() for path in files}) == len(names) == len(list((tmp_path / form).iterdir()))
    told = {path.name: read_voc(path).filename for path in export(data, "voc", tmp_path / "voc", overwrite=True)}
    assert sorted(told.values()) == sorted(name.rpartition("/")[2] for name in names)
    assert told["a.xml"] == "a.png", "who is alone with a name keeps it"
    assert told["a.tif.xml"] == "a.tif"


def test_samples_that_differ_by_case_alone_have_files_of_their_own(tmp_path: Path) -> None:
    files = export(make_run({"PAT": 1, "pat": 1}), "fhir-r4", tmp_path)
    assert len({path.name.casefold() for path in files}) == 2
    assert files[0].name == "PAT.fhir.json"


@pytest.mark.parametrize("letter", ["x", "\N{CJK UNIFIED IDEOGRAPH-674E}", "\N{CJK UNIFIED IDEOGRAPH-20000}"])
def test_a_long_name_of_a_sample_is_cut_to_what_a_file_name_can_hold(tmp_path: Path, letter: str) -> None:
    run = make_run({letter * 61: 1, letter * 62: 1})
    for made in (export(run, "fhir-r4", tmp_path), write_reports(run, tmp_path)[:2]):
        assert len({path.name for path in made}) == 2
        assert all(len(path.name.encode()) <= 143 for path in made)
        assert all(path.name.count(letter) >= 30 for path in made)


def test_a_counted_field_without_a_cell_is_kept_as_one(tmp_path: Path) -> None:
    run = make_run({"": 3})
    names = run.images["image"]
    images = run.images.assign(width=300, height=240, status=["ok", "ok", "damaged"])
    data = ReportInput(run.cells[run.cells["image"] == names[0]], images, run.scheme, run.run)
    files = export(data, "voc", tmp_path / "Annotations")
    assert [path.stem for path in files] == ["field_01", "field_02"], "none of what could not be read"
    assert len(read_voc(files[1]).boxes) == 0
    from PIL import Image

    for name in names:
        Image.new("RGB", (300, 240)).save(tmp_path / name)
    fields = {field.image.name: len(field.boxes) for field in load_dataset(tmp_path).fields}
    assert fields == {names[0]: len(data.cells), names[1]: 0}


def test_coco_boxes_are_left_top_width_height(tmp_path: Path, run: ReportInput) -> None:
    data = json.loads(export(run, "coco", tmp_path)[0].read_text("utf-8"))
    assert len(data["annotations"]) == len(run.cells)
    names = {entry["id"]: entry["name"] for entry in data["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in data["images"]}
    for entry, row in zip(data["annotations"], run.cells.to_dict("records"), strict=True):
        assert entry["bbox"] == [row["x_min"], row["y_min"], row["x_max"] - row["x_min"], row["y_max"] - row["y_min"]]
        assert names[entry["category_id"]] == row["class"]
        assert files[entry["image_id"]] == row["image"]


def test_voc_files_hold_the_boxes_unchanged(tmp_path: Path, run: ReportInput) -> None:
    files = export(run, "voc", tmp_path)
    assert len(files) == 3
    found = [box.tolist() for path in files for box in read_voc(path).boxes.xyxy]
    assert sorted(found) == sorted(run.cells[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist())


def test_geojson_is_closed_rings_with_class_and_color(tmp_path: Path, run: ReportInput) -> None:
    files = export(run, "geojson", tmp_path)
    feature = json.loads(files[0].read_text("utf-8"))["features"][0]
    ring = feature["geometry"]["coordinates"][0]
    row = run.cells.iloc[0]
    assert ring[0] == ring[-1] == [row["x_min"], row["y_min"]]
    assert ring[2] == [row["x_max"], row["y_max"]]
    assert feature["properties"]["classification"]["name"] == row["class"]
    assert feature["properties"]["objectType"] == "detection"


def test_parquet_keeps_the_tables(tmp_path: Path, run: ReportInput) -> None:
    files = {path.stem: pd.read_parquet(path) for path in export(run, "parquet", tmp_path)}
    assert set(files) == {"cells", "images", "differential"}
    pd.testing.assert_frame_equal(files["cells"], run.cells, check_dtype=False)


def test_csv_holds_all_three_tables_as_they_were_reviewed(tmp_path: Path, run: ReportInput) -> None:
    cells = run.cells.assign(**{"class": "basophil"})
    files = {p.stem: p for p in export(ReportInput(cells, run.images, run.scheme, run.run), "csv", tmp_path)}
    assert set(files) == {"cells", "images", "differential"}
    table = pd.read_csv(files["differential"]).set_index(["sample", "class"])
    assert table.loc[("b", "basophil"), "percent"] == 100


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_cells_images_and_differential_agree_after_corrections(tmp_path: Path, form: str) -> None:
    """``images`` held the machine's counts; those of an image that was not read stay empty, what else it says stays."""
    run = make_run({"a": 2, "b": 1})
    names = run.scheme.names
    lost = pd.DataFrame({"image": ["b/lost.png"], "status": ["b/lost.png: is damaged."]})
    images = recount_images(pd.concat([run.images, lost], ignore_index=True), run.cells, run.scheme)
    images = images.assign(n_platelets=pd.array([4, 2, 3, None], "Int64"))
    cells = run.cells.copy()
    cells.loc[cells.index[:2], "class"] = ["basophil", "not a WBC"]
    read = pd.read_csv if form == "csv" else pd.read_parquet
    data = ReportInput(cells, images, run.scheme, run.run)
    files = {path.stem: read(path) for path in export(data, form, tmp_path)}
    assert list(files["images"].columns) == list(images.columns)
    after = files["images"].set_index("image")
    assert after.loc["b/lost.png", ["n_wbc", *names, "unidentified"]].isna().all()
    assert after["n_platelets"].dropna().tolist() == [4, 2, 3]
    whole = files["differential"].query("sample == 'all'").set_index("class")["count"]
    for name in (*names, "unidentified"):
        counted = files["cells"].query("`class` == @name").groupby("image").size()
        per_image = after[name].dropna().astype(int)
        assert per_image.to_dict() == counted.reindex(per_image.index, fill_value=0).to_dict()
        assert per_image.sum() == whole[name]
    assert after["n_wbc"].sum() == len(cells) - 1, "what is no white cell is no longer one of its image"


def test_fhir_says_of_platelets_which_are_the_count_and_what_the_model_cannot_name(tmp_path: Path) -> None:
    run = make_run({"": 1})
    scheme = load_scheme("pbc8")
    cells = run.cells.assign(**{f"p_{n}": 0.0 for n in scheme.names})
    cells.loc[cells.index[0], "class"] = "platelet"
    data = ReportInput(cells, run.images.assign(n_platelets=17), scheme, run.run)
    entries = [e["resource"] for e in json.loads(export(data, "fhir-r4", tmp_path)[0].read_text("utf-8"))["entry"]]
    by_text = {e["code"]["text"]: e for e in entries if e["resourceType"] == "Observation"}
    found = by_text["platelets found (count, not part of the 100 %)"]
    box = by_text["platelet in a white-cell box (count, not part of the 100 %)"]
    assert (found["valueInteger"], box["valueInteger"]) == (17, 1)
    assert found["note"][0]["text"] == "17.0 per field"
    assert all("is no platelet count" in entry["note"][-1]["text"] for entry in (found, box))
    assert unnamed(scheme) in entries[0]["conclusion"]


def test_an_unknown_form_is_answered_with_the_known_ones(tmp_path: Path, run: ReportInput) -> None:
    with pytest.raises(UsageError, match="fhir-r4"):
        export(run, "pdf", tmp_path)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("fhir")])
def test_no_export_overwrites_a_file_unasked(tmp_path: Path, run: ReportInput, form: str) -> None:
    export(run, form, tmp_path)
    with pytest.raises(OutputError):
        export(run, form, tmp_path)
    export(run, form, tmp_path, overwrite=True)
