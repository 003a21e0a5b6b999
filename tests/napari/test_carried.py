"""What a person decided is still so after a new count, with another model, and of boxes that were moved or deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.differential_table import differential_of
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import features_frame

FAR = (500.0, 500.0, 550.0, 550.0)


def counted_again(scheme: str, *boxes: tuple[float, float, float, float]) -> Review:
    """What a model of ``scheme`` finds on a second run: its first class everywhere."""
    names = load_scheme(scheme).names
    p = (1.0,) + (0.0,) * (len(names) - 1)
    cells = [Cell(k, 0, k, box, names[0], names[0], 1.0, p) for k, box in enumerate(boxes, 1)]
    return Review(load_scheme(scheme), ["a.jpg"], cells, "ada")


def test_a_deleted_box_stays_deleted_in_the_next_run_and_the_one_after_it(review: Review, make_review: Any) -> None:
    names = ["neutrophil", "lymphocyte", "monocyte"]
    review.remove([2])
    second, third = make_review(names), make_review(names)
    assert second.carry_over(review).deleted == 1
    assert [c.id for c in second.cells] == [1, 3]
    third.carry_over(second)
    assert [c.id for c in third.cells] == [1, 3]


def test_a_deletion_that_was_taken_back_deletes_nothing_in_the_next_run(review: Review, make_review: Any) -> None:
    review.remove([2])
    review.undo()
    again = make_review(["neutrophil", "lymphocyte", "monocyte"])
    again.carry_over(review)
    assert len(again) == 3


def test_a_deleted_box_does_not_take_the_neighbor_that_nobody_looked_at_with_it(make_review: Any) -> None:
    review = make_review(["neutrophil"])
    neighbor = replace(review.cell(1), id=2, number=2, box=(16.0, 20.0, 56.0, 60.0))
    both = Review(review.scheme, review.images, [review.cell(1), neighbor])
    both.remove([2])
    again = make_review(["neutrophil"])
    again.carry_over(both)
    assert [c.box for c in again.cells] == [review.cell(1).box]


@pytest.mark.parametrize("box", [(15.0, 25.0, 60.0, 70.0), (0.0, 0.0, 90.0, 90.0), FAR])
def test_a_box_that_was_moved_stays_where_it_was_put_and_counts_once(
    review: Review, make_review: Any, box: tuple[float, float, float, float]
) -> None:
    review.move({1: box})
    former = review
    for _ in range(3):
        again = make_review(["neutrophil", "lymphocyte", "monocyte"])
        again.carry_over(former)
        assert sorted(c.box for c in again.cells) == sorted([box, review.cell(2).box, review.cell(3).box])
        assert differential_of(again).total == 3
        former = again


def test_a_box_moved_onto_a_cell_that_the_next_run_finds_too_counts_once(review: Review) -> None:
    review.move({1: FAR})
    found = [*(c.box for c in review.cells[1:]), (10.0, 20.0, 50.0, 60.0), (501.0, 501.0, 551.0, 551.0)]
    again = counted_again("wbc5", *found)
    again.carry_over(review)
    assert sorted(c.box for c in again.cells) == sorted(c.box for c in review.cells)


@pytest.mark.parametrize(("scheme", "name"), [("wbc4", "unidentified"), ("pbc8", "basophil")])
@pytest.mark.parametrize("found", [True, False], ids=["found again", "not found"])
def test_a_class_that_the_new_model_lacks_is_unidentified_and_told(
    review: Review, scheme: str, name: str, found: bool
) -> None:
    review.classify([2], "basophil")
    again = counted_again(scheme, review.cell(2).box if found else FAR)
    told = str(again.carry_over(review))
    (cell,) = (c for c in again.cells if c.reviewed)
    assert cell.name == name
    assert ("1 unidentified" in told) == (name == "unidentified")
    assert list(features_frame(again, again.cells)["class"]) == [c.name for c in again.cells]
    assert not again.is_bystander(cell)


def test_what_was_meant_comes_back_with_a_model_that_has_the_class(review: Review, make_review: Any) -> None:
    review.classify([2], "basophil")
    four = counted_again("wbc4", *(c.box for c in review.cells))
    four.carry_over(review)
    five = make_review(["neutrophil", "lymphocyte", "monocyte"])
    five.carry_over(four)
    assert five.cell(2).name == "basophil"


def test_of_two_decisions_on_one_cell_the_later_one_holds(review: Review, make_review: Any) -> None:
    table = make_review(["neutrophil", "lymphocyte", "monocyte"])
    for one, time, name in ((review, "2026-01-02T00:00:00Z", "basophil"), (table, "2026-01-03T00:00:00Z", "monocyte")):
        one.now = lambda time=time: time
        one.classify([1], name)
    table.carry_over(review)
    assert table.cell(1).name == "monocyte"
    review.carry_over(table)
    assert review.cell(1).name == "monocyte"
