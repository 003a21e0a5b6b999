"""A good field is left alone; blur, glare, darkness and what is no smear are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.quality import check_quality

UM_PER_PIXEL = 0.07


def field(blur: float = 1.5) -> np.ndarray:
    """Pink red cells of 7.5 um and one violet nucleus on light ground, at 0.07 um per pixel."""
    y, x = np.mgrid[:480, :640]
    image = np.full((480, 640, 3), (215, 208, 212), float)
    for i in range(6):
        for j in range(5):
            image[(x - 60 - 110 * i) ** 2 + (y - 50 - 95 * j) ** 2 < 45**2] = (190, 150, 155)
    image[(x - 330) ** 2 + (y - 240) ** 2 < 60**2] = (110, 60, 150)
    return ndimage.gaussian_filter(image, (blur, blur, 0)).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "image", "problems"),
    [
        ("as it is", field(), ()),
        ("blurred", field(15), ("out of focus",)),
        ("dark", field() // 4, ("dark",)),
        ("glaring", np.clip(field() * 1.6, 0, 255).astype(np.uint8), ("over-exposed",)),
        ("gray", np.repeat(field().mean(2, keepdims=True), 3, 2).astype(np.uint8), ("not a stained smear",)),
        ("empty", np.full((100, 100, 3), 220, np.uint8), ("not a stained smear",)),
        ("black", np.zeros((100, 100, 3), np.uint8), ("not a stained smear", "dark")),
        ("one pixel", np.full((1, 1, 3), 200, np.uint8), ("not a stained smear",)),
    ],
)
def test_defects_are_named(name: str, image: np.ndarray, problems: tuple[str, ...]) -> None:
    assert check_quality(image, UM_PER_PIXEL).problems == problems, name


def test_focus_is_judged_without_a_scale_too() -> None:
    assert check_quality(field()).problems == ()
    assert check_quality(field(15)).problems == ("out of focus",)


def test_sharpness_hardly_depends_on_the_resolution_where_the_scale_is_known() -> None:
    whole = check_quality(field(3), UM_PER_PIXEL).sharpness
    from PIL import Image

    half = np.asarray(Image.fromarray(field(3)).reduce(2))
    assert check_quality(half, 2 * UM_PER_PIXEL).sharpness == pytest.approx(whole, rel=0.2)


@pytest.mark.data
@pytest.mark.parametrize("source", ["bccd", "raabin", "ankara", "chula", "pbc", "cellavision", "misp", "pig"])
def test_real_photographs_are_left_alone(shared_data: Path, source: str) -> None:
    from napari_bloodcells.core.find import find_images

    paths = find_images([shared_data / source])[5::400][:6]
    scale = {"bccd": 0.072, "raabin": 0.055, "ankara": 0.14}.get(source)
    found = {path.name: check_quality(read_image(path), scale).problems for path in paths}
    assert found == dict.fromkeys(found, ())
