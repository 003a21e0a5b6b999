"""One field: who lies where, drawn, photographed, with its truth.

White cells are placed first, red cells and platelets around them (a few red cells may overlap each other, as on a
smear).  Truth boxes are taken from the drawn outlines, clipped to the image, in the convention of ``core.boxes``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.synthetic.cells import draw_cell, radius_of
from napari_bloodcells.synthetic.ground import add_dirt, add_plasma, paste
from napari_bloodcells.synthetic.optics import inside_eyepiece, photograph
from napari_bloodcells.synthetic.red_cells import RBC_RADIUS, platelet, red_cell
from napari_bloodcells.synthetic.settings import SmearSettings
from napari_bloodcells.synthetic.shapes import Patch

OVERLAP = 0.25
"""Share of the red cells that may lie on other red cells."""
VISIBLE = 0.25
"""A red cell or platelet cut by the border is in the truth if at least this share of its box is visible."""


@dataclass(frozen=True)
class Smear:
    """A drawn field and its truth.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB.
    boxes : Boxes
        The white cells (and erythroblasts and smudge cells), labeled with their cell type.
    rbc, platelets : Boxes
        Labeled ``RBC`` and ``Platelets``.
    um_per_pixel : float
        Micrometers per pixel.
    """

    image: NDArray[np.uint8]
    boxes: Boxes
    rbc: Boxes
    platelets: Boxes
    um_per_pixel: float


@dataclass(frozen=True)
class _Spot:
    """A cell to draw: its type, center (x, y) in um, and radius in um."""

    name: str
    center: tuple[float, float]
    radius: float


def draw_smear(seed: int = 0, settings: SmearSettings | None = None) -> Smear:
    """Draw one field of a blood smear.

    Parameters
    ----------
    seed : int
        The same seed and settings give the same pixels.
    settings : SmearSettings, optional
        What the field holds; the default is a clean 640 x 480 field with three white cells.

    Returns
    -------
    Smear
        The image and the boxes of all its cells.

    Examples
    --------
    >>> smear = draw_smear(seed=1, settings=SmearSettings(cells=("neutrophil", "eosinophil")))
    >>> smear.image.shape, smear.boxes.labels
    ((480, 640, 3), ('neutrophil', 'eosinophil'))
    """
    settings = settings or SmearSettings()
    rng = np.random.default_rng(seed)
    um = settings.um_per_pixel
    field = np.zeros((settings.height, settings.width, 3), np.float32)
    add_plasma(field, um, rng)

    white = _place_white_cells(settings, rng)
    red = _place_red_cells(settings, white, rng)
    small = _place_platelets(settings, [*white, *red], rng)
    boxes: dict[str, list[tuple[float, float, float, float]]] = {"white": [], "red": [], "small": []}
    for kind, spots in (("red", red), ("small", small), ("white", white)):
        for spot in spots:
            patch = Patch.around(spot.center, spot.radius * 1.45 + 0.5, um)
            if kind == "white":
                density, coverage = draw_cell(spot.name, patch, spot.radius, rng)
            else:
                density, coverage = (red_cell if kind == "red" else platelet)(patch, rng)
            paste(field, density, patch)
            box = _visible(patch.box(coverage), settings, least=0.0 if kind == "white" else VISIBLE)
            if box is not None:
                boxes[kind].append(box)
    add_dirt(field, settings, rng)
    return Smear(
        image=photograph(field, settings, rng),
        boxes=_boxes(boxes["white"], [s.name for s in white]),
        rbc=_boxes(boxes["red"], ["RBC"] * len(boxes["red"])),
        platelets=_boxes(boxes["small"], ["Platelets"] * len(boxes["small"])),
        um_per_pixel=um,
    )


def _boxes(xyxy: list[tuple[float, float, float, float]], labels: list[str]) -> Boxes:
    return Boxes(np.asarray(xyxy, np.float32).reshape(-1, 4), tuple(labels), source="drawn")


def _visible(
    box: tuple[int, int, int, int], settings: SmearSettings, least: float
) -> tuple[float, float, float, float] | None:
    """The part of ``box`` inside of the image, or None where less than the share ``least`` of it is visible."""
    x0, y0, x1, y1 = box
    cut = (max(x0, 0), max(y0, 0), min(x1, settings.width), min(y1, settings.height))
    area, whole = max(cut[2] - cut[0], 0) * max(cut[3] - cut[1], 0), max((x1 - x0) * (y1 - y0), 1)
    middle = ((cut[0] + cut[2]) / 2 * settings.um_per_pixel, (cut[1] + cut[3]) / 2 * settings.um_per_pixel)
    if area == 0 or area < least * whole or not (least == 0 or inside_eyepiece(*middle, settings)):
        return None
    return cut


def _place_white_cells(settings: SmearSettings, rng: np.random.Generator) -> list[_Spot]:
    """Every white cell that was asked for gets a place; the free-est of many tries where the field is crowded."""
    names = settings.cells
    if isinstance(names, int):
        shares = np.array(list(settings.differential.values()), float)
        drawn = rng.choice(len(shares), names, p=shares / shares.sum()) if names else np.zeros(0, int)
        names = tuple(list(settings.differential)[i] for i in drawn)
    size = np.array([settings.width, settings.height]) * settings.um_per_pixel
    spots: list[_Spot] = []
    for name in names:
        radius = radius_of(name, rng)
        reach = 1.12 * radius + settings.um_per_pixel
        inner = np.minimum(reach, size / 2)
        tries = rng.uniform(inner, size - inner, (64, 2))
        if rng.random() < settings.border:
            side = rng.integers(0, 4, 64)
            depth = rng.uniform(0.15, 0.75, 64) * radius
            edge = np.where(side < 2, depth, size[side % 2] - depth)
            tries[np.arange(64), side % 2] = edge
        if spots and rng.random() < settings.touching:
            last, angle = spots[-1], rng.uniform(0, 2 * np.pi, 64)
            away = 0.96 * (last.radius + radius)
            tries = np.array(last.center) + away * np.stack([np.cos(angle), np.sin(angle)], 1)
            tries = np.clip(tries, inner, size - inner)
        spots.append(_Spot(name, _free_spot(tries, radius, spots, settings), radius))
    return spots


def _free_spot(
    tries: NDArray[np.float64], radius: float, spots: list[_Spot], settings: SmearSettings
) -> tuple[float, float]:
    clear = np.zeros(len(tries))
    if spots:
        centers, radii = np.array([s.center for s in spots]), np.array([s.radius for s in spots])
        gap = np.linalg.norm(tries[:, None] - centers[None], axis=-1) - 1.05 * (radii + radius)
        clear = np.minimum(gap.min(1), 0)
    outside = np.array([not inside_eyepiece(x, y, settings, radius) for x, y in tries])
    best = int(np.argmax(clear - 1e3 * outside))
    return float(tries[best, 0]), float(tries[best, 1])


def _place_red_cells(settings: SmearSettings, white: list[_Spot], rng: np.random.Generator) -> list[_Spot]:
    size = np.array([settings.width, settings.height]) * settings.um_per_pixel
    room = float((size + 2 * RBC_RADIUS).prod())
    n = round(settings.rbc_coverage * room / (np.pi * RBC_RADIUS**2))
    centers = np.zeros((n, 2))
    placed = 0
    big = np.array([s.center for s in white]).reshape(-1, 2)
    big_radius = np.array([s.radius for s in white])
    for _ in range(n):
        tries = rng.uniform(-RBC_RADIUS, size + RBC_RADIUS, (24, 2))
        free = np.ones(24, bool)
        if len(big):
            gap = np.linalg.norm(tries[:, None] - big[None], axis=-1) - big_radius - RBC_RADIUS
            free &= (gap > -0.25).all(1)
        near = 0.9 if rng.random() < OVERLAP else 1.98
        if placed:
            apart = np.linalg.norm(tries[:, None] - centers[None, :placed], axis=-1)
            free &= (apart > near * RBC_RADIUS).all(1)
        if free.any():
            centers[placed] = tries[np.flatnonzero(free)[0]]
            placed += 1
    return [_Spot("RBC", (float(x), float(y)), RBC_RADIUS) for x, y in centers[:placed]]


def _place_platelets(settings: SmearSettings, others: list[_Spot], rng: np.random.Generator) -> list[_Spot]:
    size = np.array([settings.width, settings.height]) * settings.um_per_pixel
    centers = np.array([s.center for s in others]).reshape(-1, 2)
    radii = np.array([s.radius for s in others])
    spots: list[_Spot] = []
    for _ in range(settings.platelets):
        tries = rng.uniform(0, size, (32, 2))
        gap = np.full(32, np.inf)
        if len(centers):
            gap = (np.linalg.norm(tries[:, None] - centers[None], axis=-1) - radii).min(1)
        best = tries[int(np.argmax(np.minimum(gap, 1.8)))]
        spots.append(_Spot("Platelets", (float(best[0]), float(best[1])), 2.0))
    return spots
