"""The augmentation: bounded, repeatable, harmless where it is switched off, and it does what it is for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_bloodcells.core.training.augment import AugmentSettings, augment

OFF = AugmentSettings(zoom=0.0, to_box=0.0, stain=0.0, ground=0.0, camera=0.0)
USUAL = 56.0


def cells(n: int = 16, side: int = 120) -> torch.Tensor:
    """White crops with a dark disk of its own color in the middle of each."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(side) - (side - 1) / 2
    disk = (axis[:, None] ** 2 + axis[None] ** 2).sqrt() < USUAL / 2
    color = torch.randint(40, 160, (n, 3, 1, 1), generator=generator)
    return torch.where(disk, color, torch.full((), 235)).to(torch.uint8)


def run(crops: torch.Tensor, settings: AugmentSettings, seed: int = 0, extent: float = USUAL) -> torch.Tensor:
    return augment(crops, torch.full((len(crops),), extent), settings, torch.Generator().manual_seed(seed))


def diameter(images: torch.Tensor) -> torch.Tensor:
    return (4 / torch.pi * (images[:, 1] < 0.8).float().sum((1, 2))).sqrt()


@pytest.mark.parametrize("settings", [AugmentSettings(), AugmentSettings(stain=1.0, camera=2.0, ground=1.0)])
def test_what_comes_out_is_an_image_from_0_to_1(settings):
    images = run(cells(), settings)
    assert images.shape == (16, 3, 80, 80)
    assert images.isfinite().all()
    assert 0 <= images.min() <= images.max() <= 1


def test_the_same_seed_gives_the_same_images_and_another_seed_others():
    assert torch.equal(run(cells(), AugmentSettings(), 1), run(cells(), AugmentSettings(), 1))
    assert not torch.allclose(run(cells(), AugmentSettings(), 1), run(cells(), AugmentSettings(), 2), atol=0.05)


def test_the_crops_that_went_in_are_not_changed():
    crops = cells()
    before = crops.clone()
    run(crops, AugmentSettings())
    assert torch.equal(crops, before)


def test_with_all_switched_off_color_and_size_of_the_cell_stay():
    crops = cells()
    images = run(crops, OFF)
    middle = images[:, :, 36:44, 36:44].mean((2, 3))
    assert torch.allclose(middle, crops[:, :, 60, 60].float() / 255, atol=0.02)
    assert (diameter(images) - USUAL).abs().max() < USUAL * 0.1


def test_zoom_changes_the_size_within_its_bounds():
    sizes = diameter(run(cells(200), replace(OFF, zoom=0.3))) / USUAL
    assert sizes.min() > 0.68
    assert sizes.max() < 1.45
    assert sizes.std() > 0.1


def test_a_cell_brought_to_its_box_has_the_usual_size():
    small = torch.full((8, 3, 120, 120), 235, dtype=torch.uint8)
    small[:, :, 40:80, 40:80] = 80
    as_it_is = diameter(run(small, OFF, extent=40.0)).mean()
    to_box = diameter(run(small, replace(OFF, to_box=1.0), extent=40.0)).mean()
    assert to_box / as_it_is == pytest.approx(14 / 30 * 120 / 40, rel=0.1)


def test_a_stain_changes_the_cell_and_leaves_the_ground_white():
    images = run(cells(64), replace(OFF, stain=0.35))
    middle, corner = images[:, :, 40, 40], images[:, :, 2, 2]
    plain = run(cells(64), OFF)
    assert (middle - plain[:, :, 40, 40]).abs().mean() > 0.05
    assert (corner - 235 / 255).abs().max() < 0.03


def test_another_ground_leaves_the_cell_as_it_is():
    crops = cells(64)
    crops[:, :, :30] = 120  # what lies above every cell
    images, plain = run(crops, replace(OFF, ground=1.0)), run(crops, OFF)
    assert torch.allclose(images[:, :, 32:48, 32:48], plain[:, :, 32:48, 32:48], atol=0.02)
    assert (images[:, :, :8] - plain[:, :, :8]).abs().mean() > 0.05


def test_the_camera_leaves_the_stain_statistics_alone_on_average():
    images, plain = run(cells(256), replace(OFF, camera=1.0)), run(cells(256), OFF)
    assert (images.mean() - plain.mean()).abs() < 0.05
    assert (images - plain).abs().mean() > 0.01
