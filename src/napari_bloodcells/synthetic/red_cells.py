"""Red cells and platelets.

A red cell's thickness is the biconcave disc of Evans and Fung (Microvascular Research 4, 1972, 335): its optical
density follows the thickness, which gives the pale middle.  Optical densities are medians of analyzer photographs
of Giemsa-stained smears (ground divided out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.synthetic.shapes import Patch, Plane, blob, cover, granules, texture

RBC_RADIUS = 3.75
RBC_DENSITY = np.array([0.094, 0.150, 0.105], np.float32)
PLATELET_DENSITY = np.array([0.10, 0.15, 0.045], np.float32)
PLATELET_GRANULES = np.array([0.28, 0.46, 0.10], np.float32)


def red_cell(patch: Patch, rng: np.random.Generator) -> tuple[NDArray[np.float32], Plane]:
    """Density (H, W, 3) and coverage (H, W) of one red cell: mostly round, some oval, a few crenated or flat."""
    radius = RBC_RADIUS * rng.normal(1, 0.05)
    waves = np.abs(rng.normal(0, [0.035, 0.016, 0.008, 0.006]))
    if rng.random() < 0.04:
        waves = np.concatenate([waves, np.zeros(6), rng.uniform(0.02, 0.035, 2)])
    distance = blob(patch, radius, waves, rng.uniform(0, 2 * np.pi, len(waves)))
    coverage = cover(distance, patch.um, 0.12)
    r = np.clip(1 + distance / radius, 0, 1)
    thickness = np.sqrt(1 - 0.97 * r * r) * (0.207161 + 2.002558 * r**2 - 1.122762 * r**4)
    thickness /= 0.66
    flat = np.float32(np.clip(rng.normal(0.2, 0.25), 0.0, 1.0))
    rim = 0.10 * np.exp(-(((distance + 0.25) / 0.22) ** 2))
    profile = coverage * (flat * 0.9 + (1 - flat) * (0.04 + 1.05 * thickness) + rim)
    profile *= np.float32(rng.normal(1, 0.09))
    return (profile[..., None] * RBC_DENSITY).astype(np.float32), coverage


def platelet(patch: Patch, rng: np.random.Generator) -> tuple[NDArray[np.float32], Plane]:
    """Density (H, W, 3) and coverage (H, W) of one platelet: pale, with purple granules in its middle."""
    radius = rng.uniform(0.9, 1.6)
    waves = np.abs(rng.normal(0, [0.12, 0.08, 0.05, 0.04]))
    distance = blob(patch, radius, waves, rng.uniform(0, 2 * np.pi, 4))
    coverage = cover(distance, patch.um, 0.15)
    middle = np.clip(-distance / radius * 1.8, 0, 1)
    grains = granules(patch, 0.45, 0.17, rng) * middle
    mottle = 1 + 0.15 * texture(coverage.shape, patch.um, 0.3, rng)
    density = (coverage * mottle)[..., None] * PLATELET_DENSITY + (coverage * grains)[..., None] * PLATELET_GRANULES
    return density.astype(np.float32), coverage
