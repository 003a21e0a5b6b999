"""Journals are found for the photographs that they hold, and for no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.napari.fields import Fields
from napari_bloodcells.napari.journal import SUFFIX, Journal
from napari_bloodcells.napari.kept import kept_review, know
from napari_bloodcells.napari.review import Review


@pytest.fixture
def fields(tmp_path: Path) -> Fields:
    """Two photographs (files of any bytes: nothing here decodes them)."""
    paths = tuple(tmp_path / f"{name}.png" for name in "ab")
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    image = Image(np.zeros((2, 20, 30, 3), np.uint8), rgb=True)
    return Fields(image, ("a.png", "b.png"), paths, ((20, 30), (20, 30)), series=True)


def keep(review: Review, path: Path, fields: Fields) -> None:
    know(review, fields)
    review.info["um_per_pixel"] = [0.1 * (k + 1) for k in range(len(fields))]
    journal = Journal(path, review)
    journal.start()
    review.confirm([cell.id for cell in review.cells])
    journal.stop()


def one_of(fields: Fields, k: int) -> Fields:
    return replace(fields, names=fields.names[k : k + 1], paths=fields.paths[k : k + 1], sizes=fields.sizes[k : k + 1])


def test_the_journal_of_just_these_photographs_can_be_gone_on_with(fields: Fields, make_review: Any) -> None:
    path = fields.paths[0].with_name(f"series{SUFFIX}")
    review = make_review(["neutrophil"] * 4, fields.names)
    keep(review, path, fields)
    kept = kept_review(path, fields)
    assert kept is not None
    assert (kept.whole, kept.images) == (True, 2)
    assert set(kept.review.cells) == set(review.cells)


def test_one_photograph_gets_its_part_of_the_review_of_a_series(fields: Fields, make_review: Any) -> None:
    keep(make_review(["neutrophil"] * 4, fields.names), fields.paths[0].with_name(f"series{SUFFIX}"), fields)
    kept = kept_review(fields.paths[1].with_name(f"b.png{SUFFIX}"), one_of(fields, 1))
    assert kept is not None
    assert (kept.whole, kept.images) == (False, 1)
    assert [(c.image, c.number, c.reviewed) for c in kept.review.cells] == [(0, 1, True), (0, 2, True)]
    assert kept.review.info["um_per_pixel"] == [0.2]


def test_reviews_of_photographs_under_two_schemes_are_joined_under_the_last_one(
    fields: Fields, make_review: Any
) -> None:
    for k, scheme in enumerate(("pbc8", "wbc5")):
        review = make_review(["neutrophil"], fields.names[k : k + 1])
        review.use_scheme(load_scheme(scheme))
        keep(review, fields.paths[k].with_name(f"{fields.names[k]}{SUFFIX}"), one_of(fields, k))
    kept = kept_review(fields.paths[0].with_name(f"series{SUFFIX}"), fields)
    assert kept is not None
    assert kept.review.scheme == load_scheme("wbc5")
    assert [c.name for c in kept.review.cells] == ["neutrophil", "neutrophil"]


def test_a_photograph_with_other_content_or_size_is_another_one(fields: Fields, make_review: Any) -> None:
    path = fields.paths[0].with_name(f"series{SUFFIX}")
    keep(make_review(["neutrophil"] * 2, fields.names), path, fields)
    fields.paths[0].write_bytes(b"another photograph")
    kept = kept_review(path, fields)
    assert kept is not None
    assert [c.image for c in kept.review.cells] == [1]
    head, *cells = path.read_text().splitlines()
    head = json.loads(head)
    del head["info"]["marks"]  # as journals were before they had marks
    path.write_text("\n".join([json.dumps(head), *cells]))
    assert kept_review(path, fields).images == 2
    assert kept_review(path, replace(fields, sizes=((20, 31), (20, 30)))).images == 1
