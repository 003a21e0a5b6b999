"""White cells (and erythroblasts): how each type is built, as a table, and one function that draws them.

A cell is an outline filled with cytoplasm, a nucleus of lobes, chromatin texture, and granules: what a reader goes
by.  Sizes in um are those of flattened cells on a smear; optical densities (red, green, blue) are medians of
analyzer photographs of Giemsa-stained cells with the ground divided out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.synthetic.nuclei import NUCLEI
from napari_bloodcells.synthetic.shapes import Patch, Plane, blob, cover, granules, merge, texture

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Grains:
    """Granules: distance and radius in um, color as optical density, and the share of the nucleus they hide."""

    spacing: float
    radius: float
    color: Color
    over_nucleus: float = 0.0
    patchy: float = 0.0


@dataclass(frozen=True)
class CellLook:
    """How one type of cell looks.

    Attributes
    ----------
    radius : tuple of 2 float
        Smallest and largest radius in um.
    ragged : float
        How irregular the outline is, as a fraction of the radius.
    cytoplasm, nucleus : tuple of 3 float
        Optical density in red, green and blue.
    chromatin : float
        Contrast of the chromatin, as a fraction of the nucleus's density.
    clump : float
        Grain of the chromatin in um.
    grains : tuple of Grains
        Granules, drawn in this order.
    vacuoles : float
        Probability of vacuoles.
    nucleus_shape : str
        Which of ``nuclei.NUCLEI`` it has.
    edge : float
        Softness of the outline in um.
    """

    radius: tuple[float, float]
    ragged: float
    cytoplasm: Color
    nucleus: Color
    chromatin: float
    clump: float
    nucleus_shape: str
    grains: tuple[Grains, ...] = ()
    vacuoles: float = 0.0
    edge: float = 0.15


LOOKS: dict[str, CellLook] = {
    "neutrophil": CellLook(
        (5.8, 6.9), 0.025, (0.08, 0.125, 0.055), (0.56, 0.90, 0.22), 0.16, 0.5, "segmented",
        (Grains(0.36, 0.10, (0.055, 0.11, 0.035), patchy=0.4),),
    ),
    "lymphocyte": CellLook(
        (4.5, 6.1), 0.03, (0.23, 0.26, 0.06), (0.52, 0.82, 0.20), 0.16, 0.7, "round",
    ),
    "monocyte": CellLook(
        (7.0, 8.4), 0.055, (0.20, 0.235, 0.085), (0.42, 0.70, 0.16), 0.19, 0.42, "folded",
        (Grains(0.45, 0.09, (0.04, 0.08, 0.02), patchy=0.5),), vacuoles=0.55,
    ),
    "eosinophil": CellLook(
        (6.0, 7.2), 0.03, (0.07, 0.19, 0.105), (0.49, 0.80, 0.19), 0.15, 0.55, "bilobed",
        (Grains(0.70, 0.34, (0.07, 0.20, 0.13)),),
    ),
    "basophil": CellLook(
        (5.6, 6.8), 0.035, (0.17, 0.27, 0.06), (0.38, 0.62, 0.14), 0.10, 0.9, "clover",
        (Grains(0.72, 0.34, (0.54, 0.88, 0.22), over_nucleus=0.9, patchy=0.25),),
    ),
    "erythroblast": CellLook(
        (3.9, 5.2), 0.03, (0.19, 0.22, 0.09), (0.66, 0.95, 0.26), 0.10, 0.6, "dense",
    ),
    "immature granulocyte": CellLook(
        (7.0, 8.4), 0.04, (0.21, 0.29, 0.07), (0.44, 0.74, 0.17), 0.12, 0.5, "oval",
        (Grains(0.50, 0.14, (0.15, 0.28, 0.06), over_nucleus=0.3, patchy=0.5),),
    ),
    "smudge cell": CellLook(
        (5.5, 8.0), 0.16, (0.0, 0.0, 0.0), (0.30, 0.52, 0.12), 0.30, 0.9, "smudge", edge=0.7,
    ),
}  # fmt: skip


def draw_cell(name: str, patch: Patch, radius: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], Plane]:
    """Draw one cell.

    Parameters
    ----------
    name : str
        One of ``CELL_TYPES``.
    radius : float
        Its mean radius in um, from ``radius_of``.

    Returns
    -------
    density : (H, W, 3) float32
        Optical density that the cell adds to the field.
    coverage : (H, W) float32
        1 inside of the cell, 0 outside.
    """
    look = LOOKS[name]
    waves = np.abs(rng.normal(0, look.ragged, 6)) / np.array([1, 1.5, 2.4, 4, 6, 9])
    outline = blob(patch, radius, waves, rng.uniform(0, 2 * np.pi, 6))
    shape = patch.x.shape
    warp = 0.22 * radius / 6
    x = patch.x + warp * texture(shape, patch.um, 1.0, rng)
    y = patch.y + warp * texture(shape, patch.um, 1.0, rng)
    distance = NUCLEI[look.nucleus_shape](x, y, radius, rng)
    if look.nucleus_shape == "smudge":
        outline = distance
    else:
        distance = -merge(-distance, -(outline + 0.25), 0.3)
    body, nucleus = cover(outline, patch.um, look.edge), cover(distance, patch.um, 0.12)

    density = _cytoplasm(look, patch, outline, rng)
    chromatin = texture(shape, patch.um, look.clump, rng) + 0.5 * texture(shape, patch.um, look.clump / 2.5, rng)
    edge = 0.10 * np.exp(-((distance / 0.35) ** 2))
    depth = np.clip(1 + look.chromatin * chromatin + edge, 0.35, 1.6)
    depth *= rng.normal(1, 0.05)
    inner = depth[..., None] * np.asarray(look.nucleus, np.float32)
    density += nucleus[..., None] * (inner - density)
    for grains in look.grains:
        _add_granules(density, grains, patch, nucleus, rng)
    density *= body[..., None]
    return density.astype(np.float32), body


def radius_of(name: str, rng: np.random.Generator) -> float:
    """A radius in um for a cell of this type."""
    low, high = LOOKS[name].radius
    return float(rng.uniform(low, high))


def _cytoplasm(look: CellLook, patch: Patch, outline: Plane, rng: np.random.Generator) -> NDArray[np.float32]:
    shape = patch.x.shape
    mottle = 1 + 0.10 * texture(shape, patch.um, 0.35, rng) + 0.07 * texture(shape, patch.um, 1.4, rng)
    mottle += 0.25 * np.exp(-(((outline + 0.2) / 0.3) ** 2))
    if rng.random() < look.vacuoles:
        holes = granules(patch, rng.uniform(1.6, 2.6), rng.uniform(0.25, 0.45), rng)
        keep = texture(shape, patch.um, 2.2, rng) > 0.3
        mottle *= 1 - 0.8 * holes * keep
    return np.clip(mottle, 0, None)[..., None] * np.asarray(look.cytoplasm, np.float32)


def _add_granules(
    density: NDArray[np.float32], grains: Grains, patch: Patch, nucleus: Plane, rng: np.random.Generator
) -> None:
    """Lay granules over ``density`` in place: they add where thin, and hide the nucleus where they cover it."""
    shape = patch.x.shape
    amount = granules(patch, grains.spacing, grains.radius, rng)
    if grains.patchy:
        amount = amount * np.clip(1 + 2 * grains.patchy * texture(shape, patch.um, 1.6, rng), 0, 1.3)
    color = np.asarray(grains.color, np.float32)
    shade = 1 + 0.12 * texture(shape, patch.um, grains.spacing, rng)
    free = amount * (1 - nucleus)
    density += (free * shade)[..., None] * color
    if grains.over_nucleus:
        over = (amount * nucleus * grains.over_nucleus)[..., None]
        density += over * (1.12 * color - density)
