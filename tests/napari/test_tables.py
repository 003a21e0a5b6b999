"""Tables, geometry and keys: what goes out comes back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.napari.geometry import box_of, rectangle
from napari_bloodcells.napari.preferences import Counting, Reference, Reviewing, class_keys
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import features_frame, review_frame, review_of_frame


def test_a_review_goes_into_a_table_and_comes_back_the_same(make_review: Any) -> None:
    review = make_review(["neutrophil", "lymphocyte", "monocyte", "basophil"], ("b.jpg", "a.jpg"))
    review.classify([2], "eosinophil")
    review.add(1, [(300.25, 1.5, 320.0, 30.0)])
    back = review_of_frame(review_frame(review), review.images)
    assert [repr(c) for c in back.cells] == [repr(c) for c in review.cells]
    assert back.scheme == review.scheme


def test_the_features_offer_only_real_classes(review: Review) -> None:
    frame = features_frame(review, review.cells)
    assert list(frame["class"].cat.categories) == [*load_scheme("wbc5").names, "unidentified", "not a WBC"]


def test_a_class_under_another_name_is_brought_to_the_schemes(make_review: Any) -> None:
    frame = review_frame(make_review(["neutrophil"])).assign(**{"class": "Segmented Neutrophils"})
    assert review_of_frame(frame).cells[0].name == "neutrophil"


def test_a_box_on_whole_pixels_covers_those_pixels_on_the_canvas() -> None:
    shape = rectangle((3, 5, 7, 6))  # columns 3 to 6, row 5: centers 3..6 and 5
    assert shape[:, 1].min() == 2.5
    assert shape[:, 1].max() == 6.5
    assert (shape[:, 0].min(), shape[:, 0].max()) == (4.5, 5.5)


@pytest.mark.parametrize("plane", [None, 4])
def test_boxes_survive_the_canvas(plane: int | None) -> None:
    box = (1.25, 2.5, 30.75, 44.0)
    assert box_of(rectangle(box, plane)) == box


@pytest.mark.parametrize(
    ("changes", "key", "name"),
    [
        ("", "n", "neutrophil"),
        ("neutrophil=1", "1", "neutrophil"),
        ("neutrophil=e; eosinophil=n", "n", "eosinophil"),
        ("neutrophil=u", "u", "unidentified"),
        ("neutrophil=Delete", "n", "neutrophil"),
        ("blast=q", "n", "neutrophil"),
    ],
)
def test_keys_can_be_changed_but_not_taken_from_unidentified(changes: str, key: str, name: str) -> None:
    assert class_keys(load_scheme("wbc5"), changes)[key] == name


def test_the_settings_of_the_manifest_are_those_that_the_plugin_reads() -> None:
    import yaml

    manifest = yaml.safe_load((Path(__file__).resolve().parents[2] / "napari.yaml").read_text("utf-8"))
    for group, kind in (("counting", Counting), ("reference", Reference), ("review", Reviewing)):
        declared = manifest["contributions"]["configurations"][group]["properties"]
        assert {name: entry["default"] for name, entry in declared.items()} == vars(kind())
