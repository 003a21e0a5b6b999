"""The classical localizer on drawn fields and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize.classical import ClassicalLocalizer, optical_density, otsu, red_cell_diameter
from napari_bloodcells.core.localize.score import precision, recall, score_field
from napari_bloodcells.core.voc import read_voc
from napari_bloodcells.synthetic import SmearSettings, draw_smear


def test_the_threshold_of_two_kinds_of_pixels_lies_between_them() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.02, 900), rng.normal(0.8, 0.05, 100)]).astype(np.float32)
    assert 0.2 < otsu(values) < 0.7


@pytest.mark.parametrize("um_per_pixel", [0.07, 0.1, 0.2])
def test_drawn_cells_are_found_at_any_scale(um_per_pixel: float) -> None:
    size = {"width": round(64 / um_per_pixel), "height": round(48 / um_per_pixel)}
    smears = [draw_smear(seed, SmearSettings(um_per_pixel=um_per_pixel, **size)) for seed in range(2)]
    scores = [score_field(ClassicalLocalizer().find(s.image).wbc, s.boxes.xyxy) for s in smears]
    assert recall(scores) >= 0.85
    assert precision(scores) >= 0.85


def test_a_given_scale_overrules_the_measured_one() -> None:
    smear = draw_smear(1)
    assert ClassicalLocalizer().find(smear.image, um_per_pixel=0.1).um_per_pixel == 0.1


def test_red_and_blue_exchanged_hide_the_nuclei() -> None:
    smear = draw_smear(2)
    assert len(ClassicalLocalizer().find(smear.image).wbc) == len(smear.boxes)
    assert len(ClassicalLocalizer().find(smear.image[..., ::-1].copy()).wbc) != len(smear.boxes)


def test_a_field_without_red_cells_says_so() -> None:
    field = ClassicalLocalizer().find(np.full((100, 100, 3), 240, np.uint8))
    assert field.um_per_pixel is None
    assert any("red cells" in problem for problem in field.problems)


def test_the_diameter_is_that_of_the_round_cells() -> None:
    image = np.full((200, 300, 3), 235, np.uint8)
    y, x = np.mgrid[:200, :300]
    for cx, cy in ((40, 50), (120, 60), (200, 120), (90, 150)):
        image[np.hypot(x - cx, y - cy) < 20] = (200, 140, 140)
    diameter = red_cell_diameter(*optical_density(image))
    assert diameter == pytest.approx(40, abs=2)


@pytest.mark.data
def test_white_cells_of_real_fields_are_found(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    scores = []
    for annotation in sorted((folder / "Annotations").glob("*.xml"))[:30]:
        truth = read_voc(annotation).boxes.named("WBC").xyxy
        image = read_image(folder / "JPEGImages" / f"{annotation.stem}.jpg")
        scores.append(score_field(ClassicalLocalizer().find(image).wbc, truth))
    assert recall(scores) >= 0.95
    assert precision(scores) >= 0.92
