"""From classes to differentials: what makes up the hundred percent and what stands apart."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED, load_scheme
from napari_bloodcells.core.differential import (
    DIFFERENTIAL_COLUMNS,
    Differential,
    differential_frame,
    differentials,
    make_differential,
    sample_of,
    samples_in,
    slides_in,
)
from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.statistics.intervals import clopper_pearson, goodman

PBC8 = load_scheme("pbc8")
LABELS = (
    ["neutrophil"] * 120 + ["lymphocyte"] * 60 + ["monocyte"] * 10 + ["eosinophil"] * 10 + ["erythroblast"] * 20
    + ["platelet"] * 30 + [UNIDENTIFIED] * 7 + [NOT_A_WBC] * 3 + ["smudge cell"] * 4
)  # fmt: skip


def test_only_white_cells_make_up_the_hundred_percent() -> None:
    d = make_differential(LABELS, PBC8, fields=10)
    assert d.total == 200
    assert sum(s.percent for s in d.shares) == pytest.approx(100)
    assert sum(s.whole for s in d.shares) == 100
    assert (d.share("eosinophil").percent, round(d.share("eosinophil").low, 1)) == (5.0, 2.4)
    assert d.share("basophil").count == 0


@pytest.mark.parametrize(
    ("kind", "n"), [("unidentified", 7), ("not_wbc", 3), ("nrbc", 20), ("platelet", 30), ("other", 4)]
)
def test_what_is_no_classified_white_cell_stands_apart(kind: str, n: int) -> None:
    assert make_differential(LABELS, PBC8).count_of(kind) == n


def test_erythroblasts_are_given_per_100_white_cells_and_the_platelets_that_were_found_per_field() -> None:
    d = make_differential(LABELS, PBC8, fields=10, platelets=[12, None, 30])
    rates = {part.name: (part.rate, part.rate_unit) for part in d.apart}
    assert rates["erythroblast"] == (10.0, "per 100 WBC")
    assert rates["platelets found"] == (21.0, "per field"), "on a field on which none were counted there is no rate"
    assert d.count_of("found") == 42
    assert d.nrbc_per_100 == 10.0


def test_a_class_of_platelets_is_no_count_of_platelets() -> None:
    d = make_differential(LABELS, PBC8, fields=10, platelets=[12])
    box = next(part for part in d.apart if part.kind == "platelet")
    assert (box.count, box.rate_unit, box.shown) == (30, "white-cell boxes", "platelet in a white-cell box")
    assert math.isnan(box.rate)
    assert d.total == 200
    assert d.of_platelets.startswith("Platelets are those that the localizer finds;")
    assert make_differential(LABELS, PBC8).of_platelets.startswith("Platelets were not counted;")
    assert make_differential(["neutrophil"], load_scheme("wbc5"), platelets=[12]).of_platelets == ""


def test_the_platelets_of_the_differential_are_those_of_the_images() -> None:
    cells = pd.DataFrame({"image": ["a/1.jpg", "b/1.jpg"], "class": ["platelet", "neutrophil"]})
    images = pd.DataFrame({"image": ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], "status": ["ok"] * 3 + ["bad"]})
    images["n_platelets"] = pd.array([5, 8, None, None], "Int64")
    blocks = differentials(cells, PBC8, images)
    assert [block.count_of("found") for block in blocks] == [13, 0, 13]
    assert [any(part.kind == "found" for part in block.apart) for block in blocks] == [True, False, True]
    frame = differential_frame(blocks).set_index(["sample", "class"])
    assert frame.loc[("all", "platelets found"), ["count", "rate", "rate_unit"]].tolist() == [13, 6.5, "per field"]


def test_a_whole_slide_is_no_field_and_only_adds_to_the_platelets() -> None:
    cells = pd.DataFrame({"image": ["a/1.jpg", "b/s.svs"], "class": ["neutrophil", "neutrophil"]})
    images = pd.DataFrame({"image": ["a/1.jpg", "a/2.jpg", "a/s.svs", "b/s.svs", "b/t.svs", "b/u.svs"]})
    images = images.assign(status=["ok"] * 5 + ["bad"], n_platelets=pd.array([5, 8, 300, 174, None, None], "Int64"))
    slides = slides_in({"slides": dict.fromkeys(["a/s.svs", "b/s.svs", "b/t.svs", "b/u.svs"])})
    blocks = differentials(cells, PBC8, images, slides=slides)
    assert [block.where for block in blocks] == ["2 fields and 1 slide", "2 slides", "2 fields and 3 slides"]
    found = [next(part for part in block.apart if part.kind == "found") for block in blocks]
    assert [part.count for part in found] == [313, 174, 487]
    assert [part.shown_rate for part in found] == ["6.5 per field", "", "6.5 per field"]
    frame = differential_frame(blocks).set_index(["sample", "class"])
    assert math.isnan(frame.loc[("b", "platelets found"), "rate"])
    assert frame.loc[("b", "platelets found"), "rate_unit"] == ""


@pytest.mark.parametrize("bad", ["many", "-3", "2.5", "inf"])
def test_a_number_of_platelets_that_is_none_is_named(bad: str) -> None:
    cells = pd.DataFrame({"image": ["1.jpg"], "class": ["neutrophil"]})
    images = pd.DataFrame({"image": ["1.jpg", "2.jpg"], "status": "ok", "n_platelets": ["7", bad]})
    with pytest.raises(OutputError, match=rf"images.*n_platelets of 2\.jpg is '{bad}'"):
        differentials(cells, PBC8, images)
    (block,) = differentials(cells, PBC8, images.assign(n_platelets=["7", "5.0"]))
    assert block.count_of("found") == 12


def test_without_a_cell_there_is_no_percent_and_no_interval() -> None:
    d = make_differential([UNIDENTIFIED], PBC8)
    assert d.total == 0
    assert math.isnan(d.share("neutrophil").percent)
    frame = differential_frame([d])
    assert frame.loc[frame["class"] == "neutrophil", ["percent", "ci_low", "ci_high"]].isna().all(axis=None)
    assert frame["whole_percent"].isna().all()


def test_a_cell_without_a_label_is_unidentified() -> None:
    d = make_differential(["", None, UNIDENTIFIED, "neutrophil"], PBC8)  # type: ignore[list-item]
    assert (d.count_of("unidentified"), d.total) == (3, 1)
    assert "" not in {part.name for part in d.apart}
    cells = pd.DataFrame({"image": ["1.jpg"] * 3, "class": [None, math.nan, "neutrophil"]}, dtype=object)
    (block,) = differentials(cells, PBC8)
    assert (block.count_of("unidentified"), block.total) == (2, 1)
    assert {part.name for part in block.apart} == {part.name for part in d.apart}


def test_what_was_not_seen_is_counted_as_nothing() -> None:
    d = make_differential(["neutrophil"], PBC8)
    assert {part.count for part in d.apart} == {0}
    assert d.share("neutrophil").percent == 100
    assert d.share("monocyte").percent == 0
    assert Differential("a", (), (), 0).fields == 0


def test_the_intervals_are_those_of_one_class_or_of_all_together() -> None:
    counts = [share.count for share in make_differential(LABELS, PBC8).shares]
    limits = {"binomial": clopper_pearson(counts, 200), "multinomial": goodman(counts)}
    for kind, (low, high) in limits.items():
        shares = make_differential(LABELS, PBC8, intervals=kind).shares  # type: ignore[arg-type]
        assert [share.low for share in shares] == pytest.approx(list(100 * low))
        assert [share.high for share in shares] == pytest.approx(list(100 * high))
    assert make_differential(LABELS, PBC8).shares == make_differential(LABELS, PBC8, intervals="binomial").shares


def test_the_table_says_percents_and_rates_to_two_decimals_and_of_what() -> None:
    labels = ["neutrophil", "monocyte", "monocyte", "erythroblast", "platelet", "smudge cell"]
    frame = differential_frame([make_differential(labels, PBC8, fields=3)]).set_index("class")
    assert frame.loc["neutrophil", ["percent", "whole_percent"]].tolist() == [33.33, 33]
    assert frame.loc["erythroblast", "rate"] == 33.33
    units = {"erythroblast": "per 100 WBC", "platelet": "white-cell boxes"}
    assert frame["rate_unit"].to_dict() == {name: units.get(name, "") for name in frame.index}
    one = differential_frame([make_differential(["monocyte"], PBC8)]).set_index("class")
    assert one.loc["monocyte", "percent"] == 100, "a single cell is enough for a percent"


def test_each_folder_is_a_sample_and_the_whole_comes_last() -> None:
    cells = pd.DataFrame({"image": ["a/1.jpg", "b/1.jpg", "a/2.jpg"], "class": ["neutrophil", "monocyte", "monocyte"]})
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "c/2.jpg"]
    images = pd.DataFrame({"image": names, "status": ["ok"] * 4 + ["bad"]})
    blocks = differentials(cells, PBC8, images)
    assert [(b.sample, b.total, b.fields) for b in blocks] == [("a", 2, 2), ("b", 1, 1), ("c", 0, 1), ("all", 3, 4)]


def test_one_folder_without_folders_is_one_block() -> None:
    cells = pd.DataFrame({"image": ["1.jpg"], "class": ["neutrophil"]})
    assert [b.sample for b in differentials(cells, PBC8)] == ["all"]


def test_a_folder_called_all_is_not_taken_for_the_whole() -> None:
    assert sample_of("all/1.jpg") != "all"
    assert samples_in(["all/1.jpg"]) == ["all/"]


def test_the_table_has_its_columns_and_keeps_what_stands_apart() -> None:
    frame = differential_frame([make_differential(LABELS, PBC8, fields=10)])
    assert list(frame.columns) == list(DIFFERENTIAL_COLUMNS)
    assert frame.set_index("class").loc["erythroblast", "rate"] == 10.0
    assert frame["count"].sum() == len(LABELS)


def test_swapping_two_classes_changes_their_counts() -> None:
    swapped = ["monocyte" if name == "lymphocyte" else name for name in LABELS]
    assert make_differential(swapped, PBC8).share("monocyte").count == 70
