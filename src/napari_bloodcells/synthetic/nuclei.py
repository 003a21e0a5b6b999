"""The nuclei: one function for each shape that a reader knows cells by.

Each takes warped coordinates ``x, y`` (H, W) in um, the cell's radius in um and a random generator, and returns the
signed distance (H, W) in um, negative inside of the nucleus.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_bloodcells.synthetic.shapes import Plane, bridge, ellipse, merge

Nucleus = Callable[[Plane, Plane, float, np.random.Generator], Plane]


def segmented(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Three to five lobes on an arc, joined by threads (one in ten is a band: a horseshoe without threads)."""
    n = int(rng.choice([3, 4, 5], p=[0.45, 0.4, 0.15]))
    band = rng.random() < 0.1
    arc = radius * rng.uniform(0.42, 0.52)
    sweep = rng.uniform(1.2, 1.6) * np.pi if n > 3 or band else rng.uniform(0.9, 1.25) * np.pi
    n = 6 if band else n
    angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, sweep, n) + rng.normal(0, 0.06, n)
    shift = rng.normal(0, 0.07 * radius, 2)
    reach = arc * rng.normal(1, 0.0 if band else 0.1, n)
    spots = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] + shift
    half = radius * (rng.uniform(0.23, 0.26, n) if band else rng.uniform(0.22, 0.31, n) * (3.8 / n) ** 0.4)
    long = half * (1.3 if band else rng.uniform(1.15, 1.75, n))
    tilt = angles + np.pi / 2 + rng.normal(0, 0.0 if band else 0.45, n)
    shape = ellipse(x, y, np.array([*spots[0], long[0], half[0], tilt[0]]))
    for i in range(1, n):
        lobe = ellipse(x, y, np.array([*spots[i], np.broadcast_to(long, n)[i], half[i], tilt[i]]))
        thread = bridge(x, y, spots[i - 1], spots[i], radius * (0.16 if band else rng.uniform(0.03, 0.10)))
        shape = merge(merge(shape, lobe, 0.12), thread, 0.3)
    return shape


def bilobed(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Two plump lobes on either side, joined by a thread, as spectacles."""
    axis, apart = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.46, 0.54)
    open_ = rng.uniform(0.55, 0.85) * np.pi
    angles = np.array([axis, axis + open_])
    spots = np.stack([np.cos(angles), np.sin(angles)], 1) * apart
    half = radius * rng.uniform(0.34, 0.41, 2)
    long = half * rng.uniform(1.2, 1.55, 2)
    tilt = angles + np.pi / 2 + rng.normal(0, 0.25, 2)
    lobes = [ellipse(x, y, np.array([*spots[i], long[i], half[i], tilt[i]])) for i in range(2)]
    thread = bridge(x, y, spots[0], spots[1], rng.uniform(0.04, 0.12) * radius)
    return merge(merge(lobes[0], lobes[1], 0.2), thread, 0.4)


def round_(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Round, nearly filling the cell, now and then with a slight dent."""
    half = radius * rng.uniform(0.80, 0.88)
    off = rng.normal(0, 0.05 * radius, 2)
    shape = ellipse(x, y, np.array([*off, half, half * rng.uniform(0.9, 1.0), rng.uniform(0, np.pi)]))
    if rng.random() < 0.35:
        a = rng.uniform(0, 2 * np.pi)
        dent = ellipse(x, y, np.array([1.15 * half * np.cos(a), 1.15 * half * np.sin(a), 0.3 * half, 0.25 * half, a]))
        shape = -merge(-shape, dent, 0.4)
    return shape


def folded(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """A kidney or a folded horseshoe with broad, blunt ends, and a crease."""
    axis = rng.uniform(0, 2 * np.pi)
    off = radius * rng.uniform(0.0, 0.14) * np.array([np.cos(axis + np.pi), np.sin(axis + np.pi)])
    sweep = rng.uniform(0.75, 1.25) * np.pi
    angles = axis + np.pi + np.linspace(-sweep / 2, sweep / 2, 5)
    spots = np.stack([np.cos(angles), np.sin(angles)], 1) * radius * rng.uniform(0.32, 0.40) + off
    half = radius * rng.uniform(0.32, 0.39) * rng.normal(1, 0.10, 5)
    shape = ellipse(x, y, np.array([*spots[0], half[0], half[0], 0.0]))
    for i in range(1, 5):
        shape = merge(shape, ellipse(x, y, np.array([*spots[i], 1.1 * half[i], half[i], angles[i]])), 0.7)
    return shape


def clover(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Two or three broad lobes without threads: the nucleus that a basophil's granules hide."""
    n = int(rng.integers(2, 4))
    angles = rng.uniform(0, 2 * np.pi) + np.arange(n) * 2 * np.pi / n
    spots = np.stack([np.cos(angles), np.sin(angles)], 1) * radius * 0.32
    half = radius * rng.uniform(0.44, 0.52, n)
    shape = ellipse(x, y, np.array([*spots[0], half[0], 0.9 * half[0], angles[0]]))
    for i in range(1, n):
        shape = merge(shape, ellipse(x, y, np.array([*spots[i], half[i], 0.9 * half[i], angles[i]])), 0.6)
    return shape


def dense(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Small, round, sharp: an erythroblast's."""
    half = radius * rng.uniform(0.55, 0.68)
    off = rng.normal(0, 0.1 * radius, 2)
    return ellipse(x, y, np.array([*off, half, half * rng.uniform(0.93, 1.0), rng.uniform(0, np.pi)]))


def oval(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Large, oval, to one side, sometimes dented: promyelocyte to metamyelocyte."""
    axis = rng.uniform(0, 2 * np.pi)
    off = radius * rng.uniform(0.2, 0.3) * np.array([np.cos(axis), np.sin(axis)])
    half = radius * rng.uniform(0.6, 0.7)
    shape = ellipse(x, y, np.array([*off, half * 0.86, half, axis]))
    if rng.random() < 0.5:
        spot = off - np.array([np.cos(axis), np.sin(axis)]) * half * 1.05
        dent = ellipse(x, y, np.array([*spot, 0.4 * half, 0.5 * half, axis]))
        shape = -merge(-shape, dent, 0.6)
    return shape


def smudge(x: Plane, y: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """A burst nucleus: no outline of a cell, streaks to one side."""
    axis = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(axis), np.sin(axis)])
    shape = ellipse(x, y, np.array([0, 0, 0.75 * radius, 0.6 * radius, axis]))
    for _ in range(6):
        start = rng.normal(0, 0.25 * radius, 2)
        end = start + along * radius * rng.uniform(0.3, 0.8) + rng.normal(0, 0.1 * radius, 2)
        shape = merge(shape, bridge(x, y, start, end, radius * rng.uniform(0.06, 0.14)), 0.5)
    return shape


NUCLEI: dict[str, Nucleus] = {
    "segmented": segmented,
    "bilobed": bilobed,
    "round": round_,
    "folded": folded,
    "clover": clover,
    "dense": dense,
    "oval": oval,
    "smudge": smudge,
}
