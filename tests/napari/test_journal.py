"""The journal: nothing is lost, whatever happens between two changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from napari_bloodcells.core.errors import AnnotationError
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.journal import Journal, journal_matches, journal_path, read_journal
from napari_bloodcells.napari.review import Review


def test_every_change_is_on_disk_at_once_and_undone_ones_are_undone(review: Review, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.bloodcells.jsonl"
    journal = Journal(path, review)
    journal.start()
    review.classify([1], "basophil")
    review.classify([2], "monocyte")
    review.undo()
    review.remove([3])
    (new,) = review.add(0, [(5.0, 5.0, 30.0, 30.0)])
    assert set(read_journal(path).cells) == set(review.cells)
    assert read_journal(path).cell(new).source == "drawn"
    assert read_journal(path).scheme == review.scheme


def test_deleted_cells_and_where_a_moved_box_was_found_are_kept(review: Review, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", review)
    review.remove([1])
    journal.start()
    review.remove([2])
    review.move({3: (0.0, 0.0, 9.0, 9.0)})
    review.undo()
    review.redo()
    back = read_journal(tmp_path / "j")
    assert [repr(c) for c in back.deleted] == [repr(c) for c in review.deleted]
    assert back.cell(3).origin == (130.0, 20.0, 170.0, 60.0)
    journal.stop()
    Journal(tmp_path / "j", Review(review.scheme, review.images)).start()
    assert len(read_journal(tmp_path / "j~1").deleted) == 2


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_a_crash_cut_short_costs_only_that_change(review: Review, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    Journal(path, review).start()
    journal = Journal(path, review)
    journal.start()
    review.classify([1], "basophil")
    before = review.cells
    review.classify([2], "monocyte")
    journal.stop()
    path.write_bytes(path.read_bytes()[:-cut])
    restored = read_journal(path)
    if cut > 1:
        assert set(restored.cells) == set(before)
    again = Journal(path, restored)
    again.resume()
    restored.classify([3], "eosinophil")
    assert set(read_journal(path).cells) == set(restored.cells)


def test_a_reviewed_journal_is_put_aside_by_a_new_run_and_an_unreviewed_one_is_not(
    review: Review, tmp_path: Path
) -> None:
    path = tmp_path / "j"
    first = Journal(path, review)
    first.start()
    first.start()
    assert os.listdir(tmp_path) == ["j"]
    review.classify([1], "basophil")
    first.stop()
    Journal(path, Review(review.scheme, review.images)).start()
    assert read_journal(tmp_path / "j~1").cell(1).name == "basophil"
    assert len(read_journal(path)) == 0


def test_a_journal_that_can_no_longer_be_written_says_so_and_the_review_goes_on(review: Review, tmp_path: Path) -> None:
    told: list[str] = []
    journal = Journal(tmp_path / "gone" / "j", review, told.append)
    journal.start()
    journal.path.unlink()
    journal.path.parent.rmdir()
    review.classify([1], "basophil")
    review.classify([2], "basophil")
    assert len(told) == 1
    assert "can no longer be kept" in told[0]
    assert review.cell(2).name == "basophil"


def test_the_journal_lies_beside_its_image_and_never_is_the_image(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    assert journal_path([image], b"") == tmp_path / "a.jpg.bloodcells.jsonl"
    other = tmp_path / "b.jpg"
    series = journal_path([image, other], b"")
    assert series.parent == tmp_path
    assert series != journal_path([image], b"")
    assert journal_path([], b"pixels") == journal_path([], b"pixels") != journal_path([], b"others")


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"format": "napari-bloodcells review 1"}'])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    assert not journal_matches(path, ("a.jpg",))
    with pytest.raises(AnnotationError, match=r"j\.jsonl"):
        read_journal(path)


def test_lines_that_hold_no_cell_are_left_out(review: Review, tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, review).start()
    with path.open("a") as file:
        file.write('{"cell": {"id": 7}}\n[1]\nnull\n{"edit": "x", "cells": [{"id": 1, "box": [0, 0, 1, NaN]}]}\n')
        far = Cell(8, 5, 1, (0, 0, 1, 1), "monocyte").to_json()
        file.write(f'{{"cell": {far}}}\n'.replace("'", '"').replace("None", "null").replace("False", "false"))
    assert set(read_journal(path).cells) == set(review.cells)


def test_a_file_name_that_is_no_utf8_is_kept_and_found_again(make_review: Any, tmp_path: Path) -> None:
    image = Path(os.fsdecode(os.fsencode(tmp_path) + b"/smear-\xe9.jpg"))
    image.write_bytes(b"x")
    review = make_review(["neutrophil"], (image.name,), info={"paths": [str(image)]})
    journal = Journal(journal_path([image, image], b""), review)
    journal.start()
    review.classify([1], "basophil")
    assert not list(tmp_path.glob("*.part"))
    assert journal_matches(journal.path, review.images)
    back = read_journal(journal.path)
    assert back.info["paths"] == [str(image)]
    assert back.cell(1).name == "basophil"
    assert journal_path([image], b"", tmp_path).parent == tmp_path


def test_a_journal_that_another_window_wrote_to_is_left_to_it_and_that_is_told(
    make_review: Any, tmp_path: Path
) -> None:
    told: list[str] = []
    first, second = make_review(["neutrophil", "monocyte"]), make_review(["neutrophil", "monocyte"])
    path = tmp_path / "a.jpg.bloodcells.jsonl"
    one, other = Journal(path, first, told.append), Journal(path, second, told.append)
    one.start()
    first.classify([1], "basophil")
    other.resume()
    second.classify([1], "lymphocyte")
    assert not told
    first.classify([2], "eosinophil")
    first.classify([2], "basophil")
    assert len(told) == 1
    assert "another window" in told[0]
    second.classify([2], "neutrophil")
    assert [cell.name for cell in read_journal(path).cells] == ["lymphocyte", "neutrophil"]
