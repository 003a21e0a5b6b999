"""The review: classes, boxes, undo, and the walk through the unreviewed cells, without a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.differential_table import differential_of
from napari_bloodcells.napari.review import Review


def test_a_corrected_cell_keeps_the_machines_class_beside_the_reviewers(review: Review) -> None:
    review.classify([2], "monocyte")
    cell = review.cell(2)
    assert (cell.name, cell.machine) == ("monocyte", "lymphocyte")
    assert (cell.reviewed, cell.reviewer, cell.time) == (True, "ada", "2026-01-02T03:04:05Z")
    assert review.corrected() == [cell]


def test_undo_and_redo_bring_every_field_of_every_cell_back(review: Review) -> None:
    before = review.cells
    review.classify([1, 3], "basophil")
    review.move({2: (0.0, 0.0, 9.0, 9.0)})
    review.remove([1])
    new = review.add(0, [(200.0, 10.0, 240.0, 50.0)])
    after = review.cells
    for _ in range(4):
        review.undo()
    assert sorted(review.cells, key=lambda c: c.id) == list(before)
    review.undo()  # nothing is left to take back
    for _ in range(4):
        review.redo()
    assert set(review.cells) == set(after)
    assert new[0] in review


def test_a_new_change_forgets_what_was_taken_back(review: Review) -> None:
    review.classify([1], "basophil")
    review.undo()
    review.classify([2], "monocyte")
    review.redo()
    assert (review.cell(1).name, review.cell(2).name) == ("neutrophil", "monocyte")


def test_a_class_that_the_scheme_does_not_have_is_refused(review: Review) -> None:
    with pytest.raises(ValueError, match="'blast' is no class here"):
        review.classify([1], "blast")


def test_one_undo_takes_back_a_drawn_cell_with_the_class_that_the_model_gave_it(review: Review) -> None:
    (new,) = review.add(0, [(200.0, 10.0, 240.0, 50.0)])
    review.settle([replace(review.cell(new), name="basophil", machine="basophil", confidence=0.9)])
    assert review.cell(new).name == "basophil"
    review.undo()
    assert new not in review
    review.redo()
    assert review.cell(new).name == "basophil"


def test_what_a_person_did_to_a_drawn_cell_while_the_model_named_it_stays(review: Review) -> None:
    moved, named, unsure = review.add(0, [(200.0 + 60 * k, 10.0, 240.0 + 60 * k, 50.0) for k in range(3)])
    said = [
        replace(review.cell(i), name="basophil", machine="basophil", confidence=0.9) for i in (moved, named, unsure)
    ]
    review.move({moved: (205.0, 10.0, 245.0, 50.0)})
    review.classify([named], "monocyte")
    review.classify([unsure], UNIDENTIFIED)
    review.settle(said)
    cells = [review.cell(i) for i in (moved, named, unsure)]
    assert [c.name for c in cells] == ["basophil", "monocyte", UNIDENTIFIED]
    assert {c.machine for c in cells} == {"basophil"}
    assert cells[0].box == (205.0, 10.0, 245.0, 50.0)
    for _ in range(3):
        review.undo()
    assert review.cell(moved).box == (200.0, 10.0, 240.0, 50.0)
    assert [review.cell(i).name for i in (moved, named)] == ["basophil", "basophil"]


def test_the_walk_goes_round_the_unreviewed_cells_and_ends_when_all_are_reviewed(review: Review) -> None:
    review.select([1])
    assert review.next_unreviewed() == 2
    assert review.next_unreviewed(-1) == 3
    review.confirm([2, 3])
    assert review.next_unreviewed() == 1
    assert review.next_unreviewed(1, order=[3, 2]) is None
    review.confirm([1])
    assert review.next_unreviewed() is None


def test_cells_that_are_no_wbc_or_unidentified_do_not_count_to_the_hundred_percent(review: Review) -> None:
    review.classify([1], NOT_A_WBC)
    review.classify([2], UNIDENTIFIED)
    block = differential_of(review)
    assert (block.total, block.share("monocyte").count) == (1, 1)
    assert (block.count_of("unidentified"), block.count_of("not_wbc")) == (1, 1)


def test_red_cells_of_a_voc_file_are_neither_walked_through_nor_counted(review: Review) -> None:
    with_rbc = Review(review.scheme, review.images, [*review.cells, Cell(9, 0, 4, (0, 0, 9, 9), "RBC")])
    assert [c.id for c in with_rbc.reviewable()] == [1, 2, 3]
    assert differential_of(with_rbc).total == 3


def test_a_new_count_keeps_what_a_person_said_of_the_same_cells(review: Review, make_review: Any) -> None:
    review.classify([2], "basophil")
    (drawn,) = review.add(0, [(300.0, 100.0, 340.0, 140.0)], "eosinophil")
    shifted = [replace(c, box=tuple(v + 3 for v in c.box)) for c in make_review(["monocyte"] * 3).cells]
    again = Review(review.scheme, review.images, shifted)
    assert again.carry_over(review).cells == 2
    assert [c.name for c in again.cells] == ["monocyte", "basophil", "monocyte", "eosinophil"]
    assert again.cell(2).machine == "monocyte"
    assert again.cells[-1].box == review.cell(drawn).box
    assert again.cells[-1].number == 4
