"""The cells table: written and read back without loss, harmless in a spreadsheet, corrections put in their place."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import (
    apply_corrections,
    cell_columns,
    cells_csv,
    neutralize,
    read_cells,
    read_corrections,
    restore,
    table_name,
    write_cells,
)
from napari_bloodcells.core.errors import AnnotationError, OutputError

HEAD = "image,cell,x_min,y_min,x_max,y_max,class\n"


def _cells() -> pd.DataFrame:
    rows = [
        ("a/1.jpg", 1, -1.0, 0.0, 60.25, 70.0, "neutrophil", 0.91234, 0.91234, 0.08766, "xml", 0.5),
        ("a/1.jpg", 2, 100.0, 10.0, 170.0, 80.0, "unidentified", 0.5, 0.5, 0.5, "found", 3.0),
        ("=cmd|' /C calc'!A0.jpg", 1, 5.0, 5.0, 50.0, 50.0, "monocyte", 1.0, 0.0, 1.0, "found", 0.1),
    ]
    return pd.DataFrame(rows, columns=cell_columns(["neutrophil", "monocyte"]))


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_cells(_cells(), tmp_path / "cells.csv")
    pd.testing.assert_frame_equal(read_cells(path), _cells().round(4), check_dtype=False)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "'="])
def test_a_text_that_a_spreadsheet_would_run_is_neutralized(start: str) -> None:
    assert neutralize(start + "1+1").startswith("'")
    assert restore(neutralize(start + "1+1")) == start + "1+1"


@given(st.text())
def test_every_text_survives_neutralizing(text: str) -> None:
    assert restore(neutralize(text)) == text


def test_no_field_of_the_file_begins_as_a_formula_but_numbers() -> None:
    for row in csv.DictReader(io.StringIO(cells_csv(_cells()))):
        for name, value in row.items():
            assert not value.startswith(("=", "+", "@")), name
            assert not value.startswith("-") or name == "x_min"


def test_shards_put_together_are_the_bytes_of_the_whole() -> None:
    cells = _cells()
    assert cells_csv(cells[:1]) + cells_csv(cells[1:], header=False) == cells_csv(cells)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = write_cells(_cells(), tmp_path / "cells.csv")
    with pytest.raises(OutputError, match="already there"):
        write_cells(_cells(), path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n", "no column image"),
        (f"{HEAD}a,1,0,0,3,4\n", "row 2 has 6 fields, not 7"),
        (f"{HEAD}\na,1,0,0,3,4,neutrophil,\n", "row 3 has 8 fields, not 7"),
        (f"{HEAD}a,1.5,0,0,3,4,neutrophil\n", "row 2 has cell '1.5', which is no whole number"),
        (f"{HEAD}a,1e300,0,0,3,4,neutrophil\n", "no whole number"),
        (f"{HEAD}a,1,0,0,3,1_0,neutrophil\n", "y_max '1_0'"),
        (f'{HEAD}a,1,0,0,3,4,"neutrophil\n', "no table"),
        (f"{HEAD}{'a' * 200_000},1,0,0,3,4,neutrophil\n", "no table"),
        ("image,cell\na,1\n", "no column x_min"),
        (f"{HEAD}a,1,0,0,x,4,neutrophil\n", "row 2 has x_max 'x'"),
        (f"{HEAD}a,1,0,0,nan,4,neutrophil\n", "no number"),
        (f"{HEAD}a,one,0,0,3,4,neutrophil\n", "row 2 has cell 'one'"),
    ],
)
def test_a_file_that_is_no_table_of_cells_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=says) as caught:
        read_cells(path)
    assert "mine.csv" in str(caught.value)


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_table_that_is_separated_otherwise_is_told_how_to_save_it(
    tmp_path: Path, mark: str, word: str, quote: str
) -> None:
    names = [f"{quote}{name}{quote}" for name in HEAD.strip().split(",")]
    (tmp_path / "mine.csv").write_text(f"{mark.join(names)}\na{mark}1{mark}0\n")
    with pytest.raises(AnnotationError) as caught:
        read_cells(tmp_path / "mine.csv")
    assert str(caught.value) == f"mine.csv: is separated by {word}; save it with commas."


def test_bytes_in_another_encoding_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(f"{HEAD}ä,1,0,0,3,4,neutrophil\n".encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"mine\.csv.*UTF-8"):
        read_cells(tmp_path / "mine.csv")


def test_reviewed_is_written_as_0_or_1(tmp_path: Path) -> None:
    path = write_cells(_cells().assign(reviewed=[True, False, True]), tmp_path / "cells.csv")
    assert [row["reviewed"] for row in csv.DictReader(io.StringIO(path.read_text()))] == ["1", "0", "1"]
    assert read_cells(path)["reviewed"].tolist() == [True, False, True]


def test_a_table_as_a_spreadsheet_saves_it_is_read(tmp_path: Path) -> None:
    head = "\ufeff image ,cell,x_min,y_min,x_max,y_max,class,p_neutrophil,reviewed"
    text = f"{head}\r\n\r\na,1,0,0,3,4.5,neutrophil,,TRUE\r\n"
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8", newline="")
    row = read_cells(tmp_path / "mine.csv").iloc[0]
    assert (row["image"], row["cell"], row["y_max"], bool(row["reviewed"])) == ("a", 1, 4.5, True)
    assert np.isnan(row["p_neutrophil"])


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cells.csv")
    with pytest.raises(AnnotationError, match="pipe"):  # and does not wait for ever
        read_cells(tmp_path / "cells.csv")


def test_a_name_that_looks_like_a_missing_value_stays_a_name(tmp_path: Path) -> None:
    cells = _cells().assign(image=["NA", "null", "None"])
    assert read_cells(write_cells(cells, tmp_path / "c.csv"))["image"].tolist() == ["NA", "null", "None"]


def test_a_correction_keeps_the_class_of_the_machine() -> None:
    corrections = _cells().assign(reviewed=[1, 0, 0], reviewer="A. B.", time="2026-11-21T10:00:00Z")
    corrections.loc[0, "class"] = "monocyte"
    fixed = apply_corrections(_cells(), corrections)
    assert fixed["class"].tolist() == ["monocyte", "unidentified", "monocyte"]
    assert fixed["machine_class"].tolist() == ["neutrophil", "unidentified", "monocyte"]
    assert fixed["reviewed"].tolist() == [True, False, False]
    assert fixed["reviewer"].tolist() == ["A. B.", "", ""]


def _export(who: str, classes: dict[int, str], **changes: dict[int, float]) -> pd.DataFrame:
    """The whole table as the page and the plugin export it: ``who`` gave ``classes`` and moved sides of boxes."""
    table = _cells().assign(machine_class=_cells()["class"], reviewed=False, reviewer="", time="")
    for row in {*classes, *(row for moved in changes.values() for row in moved)}:
        table.loc[row, ["class", "reviewed", "reviewer"]] = [classes.get(row, table["class"][row]), True, who]
    for side, moved in changes.items():
        for row, value in moved.items():
            table.loc[row, side] = value
    return table


def test_the_corrections_of_a_second_reviewer_leave_those_of_the_first() -> None:
    anna, bert = _export("Anna", {0: "monocyte"}), _export("Bert", {2: "neutrophil"})
    fixed = apply_corrections(apply_corrections(_cells(), anna), bert)
    assert fixed["class"].tolist() == ["monocyte", "unidentified", "neutrophil"]
    assert fixed["machine_class"].tolist() == ["neutrophil", "unidentified", "monocyte"]
    assert fixed["reviewed"].tolist() == [True, False, True]
    assert fixed["reviewer"].tolist() == ["Anna", "", "Bert"]
    swapped = apply_corrections(apply_corrections(_cells(), bert), anna)
    pd.testing.assert_frame_equal(swapped, fixed)
    said = apply_corrections(fixed, _export("Carl", {0: "neutrophil"}))  # he looked, and says what the machine said
    assert said[["class", "reviewer"]].iloc[0].tolist() == ["neutrophil", "Carl"]


def test_a_class_that_was_edited_by_hand_goes_over_the_one_of_a_former_reviewer() -> None:
    hand = _export("", {}).assign(**{"class": ["unidentified", "unidentified", "monocyte"]})
    for edited in (hand, hand.drop(columns="machine_class")):
        fixed = apply_corrections(apply_corrections(_cells(), _export("Anna", {0: "monocyte", 1: "monocyte"})), edited)
        assert fixed["class"].tolist() == ["unidentified", "monocyte", "monocyte"]
        assert fixed["reviewed"].tolist() == [True, True, False]


def test_a_box_that_the_first_reviewer_moved_stays_there_for_a_second_who_did_not() -> None:
    anna = _export("Anna", {0: "monocyte"}, x_max={0: 75.0})
    seen, hand = _export("Bert", {0: "neutrophil"}), _export("", {}).assign(**{"class": "unidentified"})
    for bert, said in ((_export("Bert", {}), "monocyte"), (seen, "neutrophil"), (hand, "unidentified")):
        fixed = apply_corrections(apply_corrections(_cells(), anna), bert, counted=_cells())
        assert fixed[["class", "x_max"]].iloc[0].tolist() == [said, 75]
    again = apply_corrections(apply_corrections(_cells(), anna), _export("Bert", {}, x_max={0: 45.0}), counted=_cells())
    assert again["x_max"][0] == 45  # each is near the counted one; to each other they are not
    for bert, said in ((_export("Bert", {}), "monocyte"), (hand, "unidentified")):  # also where the count is not given
        fixed = apply_corrections(apply_corrections(_cells(), anna), bert)
        assert fixed[["class", "x_max"]].iloc[0].tolist() == [said, 75]


def test_a_row_that_nobody_looked_at_still_tells_another_run() -> None:
    other = _export("Bert", {2: "neutrophil"})
    other.loc[0, "x_max"] += 5
    for first in ({0: "monocyte"}, {}):
        with pytest.raises(AnnotationError, match="cell 1 of the corrections"):
            apply_corrections(apply_corrections(_cells(), _export("Anna", first)), other, counted=_cells())


def test_the_classes_of_corrections_are_those_of_the_scheme_by_any_of_their_names(tmp_path: Path) -> None:
    given = ["Neutrofil", " LYMPHOCYTES", "Not a wbc", "", "Unidentified", "smudge cell"]
    rows = "".join(f"a,{k},0,0,3,4,{name}\n\n" for k, name in enumerate(given, 1))
    (tmp_path / "mine.csv").write_text(HEAD + rows)
    read = read_corrections(tmp_path / "mine.csv", load_scheme("wbc5"), {"smudge cell"})["class"].tolist()
    assert read == ["neutrophil", "lymphocyte", "not a WBC", "unidentified", "unidentified", "smudge cell"]


@pytest.mark.parametrize("name", ["neutrophill", "blast", "smudge cell", "="])
def test_a_correction_to_no_class_is_refused_with_its_row(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.csv").write_text(f"{HEAD}\na,1,0,0,3,4,monocyte\na,2,0,0,3,4,{name}\n")
    with pytest.raises(AnnotationError) as caught:
        read_corrections(tmp_path / "mine.csv", load_scheme("wbc5"))
    assert str(caught.value) == (
        f"mine.csv: row 4 has class '{name}', which this count does not have; there are neutrophil, eosinophil, "
        "basophil, lymphocyte, monocyte, unidentified, not a WBC."
    )


def test_corrections_of_another_run_are_refused() -> None:
    moved = _cells()
    moved.loc[0, "x_max"] += 5
    with pytest.raises(AnnotationError, match="cell 1 of the corrections"):
        apply_corrections(_cells(), moved)


def _row(**changes: object) -> pd.DataFrame:
    """The corrections of one cell, as the plugin writes them."""
    row = _cells().iloc[:1].assign(machine_class="neutrophil", reviewed=True, reviewer="ada", time="2026-11-30")
    return row.assign(**changes)


def test_a_cell_that_a_reviewer_drew_joins_those_of_its_image() -> None:
    box = {"x_min": 200.0, "y_min": 20.0, "x_max": 260.0, "y_max": 80.0}
    drawn = _row(cell=3, box_source="drawn", machine_class="monocyte", **box)
    fixed = apply_corrections(_cells(), drawn)
    assert fixed[["image", "cell"]].to_numpy().tolist()[:3] == [["a/1.jpg", 1], ["a/1.jpg", 2], ["a/1.jpg", 3]]
    assert fixed.dtypes[_cells().columns].tolist() == _cells().dtypes.tolist()
    new = fixed.iloc[2]
    assert (new["class"], new["machine_class"], new["box_source"], new["x_max"]) == (
        "neutrophil",
        "monocyte",
        "drawn",
        260,
    )
    assert fixed["reviewed"].tolist() == [False, False, True, False]
    again = apply_corrections(fixed, drawn.assign(**{"class": "unidentified"}))
    assert again["class"].tolist()[2] == "unidentified"
    assert len(again) == 4


def test_a_drawn_cell_whose_number_is_taken_gets_the_next_one_and_one_of_no_image_is_refused() -> None:
    fixed = apply_corrections(_cells(), _row(x_min=300.0, x_max=360.0, box_source="drawn"))
    assert fixed["cell"].tolist() == [1, 2, 3, 1]
    alone = _row(image="empty.jpg", cell=1, box_source="drawn")
    assert len(apply_corrections(_cells(), alone, ["a/1.jpg", "empty.jpg"])) == 4
    with pytest.raises(AnnotationError, match=r"empty\.jpg: cell 1 of the corrections"):
        apply_corrections(_cells(), alone)


def test_a_box_that_a_reviewer_moved_is_where_it_was_moved_to_and_far_away_it_is_another() -> None:
    fixed = apply_corrections(_cells(), _row(x_max=70.0))
    assert fixed["x_max"].tolist()[0] == 70
    with pytest.raises(AnnotationError, match="cell 1 of the corrections"):
        apply_corrections(_cells(), _row(x_min=300.0, x_max=360.0))


def test_bytes_that_are_no_text_become_escapes() -> None:
    assert table_name("a\udce9.jpg").encode("utf-8") == b"a\\udce9.jpg"
