"""What a localizer takes and gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_bloodcells.core.errors import BloodcellsError, BundleError, UsageError
from napari_bloodcells.core.localize import Field, Localizer, load_localizer
from napari_bloodcells.core.localize.base import check_image, found


def test_the_border_of_a_field_is_worked_out_from_its_size() -> None:
    boxes = found(np.array([[0, 10, 30, 40], [20, 20, 60, 60], [70, 50, 100, 79]]), "WBC", [0.9, 0.8, 0.7])
    field = Field.of((80, 100, 3), boxes)
    assert field.border.tolist() == [True, False, True]
    assert field.wbc.source == "found"
    assert field.rbc.labels == ()


@pytest.mark.parametrize("name", ["default", "find", "classical"])
def test_every_installed_localizer_has_the_same_interface(name: str) -> None:
    localizer = load_localizer(name)
    assert isinstance(localizer, Localizer)
    field = localizer.find(np.full((60, 80, 3), 230, np.uint8))
    assert len(field.wbc) == len(field.border) == 0


@pytest.mark.parametrize(
    ("name", "threshold", "error", "words"),
    [
        ("nothing-like-it", None, UsageError, "default, find, classical"),
        ("default", 1.5, UsageError, "between 0 and 1"),
        ("default", 0.0, UsageError, "between 0 and 1"),
        ("classical", 0.5, UsageError, "the classical one has none"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(
    name: str, threshold: float | None, error: type[BloodcellsError], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_localizer(name, threshold=threshold)


def test_a_folder_without_a_localizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=tmp_path.name):
        load_localizer(tmp_path)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="RGB"):
        check_image(image)
