"""The shapes that cells are made of, drawn on small patches in micrometers.

A ``Patch`` is a window of the field with coordinates that start in the middle of one cell.  Shapes are signed
distances in um (negative inside), which blend softly (``merge``) and become a coverage of 0 to 1 with an edge about
one pixel wide (``cover``).  Texture comes from a few smoothed noise tiles, made once for each magnification.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

Plane = NDArray[np.float32]
TILE = 384


@dataclass(frozen=True)
class Patch:
    """A window of the field around one cell.

    Attributes
    ----------
    row, column : int
        Where the window's first pixel lies in the field; may be negative at the border.
    x, y : (H, W) float32
        Distance of each pixel's center from the cell's center, in um.
    um : float
        Micrometers per pixel.
    """

    row: int
    column: int
    x: Plane
    y: Plane
    um: float

    @classmethod
    def around(cls, center: tuple[float, float], reach: float, um: float) -> Patch:
        """A window that reaches ``reach`` um to every side of ``center`` (x, y in um from the field's corner)."""
        column, row = (int(np.floor((c - reach) / um)) for c in center)
        n = int(np.ceil(2 * reach / um)) + 2
        x = ((column + np.arange(n) + 0.5) * um - center[0]).astype(np.float32)
        y = ((row + np.arange(n) + 0.5) * um - center[1]).astype(np.float32)
        return cls(row, column, np.broadcast_to(x, (n, n)), np.broadcast_to(y[:, None], (n, n)), um)

    def box(self, coverage: Plane, inside: float = 0.25) -> tuple[int, int, int, int]:
        """Pixel box (x_min, y_min, x_max, y_max) of where ``coverage`` exceeds ``inside``, in field coordinates."""
        mask = coverage > inside
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return self.column, self.row, self.column, self.row
        return (
            self.column + int(columns[0]),
            self.row + int(rows[0]),
            self.column + int(columns[-1]) + 1,
            self.row + int(rows[-1]) + 1,
        )


def cover(distance: Plane, um: float, softness: float = 0.1) -> Plane:
    """Coverage 0 to 1 of a shape with the given signed distance (um); its edge is ``softness`` um wide or a pixel."""
    edge = max(softness, um)
    result: Plane = np.clip(0.5 - distance / (2 * edge), 0, 1).astype(np.float32)
    return result


def blob(patch: Patch, radius: float, waves: NDArray[np.float64], phases: NDArray[np.float64]) -> Plane:
    """Signed distance to a round shape whose radius swings by ``waves[k]`` (fraction) ``k + 2`` times around.

    Parameters
    ----------
    radius : float
        Mean radius in um.
    waves, phases : (K,) float
        Amplitude (fraction of the radius) and phase (radians) of the waves 2, 3, ... K + 1.
    """
    rho = np.hypot(patch.x, patch.y)
    turn = ((patch.x + 1j * patch.y) / np.maximum(rho, 1e-6)).astype(np.complex64)
    power = turn.copy()
    outline = np.ones_like(rho)
    for wave, phase in zip(waves, phases, strict=True):
        power = power * turn
        outline += np.float32(wave * np.cos(phase)) * power.real + np.float32(wave * np.sin(phase)) * power.imag
    return (rho - np.float32(radius) * outline).astype(np.float32)


def ellipse(x: Plane, y: Plane, lobe: NDArray[np.float64]) -> Plane:
    """About the signed distance (um) to an ellipse ``(x, y, half axis a, half axis b, angle)``, all um and radians."""
    cx, cy, a, b, angle = (np.float32(v) for v in lobe)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    result: Plane = ((np.sqrt((u / a) ** 2 + (v / b) ** 2) - 1) * min(a, b)).astype(np.float32)
    return result


def bridge(x: Plane, y: Plane, start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> Plane:
    """Signed distance (um) to a thread of ``radius`` um from ``start`` to ``end`` (x, y in um)."""
    dx, dy = (end - start).astype(np.float32)
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / max(float(dx * dx + dy * dy), 1e-6), 0, 1)
    result: Plane = (np.hypot(x - start[0] - along * dx, y - start[1] - along * dy) - radius).astype(np.float32)
    return result


def merge(a: Plane, b: Plane, softness: float) -> Plane:
    """Union of two shapes with a fillet of ``softness`` um where they meet (polynomial smooth minimum)."""
    h = np.clip(0.5 + (b - a) / (2 * softness), 0, 1)
    result: Plane = (b + (a - b) * h - softness * h * (1 - h)).astype(np.float32)
    return result


@lru_cache(maxsize=64)
def _tile(pixels: float) -> Plane:
    """A periodic tile of noise, standard deviation 1, with grains of about ``pixels`` pixels."""
    noise = np.random.default_rng(round(pixels * 1000)).standard_normal((TILE, TILE)).astype(np.float32)
    smooth = gaussian_filter(noise, pixels, mode="wrap", truncate=3)
    result: Plane = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    return result


def texture(shape: tuple[int, int], um: float, grain: float, rng: np.random.Generator) -> Plane:
    """Noise (H, W), standard deviation 1, with grains of ``grain`` um, cut at a random place of a tile."""
    tile = _tile(round(min(max(grain / um, 0.3), TILE / 6), 2))
    top, left = rng.integers(0, TILE, 2)
    return tile[np.ix_((top + np.arange(shape[0])) % TILE, (left + np.arange(shape[1])) % TILE)]


def granules(patch: Patch, spacing: float, radius: float, rng: np.random.Generator) -> Plane:
    """Coverage 0 to 1 of grains of about ``radius`` um that lie about ``spacing`` um apart, all over the patch."""
    reach = patch.um * patch.x.shape[0]
    steps = np.arange(0, reach, spacing)
    points = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    points = points + rng.normal(0, 0.35 * spacing, points.shape)
    index = np.floor(points / patch.um).astype(int)
    index = index[((index >= 0) & (index < patch.x.shape[0])).all(1)]
    empty = np.ones(patch.x.shape, bool)
    empty[index[:, 1], index[:, 0]] = False
    if empty.all():
        return np.zeros(patch.x.shape, np.float32)
    away = distance_transform_edt(empty).astype(np.float32) * patch.um
    size = radius * (1 + 0.25 * texture(patch.x.shape, patch.um, 2 * spacing, rng))
    return cover((away - size).astype(np.float32), patch.um, 0.12)
