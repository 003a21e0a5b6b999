"""What a report draws: the same squares of a photograph and of a slide of the same pixels, wherever the box lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.report.inputs import loader
from napari_bloodcells.core.report.sprites import draw_pictures
from napari_bloodcells.core.report.views import ArrayView, SlideView, view_of
from napari_bloodcells.core.slides import open_slide

BOXES = ([10, 20, 40, 44], [-8, -5, 20, 20], [590, 380, 640, 430], [100.4, 90.2, 101.1, 90.9], [-90, -90, -60, -70])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)


@pytest.fixture(scope="module")
def slide(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "slide.btf"
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", bigtiff=True)
    return path


@pytest.mark.parametrize("box", BOXES)
def test_a_slide_gives_the_squares_of_its_pixels(pixels, slide, box):
    expected = ArrayView(pixels).square(box)
    with view_of(open_slide(slide)) as view:
        assert view.size == (600, 400)
        assert np.array_equal(view.square(box), expected)


def test_a_square_is_as_wide_as_the_box_and_its_surroundings(pixels):
    square = ArrayView(pixels).square([100, 100, 140, 120], context=1.5)
    assert np.array_equal(square, pixels[80:140, 90:150])


def test_a_box_that_no_cell_has_reads_a_bounded_part_of_a_slide(slide):
    with view_of(open_slide(slide)) as view:
        assert view.square([0, 0, 1e6, 1e6]).shape == (2048, 2048, 3)


@pytest.mark.parametrize("longest", [50, 300])
def test_the_small_copy_keeps_the_shape(slide, longest):
    with view_of(open_slide(slide)) as view:
        height, width = view.small(longest).shape[:2]
    assert max(height, width) <= longest
    assert width / height == pytest.approx(1.5, rel=0.05)


def test_a_report_has_the_cells_of_a_slide_and_its_overview(slide):
    cells = pd.DataFrame(
        {"image": ["slide.btf"] * 2, "x_min": [10, 90], "y_min": [20, 90], "x_max": [40, 120], "y_max": [44, 120]}
    )
    pictures = draw_pictures(cells, ["slide.btf"], loader(slide.parent))
    assert pictures.sizes == [(600, 400)]
    assert len(pictures.sheets) == 1
    assert pictures.fields[0].startswith("data:image/")


def test_a_damaged_part_of_a_slide_leaves_out_its_cells_alone(slide, monkeypatch):
    cells = pd.DataFrame(
        {"image": ["s"] * 2, "x_min": [0, 300], "y_min": [0, 300], "x_max": [9, 330], "y_max": [9, 330]}
    )
    opened = open_slide(slide)
    whole = SlideView(opened).square([300, 300, 330, 330])
    read = opened.read

    def damaged(region, level=0):
        if region[0] == 0:
            raise ImageError("slide.btf: a tile is damaged.")
        return read(region, level)

    monkeypatch.setattr(opened, "read", damaged)
    pictures = draw_pictures(cells, ["s"], lambda name: opened)
    assert len(pictures.sheets) == 1
    assert pictures.fields == [""]
    assert whole.shape == (38, 38, 3)
