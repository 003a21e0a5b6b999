"""Crops: exact to the pixel, free of aliasing, filled with the ground, the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core import crops
from napari_bloodcells.core.crops import WHITE_LEVEL, CropSpec, _filter_matrix, crop_sides, cut_crops, local_white
from napari_bloodcells.core.errors import ImageError

PLAIN = CropSpec(size=20, context=1.0, scale="box", white=False)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def box(x: float, y: float, w: float, h: float | None = None) -> np.ndarray:
    return np.array([[x, y, x + w, y + (h or w)]], np.float32)


def hwc(crop: torch.Tensor) -> np.ndarray:
    return crop.permute(1, 2, 0).numpy()


def test_a_box_of_the_crops_size_is_copied_pixel_by_pixel_in_rgb_order(noise):
    crop = cut_crops(noise, box(30, 40, 20), PLAIN)[0]
    assert (hwc(crop) == noise[40:60, 30:50]).all()


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (-3, 2)])
def test_a_box_shifted_by_whole_pixels_shifts_the_crop_by_them(noise, dx, dy):
    crop = cut_crops(noise, box(30 + dx, 40 + dy, 20), PLAIN)[0]
    assert (hwc(crop) == noise[40 + dy : 60 + dy, 30 + dx : 50 + dx]).all()


def test_a_shift_of_half_a_pixel_is_the_mean_of_neighbors(noise):
    crop = hwc(cut_crops(noise, box(30.5, 40, 20), PLAIN)[0]).astype(float)
    mean = (noise[40:60, 30:50].astype(float) + noise[40:60, 31:51]) / 2
    assert np.abs(crop - mean).max() <= 0.5


@pytest.mark.parametrize("side", [80, 51, 33])
def test_shrinking_agrees_with_pillow(noise, side):
    crop = hwc(cut_crops(noise, box(20, 5, side), PLAIN)[0]).astype(int)
    pillow = np.asarray(
        Image.fromarray(noise[5 : 5 + side, 20 : 20 + side]).resize((20, 20), Image.Resampling.BILINEAR)
    )
    inner = slice(2, -2)  # at the border Pillow sees the cut edge, the crop sees the field
    assert np.abs(crop - pillow)[inner, inner].max() <= 1


def test_a_fine_checkerboard_shrunk_four_times_becomes_gray_not_moire():
    board = (np.indices((200, 200)).sum(0) % 2 * 255).astype(np.uint8)
    crop = cut_crops(np.repeat(board[:, :, None], 3, 2), box(51, 52, 81), PLAIN)[0].float()
    assert crop.std() < 4
    assert abs(float(crop.mean()) - 127.5) < 2


def test_outside_of_the_field_lies_the_white_of_the_ground():
    field = np.full((60, 60, 3), (250, 240, 220), np.uint8)
    field[:20, :20] = (120, 60, 140)
    crop = hwc(cut_crops(field, box(-10, -10, 20), PLAIN)[0])
    assert (crop[:10] == (250, 240, 220)).all()
    assert (crop[10:, 10:] == (120, 60, 140)).all()


def test_dividing_by_the_white_removes_lamp_and_white_balance():
    field = np.full((60, 60, 3), 240, np.uint8)
    field[20:40, 20:40] = (120, 60, 140)
    yellow = (field * np.array([1.0, 0.95, 0.7])).astype(np.uint8)
    spec = CropSpec(size=20, context=1.5, scale="box")
    crops = [cut_crops(f, box(20, 20, 20), spec)[0].int() for f in (field, yellow)]
    assert (crops[0] - crops[1]).abs().max() <= 2
    assert int(crops[0][:, 0, 0].min()) == WHITE_LEVEL


def test_the_white_of_a_vignetted_field_is_that_around_the_cell():
    shade = np.linspace(250, 100, 600)[None, :, None]
    field = np.broadcast_to(shade, (200, 600, 3)).astype(np.uint8)
    spec = CropSpec(size=16, context=1.0, scale="box")
    left, right = cut_crops(field, np.array([[50, 90, 70, 110], [530, 90, 550, 110]]), spec).float().mean((1, 2, 3))
    assert abs(left - right) < 20


@pytest.mark.parametrize(
    ("spec", "um_per_pixel", "wanted"),
    [
        (CropSpec(side_um=20, scale="um"), 0.1, 200.0),
        (CropSpec(side_um=20, scale="um"), None, 100 * 20 / 14),
        (CropSpec(side_um=20, scale="um"), 1.0, 100 * 20 / 14),  # a cell of 100 um: the scale cannot be right
        (CropSpec(context=1.5, scale="box"), 0.1, 150.0),
    ],
)
def test_the_side_of_a_crop_follows_the_scale_or_the_box(spec, um_per_pixel, wanted):
    sides = crop_sides(np.array([[0.0, 0.0, 100.0, 70.0]]), spec, um_per_pixel)
    assert sides == pytest.approx(np.full((1, 2), wanted))


def test_an_image_crop_is_the_whole_box_stretched(noise):
    crop = cut_crops(noise, np.array([[0, 0, 120, 90]]), CropSpec(size=30, scale="image", white=False))[0]
    pillow = np.asarray(Image.fromarray(noise).resize((30, 30), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(hwc(crop).astype(int) - pillow)[1:-1, 1:-1].max() <= 1


def test_a_crop_does_not_depend_on_the_cells_beside_it(noise):
    boxes = np.random.default_rng(1).uniform(0, 90, (70, 2))
    boxes = np.concatenate([boxes, boxes + np.random.default_rng(2).uniform(5, 60, (70, 2))], 1)
    together = cut_crops(noise, boxes, CropSpec(size=24))
    alone = torch.cat([cut_crops(noise, b[None], CropSpec(size=24)) for b in boxes])
    assert torch.equal(together, alone)


def test_no_box_gives_no_crop(noise):
    assert cut_crops(noise, np.zeros((0, 4)), CropSpec()).shape == (0, 3, 80, 80)


@pytest.mark.parametrize("array", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3))])
def test_what_is_no_rgb_image_is_refused(array):
    with pytest.raises(ImageError, match="RGB"):
        cut_crops(array, box(0, 0, 4), CropSpec())


def test_the_white_of_a_field_crowded_with_red_cells_is_still_its_ground():
    field = np.full((100, 100, 3), (240, 235, 230), np.uint8)
    field[:, :80] = (200, 120, 110)
    assert local_white(field).tolist() == [240, 235, 230]


def test_past_the_far_border_lies_the_white_of_the_ground_too():
    field = np.full((60, 60, 3), (250, 240, 220), np.uint8)
    field[40:, 40:] = (120, 60, 140)
    crop = hwc(cut_crops(field, box(50, 50, 20), PLAIN)[0])
    assert (crop[:10, :10] == (120, 60, 140)).all()
    assert (crop[10:] == (250, 240, 220)).all()
    assert (crop[:, 10:] == (250, 240, 220)).all()


def test_the_white_is_the_median_between_the_90th_and_the_99th_percentile():
    ranks = np.arange(48 * 48).reshape(48, 48)
    field = np.repeat((ranks * 255 // ranks.max()).astype(np.uint8)[:, :, None], 3, 2)
    assert local_white(field).tolist() == [(2073 + 2279) // 2 * 255 // ranks.max()] * 3


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_the_white_of_a_field_is_looked_for_in_all_of_it(side):
    field = np.full((100, 100, 3), (120, 60, 140), np.uint8)
    strips = {"left": np.s_[:, :20], "right": np.s_[:, 80:], "top": np.s_[:20], "bottom": np.s_[80:]}
    field[strips[side]] = (240, 235, 230)
    assert local_white(field).tolist() == [240, 235, 230]


def test_the_white_of_what_is_no_rgb_image_is_refused():
    with pytest.raises(ImageError, match="RGB"):
        local_white(np.zeros((5, 5, 4), np.uint8))


@pytest.mark.parametrize("bad", [{"size": 0}, {"side_um": 0.0}, {"context": 0.0}, {"side_um": -1.0}])
def test_a_crop_without_extent_is_refused(bad):
    with pytest.raises(ValueError, match="above zero"):
        CropSpec(**bad)


def test_a_crop_of_half_a_micrometer_and_one_pixel_is_a_crop():
    assert cut_crops(np.full((9, 9, 3), 200, np.uint8), box(2, 2, 4), CropSpec(size=1, side_um=0.5)).shape[2:] == (1, 1)


@pytest.mark.parametrize(("um_per_pixel", "believed"), [(0.015, True), (0.0149, False), (0.3, True), (0.301, False)])
def test_a_scale_is_believed_where_the_cell_has_1_5_to_30_um(um_per_pixel, believed):
    side = crop_sides(np.array([[0.0, 0.0, 100.0, 70.0]]), CropSpec(side_um=20), um_per_pixel)[0, 0]
    assert side == pytest.approx(20 / um_per_pixel if believed else 100 * 20 / 14)


@pytest.mark.parametrize("strip", [np.s_[:, 132:], np.s_[:, :68], np.s_[132:], np.s_[:68]])
def test_the_white_of_a_crop_is_looked_for_within_one_and_a_half_of_its_sides(strip):
    field = np.full((200, 200, 3), 200, np.uint8)
    field[strip] = 250
    spec = CropSpec(size=20, context=1.0, scale="box")
    assert (cut_crops(field, box(90, 90, 20), spec) == WHITE_LEVEL).all()  # the ground of 200, not that of 250
    for near in (np.s_[:, 128:], np.s_[:, :72], np.s_[128:], np.s_[:72]):
        field[near] = 250
    assert (cut_crops(field, box(90, 90, 20), spec) < 200).all()


def test_glare_brighter_than_the_ground_is_white_and_not_black():
    field = np.full((60, 60, 3), 200, np.uint8)
    field[28:32, 28:32] = 255
    crop = cut_crops(field, box(20, 20, 20), CropSpec(size=20, context=1.0, scale="box"))[0]
    assert int(crop.max()) == 255
    assert int(crop.min()) == WHITE_LEVEL


@pytest.mark.parametrize(("center", "side"), [(100.0, 37.0), (99.3, 80.0), (77.77, 13.1), (60.5, 20.0)])
def test_the_weights_of_every_pixel_add_to_one(center, side):
    first, weights = _filter_matrix(np.array([center]), np.array([side]), 20, np.array([200]))
    assert (weights.sum(2) == 1).all()
    assert ((weights * 2048) % 1 == 0).all()  # so the sums are the same in any order
    assert (weights >= 0).all()
    assert 0 <= first[0] <= center - side / 2
    assert first[0] + weights.shape[2] >= center + side / 2


def test_the_white_of_a_black_field_is_one_and_a_box_without_extent_is_a_pixel():
    assert local_white(np.zeros((60, 60, 3), np.uint8)).tolist() == [1, 1, 1]
    assert crop_sides(np.array([[5.0, 5.0, 5.0, 5.0]]), CropSpec(scale="image")).tolist() == [[1.0, 1.0]]


def test_a_bundle_that_says_nothing_of_its_crops_has_these():
    assert CropSpec() == CropSpec(80, 20.0, 1.43, "um", True)


def test_the_white_is_looked_for_in_the_middle_of_the_cells_of_its_grid():
    field = np.full((700, 700, 3), 200, np.uint8)
    field[:, 90:120] = 250  # two of the 48 columns from 100 to 580, too few to be the ground
    crop = cut_crops(field, box(260, 260, 160), CropSpec(size=20, context=1.0, scale="box"))
    assert (crop == WHITE_LEVEL).all()


@pytest.mark.parametrize(("x", "white"), [(-300, 250), (280, 150)])
def test_a_box_far_outside_is_the_white_of_the_border_next_to_it(x, white):
    field = np.full((60, 60, 3), 200, np.uint8)
    field[:, :3], field[:, -3:] = 250, 150
    assert (cut_crops(field, box(x, 20, 20), PLAIN) == white).all()


def test_one_large_cell_makes_the_windows_of_the_others_no_larger(monkeypatch):
    """Else 64 windows of a thousand pixels are held at once: gigabytes."""
    field = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    boxes = np.concatenate([box(40 + 20 * i, 60 + 15 * i, 50) for i in range(40)] + [box(100, 200, 900)])[::-1].copy()
    alone = torch.cat([cut_crops(field, one[None], PLAIN) for one in boxes])
    pixels = []
    real = crops._cut_chunk

    def watched(field, center, side, spec):
        pixels.append(len(side) * float(side.max()) ** 2)
        return real(field, center, side, spec)

    monkeypatch.setattr(crops, "_cut_chunk", watched)
    assert torch.equal(cut_crops(field, boxes, PLAIN), alone)
    assert max(pixels) < 64 * 512**2
