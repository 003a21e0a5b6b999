"""Reference ranges by age, flags that respect the interval, absolute counts, and remarks."""

from __future__ import annotations

import json
import re
import warnings
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.differential import make_differential
from napari_bloodcells.core.errors import DataWarning, UsageError
from napari_bloodcells.core.statistics.reference import (
    ABSOLUTE,
    PERCENT,
    Patient,
    ReferenceRange,
    absolute,
    corrected_wbc,
    effective_wbc,
    flag,
    load_ranges,
)
from napari_bloodcells.core.statistics.remarks import count_remarks, remarks

ADULT = [("neutrophil", 40, 75), ("lymphocyte", 12, 44), ("monocyte", 4, 9), ("eosinophil", 0, 5.5), ("basophil", 0, 1)]


@pytest.mark.parametrize(("name", "low", "high"), ADULT)
def test_adult_percentages_are_those_of_the_data_file(name: str, low: float, high: float) -> None:
    found = load_ranges().find(name, PERCENT, Patient(age=44))
    assert found is not None
    assert (found.low, found.high) == (low, high)
    assert load_ranges().sources[found.source]


def test_without_an_age_an_adult_is_meant() -> None:
    ranges = load_ranges()
    assert ranges.find("neutrophil", PERCENT, Patient()) == ranges.find("neutrophil", PERCENT, Patient(age=18))


def test_a_child_has_the_ranges_of_its_age() -> None:
    ranges = load_ranges()
    found = [ranges.find("lymphocyte", PERCENT, Patient(age=age)) for age in (0.01, 1, 5, 11)]
    assert [(r.low, r.high) for r in found if r] == [(26, 56), (20, 64), (14, 50), (12, 44)]
    infant, child = (ranges.find("lymphocyte", ABSOLUTE, Patient(age=age)) for age in (0.3, 10))
    assert infant is not None
    assert child is not None
    assert (infant.low, child.low) == (4.0, 1.25)


def test_every_range_stands_in_the_quotation_of_its_source() -> None:
    table = json.loads((files("napari_bloodcells") / "reference" / "ranges.json").read_text("utf-8"))
    assert set(table["sources"]) == {entry["source"] for entry in table["ranges"]}
    henry = dict(re.findall(r"(Seg|Eos|Bas|Lym|Mon)\w* ([\d.]+-[\d.]*\d)", table["quoted"]["henry"]))
    for entry in table["ranges"]:
        low, high, source = entry["low"], entry["high"], entry["source"]
        if source == "henry":
            said = henry[entry["class"][:3].capitalize().replace("Neu", "Seg")]
            assert [float(v) for v in said.split("-")] == [low, high], entry
        else:
            said = f"{low:g}%-{high:g}%" if source == "davis" else f"{1000 * low:.0f}-{1000 * high:.0f}"
            assert said in table["quoted"][source], entry


def test_ages_leave_no_gap_and_no_overlap() -> None:
    cases = [(name, unit) for name in ("neutrophil", "lymphocyte") for unit in (ABSOLUTE, PERCENT)]
    for name, unit in [*cases, ("monocyte", PERCENT), ("eosinophil", PERCENT), ("basophil", PERCENT)]:
        for age in [0, 0.05, 0.083, 0.2, 0.25, 0.4, 0.5, 0.9, 1, 1.5, 2, 4.9, 5, 10.9, 11, 17.9, 18, 90]:
            of_class = [r for r in load_ranges().ranges if (r.name, r.unit) == (name, unit)]
            fitting = [r for r in of_class if r.fits(Patient(age=age))]
            assert len(fitting) == 1, (name, age)


@pytest.mark.parametrize(
    ("value", "low", "high", "code", "words"),
    [
        (8, 5.8, 10.7, "H", "high"),
        (8, 2.2, 19.2, "(H)", "borderline high"),
        (3, 1.1, 6.4, "", "within range"),
        (5.5, 5.5, 9, "", "within range"),
    ],
)
def test_a_flag_needs_the_whole_interval_outside(value: float, low: float, high: float, code: str, words: str) -> None:
    found = flag(value, low, high, load_ranges().find("eosinophil", PERCENT, Patient()))
    assert (found.code, found.words) == (code, words)


@pytest.mark.parametrize(("low", "high", "code"), [(5, 11.9, "L"), (5, 12, "(L)"), (5, 30, "(L)")])
def test_a_low_flag_mirrors_the_high_one(low: float, high: float, code: str) -> None:
    assert flag(8, low, high, load_ranges().find("lymphocyte", PERCENT, Patient())).code == code


@pytest.mark.parametrize(("k", "n", "wbc", "limit"), [(5, 110, 9.9, 0.45), (27, 102, 1.7, 0.45)])
def test_limits_are_inclusive_whatever_the_binary_of_a_product(k: int, n: int, wbc: float, limit: float) -> None:
    """Each is its limit exactly, and beside it as computed."""
    amount = absolute(make_differential(["basophil"] * k + ["neutrophil"] * (n - k), SCHEME).share("basophil"), wbc)
    assert amount.value != limit
    assert amount.value == pytest.approx(limit)
    for low, high in ((0, limit), (limit, 9)):
        limits = ReferenceRange("basophil", ABSOLUTE, low, high, 18, None, "any", "")
        assert flag(amount.value, amount.low, amount.high, limits).words == "within range"
    assert (
        flag(limit + 1e-6, 0.1, 0.6, ReferenceRange("basophil", ABSOLUTE, 0, limit, 18, None, "any", "")).code == "(H)"
    )


@pytest.mark.parametrize(("nrbc", "wbc"), [(0, 12.0), (4.99, 12.0), (5, 12 / 1.05), (20, 10.0), (float("nan"), 12.0)])
def test_erythroblasts_are_taken_off_from_5_per_100_up(nrbc: float, wbc: float) -> None:
    assert corrected_wbc(12.0, nrbc) == pytest.approx(wbc)


def test_absolute_counts_use_the_corrected_white_cells() -> None:
    d = make_differential(["neutrophil"] * 80 + ["lymphocyte"] * 20 + ["erythroblast"] * 25, load_scheme("pbc8"))
    wbc = effective_wbc(d, 10.0)
    assert wbc == pytest.approx(8.0)
    assert absolute(d.share("neutrophil"), wbc).value == pytest.approx(6.4)
    assert effective_wbc(d, None) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"low": "x"}, "must be finite numbers"),
        ({"high": float("inf")}, "must be finite numbers"),
        ({"low": float("nan")}, "must be finite numbers"),
        ({"age_max": float("inf")}, "must be finite numbers"),
        ({"high": 10**400}, "must be finite numbers"),
        ({"low": 9, "high": 1}, "must not be above"),
        ({"unit": "mg"}, "unit is"),
        ({"sex": "x"}, "sex is"),
        ({"class": None}, 'needs a "class"'),
    ],
)
def test_a_range_that_cannot_be_meant_is_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    entry = {"class": "neutrophil", "unit": "%", "low": 1, "high": 2, "age_min": 0, "age_max": None, "sex": "any"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"ranges": [entry, entry | change]}))
    with pytest.raises(UsageError, match=says) as caught:
        load_ranges(path)
    assert "mine.json: range 2" in str(caught.value)


def test_a_laboratory_brings_its_own_ranges_by_sex(tmp_path: Path) -> None:
    base = {"class": "neutrophil", "unit": "%", "low": 1, "high": 2, "age_min": 0, "age_max": None}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"ranges": [base | {"sex": "any"}, base | {"sex": "female", "high": 3}]}))
    ranges = load_ranges(path)
    assert ranges.find("neutrophil", "%", Patient(sex="female")).high == 3
    assert ranges.find("neutrophil", "%", Patient(sex="male")).high == 2


@pytest.mark.parametrize("sources", [["x"], "own", 1, None])
def test_sources_that_are_no_table_are_refused(tmp_path: Path, sources: object) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"sources": sources, "ranges": []}))
    with pytest.raises(UsageError, match=r'^mine\.json: "sources" names each source'):
        load_ranges(path)


@pytest.mark.parametrize(
    ("spelled", "asked"),
    [("Neutrophils", "neutrophil"), ("EOS", "eosinophil"), ("eosinophil", "Eos"), ("Linfocitos", "lymphocyte")],
)
def test_a_range_is_found_by_any_name_of_its_class(tmp_path: Path, spelled: str, asked: str) -> None:
    entry = {"class": spelled, "unit": "%", "low": 1, "high": 2, "age_min": 0, "age_max": None}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"ranges": [entry]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranges = load_ranges(path)
    found = ranges.find(asked, PERCENT, Patient())
    assert found is not None
    assert (found.low, found.high) == (1, 2)
    assert ranges.find("monocyte", PERCENT, Patient()) is None
    assert ranges.find("band neutrophil", PERCENT, Patient()) is None, "the range of a wider class is not its own"


def test_a_range_of_no_known_class_is_told_and_holds_for_a_class_of_that_name(tmp_path: Path) -> None:
    entry = {"class": "Neutrofills", "unit": "%", "low": 1, "high": 2, "age_min": 0, "age_max": None}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"ranges": [entry | {"class": "EOS"}, entry]}))
    with pytest.warns(DataWarning, match=r"^mine\.json: range 2 \(Neutrofills\): is no type of cell") as told:
        ranges = load_ranges(path)
    assert len(told) == 1
    assert ranges.find("neutrophil", PERCENT, Patient()) is None
    assert ranges.find("neutrofills", PERCENT, Patient()) is not None


SCHEME = load_scheme("wbc5")
IMAGES = pd.DataFrame({"image": ["a", "b"], "status": ["ok", "b: broken"], "problems": ["out of focus", ""]})


@pytest.mark.parametrize(
    ("labels", "cells", "images", "says"),
    [
        (["neutrophil"] * 99, None, None, "fewer than 100"),
        (["neutrophil"] * 199, None, None, "fewer than the 200"),
        (["neutrophil"] * 200 + ["unidentified"] * 20, None, None, "20 cells (9 %) are unidentified"),
        (["neutrophil"] * 200, pd.DataFrame({"distance": [2.0] * 30 + [0.1] * 170}), None, "unlike those"),
        (["neutrophil"] * 200, None, IMAGES, "1 of 2 images could not be read"),
        (["neutrophil"] * 200, None, IMAGES, "problems of quality: out of focus"),
    ],
)
def test_a_remark_says_why_a_number_is_worth_less(
    labels: list[str], cells: pd.DataFrame | None, images: pd.DataFrame | None, says: str
) -> None:
    assert says in " ".join(remarks(make_differential(labels, SCHEME), cells, images))


def test_a_sound_count_of_200_needs_no_remark() -> None:
    fine = pd.DataFrame({"image": ["a"], "status": ["ok"], "problems": [""]})
    assert remarks(make_differential(["neutrophil"] * 200, SCHEME), pd.DataFrame({"distance": [0.2] * 200}), fine) == ()


def test_problems_of_quality_come_worst_first_with_their_counts_and_scale_apart() -> None:
    unscaled = "fewer than three whole red cells: no scale measured, --um-per-pixel gives it"
    classical = "no red cells to measure the scale from, sizes are guessed from the image"
    texts = [f"dark; {unscaled}", "dark; out of focus", "not a stained smear", classical, "over-exposed", ""]
    images = pd.DataFrame({"image": list("abcdef"), "status": ["ok"] * 6, "problems": texts})
    said = remarks(make_differential(["neutrophil"] * 200, SCHEME), None, images)
    assert said == (
        "4 of 6 images have problems of quality: "
        "not a stained smear (1), out of focus (1), over-exposed (1), dark (2).",
        "2 of 6 images have no measured scale; --um-per-pixel gives it.",
    )


def test_an_image_of_another_scale_is_named() -> None:
    images = pd.DataFrame({"image": list("abcd"), "status": ["ok"] * 4, "um_per_pixel": [0.13, 0.449, 0.12, None]})
    said = remarks(make_differential(["neutrophil"] * 200, SCHEME), None, images)
    assert len(said) == 1
    assert said[0].startswith("1 image has a scale far from the median of 0.13 um per pixel: b (0.449);")


def test_one_cell_is_one_cell() -> None:
    assert remarks(make_differential(["neutrophil"], SCHEME))[0].startswith("Only 1 white cell was classified")


def test_the_remarks_on_the_classes_come_first_and_are_given_alone_too() -> None:
    block = make_differential(["neutrophil"] * 50 + ["unidentified"] * 20, SCHEME)
    said = remarks(block, pd.DataFrame({"distance": [2.0] * 70}), IMAGES)
    assert len(count_remarks(block)) == 2
    assert said[:2] == count_remarks(block)
    assert len(said) == 5
