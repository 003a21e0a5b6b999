"""What lies on the slide besides blood: plasma, dirt, stain precipitate, fibers, platelet clumps and writing.

Everything adds optical density to the field in place.  None of it is in the truth: a localizer that boxes it is wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.synthetic.red_cells import platelet
from napari_bloodcells.synthetic.settings import SmearSettings
from napari_bloodcells.synthetic.shapes import Patch, Plane, blob, bridge, cover, texture

PLASMA = np.array([0.004, 0.008, 0.004], np.float32)
PRECIPITATE = np.array([0.55, 0.75, 0.35], np.float32)
SPECK = np.array([0.5, 0.5, 0.45], np.float32)
FIBER = np.array([0.22, 0.16, 0.10], np.float32)
INK = np.array([0.75, 0.60, 0.25], np.float32)


def paste(field: NDArray[np.float32], density: NDArray[np.float32], patch: Patch) -> None:
    """Add ``density`` (h, w, 3) to ``field`` (H, W, 3) at the patch's place; what lies outside is cut off."""
    height, width = field.shape[:2]
    top, left = max(patch.row, 0), max(patch.column, 0)
    bottom, right = min(patch.row + density.shape[0], height), min(patch.column + density.shape[1], width)
    if top < bottom and left < right:
        part = density[top - patch.row : bottom - patch.row, left - patch.column : right - patch.column]
        field[top:bottom, left:right] += part


def add_plasma(field: NDArray[np.float32], um: float, rng: np.random.Generator) -> None:
    """A faint, cloudy film of plasma over the whole field."""
    clouds = np.clip(1 + 0.5 * texture(field.shape[:2], um, 3.0, rng), 0, None)
    field += clouds[..., None] * PLASMA


def add_dirt(field: NDArray[np.float32], settings: SmearSettings, rng: np.random.Generator) -> None:
    """Specks, precipitate and fibers, platelet clumps and writing, as ``settings.ground`` asks."""
    um = settings.um_per_pixel
    size = np.array([settings.width, settings.height]) * um
    for _ in range(settings.ground.dirt):
        center = tuple(rng.uniform(0, size))
        kind = rng.choice(["speck", "precipitate", "fiber"], p=[0.5, 0.35, 0.15])
        if kind == "fiber":
            patch = Patch.around(center, 12.0, um)
            a, bend = rng.uniform(0, np.pi), 1.5 * texture(patch.x.shape, um, 4.0, rng)
            end = 10 * np.array([np.cos(a), np.sin(a)])
            line = cover(bridge(patch.x + bend, patch.y - bend, -end, end, rng.uniform(0.15, 0.4)), um, 0.3)
            paste(field, line[..., None] * FIBER, patch)
            continue
        spots = 1 if kind == "speck" else int(rng.integers(4, 12))
        color = SPECK if kind == "speck" else PRECIPITATE
        for offset in rng.normal(0, 1.2 if spots > 1 else 0, (spots, 2)):
            patch = Patch.around((center[0] + offset[0], center[1] + offset[1]), 1.6, um)
            waves = np.abs(rng.normal(0, 0.15, 4))
            grain = blob(patch, rng.uniform(0.12, 0.45), waves, rng.uniform(0, 6.28, 4))
            paste(field, cover(grain, um, 0.12)[..., None] * color, patch)
    for _ in range(settings.ground.platelet_clumps):
        middle = rng.uniform(0.1, 0.9, 2) * size
        for offset in rng.normal(0, 2.2, (int(rng.integers(8, 21)), 2)):
            patch = Patch.around((middle[0] + offset[0], middle[1] + offset[1]), 2.6, um)
            paste(field, platelet(patch, rng)[0], patch)
    if settings.ground.writing:
        field += _writing(settings, rng)[..., None] * INK


def _writing(settings: SmearSettings, rng: np.random.Generator) -> Plane:
    """Coverage (H, W) of the marker's text in the upper left or lower right corner."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("L", (settings.width, settings.height))
    font = ImageFont.load_default(max(8, settings.height // 10))
    corner = (0.04, 0.03) if rng.random() < 0.5 else (0.55, 0.85)
    spot = (corner[0] * settings.width, corner[1] * settings.height)
    ImageDraw.Draw(page).text(spot, settings.ground.writing, fill=255, font=font, stroke_width=settings.height // 200)
    return np.asarray(page, np.float32) / np.float32(255)
