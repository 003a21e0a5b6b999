"""Shape of a cell and its nucleus, and a last layer that listens to it.

What a haematologist looks at first, and what no stain changes: how large the cell is, how much of it the nucleus fills,
whether that is round, bent or in lobes, how dark the cytoplasm is beside it.  A network that learned on few microscopes
knows these (they can be read off its features), but its last layer trusts color and texture more, which change with the
microscope.  ``listen_to_shape`` reads the measures off the features by one linear map, tells the classes by them with
another, and takes the mean of these logits and the last layer's own: a logarithmic pool of two experts (Genest and
Zidek, Statistical Science 1986).  The network keeps its form, and nothing is measured when cells are counted.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops
from torch import Tensor

from napari_bloodcells.core.crops import WHITE_LEVEL
from napari_bloodcells.core.featurespace import feature_scale
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.training.headfit import Head, fit_head
from napari_bloodcells.core.training.traindata import Cells

Floats: TypeAlias = NDArray[np.float64]

MEASURES = (
    "cell size",
    "nucleus to box",
    "nucleus to cell",
    "nucleus size",
    "solidity",
    "roughness",
    "lobes",
    "off the middle",
    "eccentricity",
    "thickness",
    "cytoplasm's darkness",
    "unevenness",
    "holes",
)
"""What ``measure_shapes`` gives, column by column."""
_DARKEST = 0.02
_GROUND = 0.05
"""Share of a crop that is ground at least: the density that it stays below is taken off."""
_NUCLEUS = 0.08
"""The darkest part of a cell, which is nucleus in every type: 1 is how dark it is."""
_LEAST = 0.2
"""Less dark than this, against the nucleus, is ground."""
_MOST_LOBES = 4
_RIDGE = 0.02
_STRENGTH = 0.6
"""Of the prior of the layer that tells classes by their measures (``fit_head``)."""
TASK = "measuring shapes"
_PART = 256
_CLIP = 3.0
"""Standard deviations beyond which a measure is no more than an outlier."""


def shape_head(model: Model, cells: Cells, views: Tensor, share: float, progress: Progress | None = None) -> Head:
    """The last layer of a trained model, listening to shape: measured on its training cells, read off their features.

    Parameters
    ----------
    model : Model
    cells : Cells
        N of its training (``even_cells``).
    views : (N, V, D) float
        Their features (``stained_views``): shape must be read under every stain and camera.
    share : float
        See ``listen_to_shape``.
    progress : Progress, optional
        Is told of the cells that are measured, and can cancel.
    """
    progress, spec = progress or Silent(), model.info.crop
    progress.start(TASK, len(cells))
    found = []
    parts = (torch.split(part, _PART) for part in (cells.crops, cells.extent.double()))
    for crops, extent in zip(*parts, strict=True):
        check_cancelled(progress)
        found.append(measure_shapes(crops.numpy(), extent.numpy(), spec.size / spec.side_um))
        progress.advance(TASK, len(crops))
    shapes = np.concatenate(found)
    return listen_to_shape(Head.of(model.module.head), views.double().numpy(), shapes, cells.labels.numpy(), share)


def measure_shapes(crops: NDArray[np.uint8], extent: NDArray[np.float64], pixels_per_um: float) -> Floats:
    """Measure cells in the middle of their crops.

    Parameters
    ----------
    crops : (N, 3, S, S) uint8
        RGB, ground at 235.
    extent : (N,) float
        Longest side of each cell's box in pixels of the crop.
    pixels_per_um : float
        Of the crops.

    Returns
    -------
    (N, 13) float
        ``MEASURES``: logarithms of the box's longest side (um), of the nucleus's share of the box's disk and of the
        cell, and of its size (root of the area, um); its area by that of its hull; logarithm of its squared perimeter
        by that of a disk; parts (at most 4); distance of its middle from that of the box by half a side; eccentricity;
        logarithm of its largest inner radius by that of a disk; logarithm of the cytoplasm's density by the nucleus's;
        spread of the density inside it; area of its holes.  NaN in every column where there is no nucleus to be seen.

    Examples
    --------
    >>> y, x = np.mgrid[:80, :80] - 39.5
    >>> crop = np.full((3, 80, 80), 235, np.uint8)
    >>> crop[:, np.hypot(x, y) < 24] = 180
    >>> crop[:, np.hypot(x, y) < 12] = 80
    >>> found = dict(zip(MEASURES, measure_shapes(crop[None], np.array([48.0]), 4.0)[0], strict=True))
    >>> round(float(np.exp(found["cell size"])), 1), round(float(np.exp(found["nucleus to cell"])), 1)
    (12.0, 0.3)
    >>> float(found["lobes"]), bool(found["solidity"] > 0.9)
    (1.0, True)
    """
    side = crops.shape[-1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    away = np.hypot(x, y)
    found = np.full((len(crops), len(MEASURES)), np.nan)
    for row, crop, longest in zip(found, crops, extent.tolist(), strict=True):
        row[:] = _measure(crop, longest, away, pixels_per_um)
    return found


def _measure(crop: NDArray[np.uint8], longest: float, away: Floats, pixels_per_um: float) -> list[float] | float:
    side = crop.shape[-1]
    radius = min(longest / 2, 0.48 * side)
    # Red and green: both dyes of the nucleus absorb there, and blue is the noisiest channel of a camera.
    share = np.clip(crop[:2].astype(float) / WHITE_LEVEL, _DARKEST, 1.0)
    density = ndimage.uniform_filter(-np.log(share).mean(0), 3)
    density = np.clip(density - np.percentile(density[::2, ::2], 100 * _GROUND), 0, None)
    disk = away <= 1.03 * radius
    dark = np.sort(density[disk])[-max(8, round(_NUCLEUS * disk.sum())) :].mean()
    density = np.clip(density / max(float(dark), _DARKEST), 0, 1.5)
    within = disk & (density > _LEAST)
    if not within.any():
        return np.nan
    limit, below = _two_means(density, within)
    nucleus = _largest_parts(ndimage.binary_opening(within & (density > limit)))
    area = int(nucleus.sum())
    if area < 9:
        return np.nan
    cell = ndimage.binary_fill_holes(within)
    cytoplasm = cell & ~ndimage.binary_dilation(nucleus)
    inside = ndimage.binary_erosion(nucleus, iterations=2)
    region = regionprops(nucleus.astype(np.uint8))[0]  # type: ignore[no-untyped-call]
    middle = np.array(region.centroid) - (side - 1) / 2
    lobes = _parts(nucleus)[1]
    thickness = ndimage.distance_transform_edt(nucleus).max() / np.sqrt(area / np.pi)
    paleness = float(np.median(density[cytoplasm])) if cytoplasm.sum() > 10 else below
    return [
        np.log(longest / pixels_per_um),
        np.log(area / (np.pi * radius**2) + 0.02),
        np.log(area / max(cell.sum(), area)),
        0.5 * np.log(area) - np.log(pixels_per_um),
        region.solidity,
        np.log(max(region.perimeter, 1.0) ** 2 / (4 * np.pi * area)),
        float(min(lobes, _MOST_LOBES)),
        np.hypot(*middle) / radius,
        region.eccentricity,
        np.log(thickness),
        np.log(max(paleness, 0.05)),
        density[inside if inside.sum() > 10 else nucleus].std(),
        ndimage.binary_fill_holes(nucleus).sum() / area - 1,
    ]


def _two_means(density: Floats, within: NDArray[np.bool_]) -> tuple[float, float]:
    """Halfway between the means of the darker and the paler pixels (two-means), and the mean of the paler ones."""
    values = density[within]
    limit = below = float(values.mean())
    for _ in range(10):
        paler = values <= limit
        if paler.all():
            break
        below = float(values[paler].mean()) if paler.any() else limit
        limit = (float(values[~paler].mean()) + below) / 2
    return limit, below


def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number of its part at each pixel, corners joined, and how many there are."""
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    return numbers, int(count)


def _largest_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without parts of fewer than 12 pixels or a sixteenth of the largest one's."""
    parts, _ = _parts(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    kept: NDArray[np.bool_] = np.isin(parts, np.flatnonzero(areas >= max(12, areas.max() / 16)))
    return kept


def listen_to_shape(head: Head, views: Floats, shapes: Floats, labels: NDArray[np.int64], share: float = 1.0) -> Head:
    """The mean of a last layer and of what the shape, read off the same features, says of the class.

    A mean and not a sum, so that the logits keep their spread: ``calibrate`` learns from there, and from a layer twice
    as sure of itself it learned less (100 cells of ``jtsc``: 90 instead of 92 %).

    Parameters
    ----------
    head : Head
        Of C classes over D features.
    views : (N, V, D) float
        Features of cells in V views (other stains, other cameras), the classes and sources about alike in number.
    shapes : (N, K) float
        Of ``measure_shapes``; cells with NaN are left out.
    labels : (N,) int
    share : float
        Weight of the shape in the mean, beside a weight of 1.

    Returns
    -------
    Head
        ``head`` itself where shapes of fewer than two classes could be measured.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 200)
    >>> shapes = labels[:, None] + rng.normal(0, 0.1, (200, 1))                        # tells the class
    >>> views = np.concatenate([shapes, rng.normal(0, 1, (200, 1))], 1)[:, None]      # the second feature does not
    >>> heard = listen_to_shape(Head(np.zeros((2, 2)), np.zeros(2)), views, shapes, labels)
    >>> float((heard.logits(views[:, 0]).argmax(1) == labels).mean()) > 0.95
    True
    """
    measured = np.isfinite(shapes).all(1)
    if len(np.unique(labels[measured])) < 2:
        return head
    views, shapes, labels = views[measured], shapes[measured], labels[measured]
    middle, spread = shapes.mean(0), np.maximum(shapes.std(0), 1e-6)
    shapes = np.clip((shapes - middle) / spread, -_CLIP, _CLIP)
    flat = views.reshape(-1, views.shape[2])
    center, scale = flat.mean(0), feature_scale(torch.from_numpy(flat)).numpy()
    x = (flat - center) / scale
    target = np.repeat(shapes, views.shape[1], axis=0)
    read = _ridge(x, target)
    n_classes = len(head.bias)
    empty = Head(np.zeros((n_classes, shapes.shape[1])), np.zeros(n_classes))
    told = fit_head(shapes[:, None], labels, empty, _STRENGTH)
    by_shape = (told.weight @ read.T) / scale
    weight = (head.weight + share * by_shape) / (1 + share)
    return Head(weight, (head.bias + share * (told.bias - by_shape @ center)) / (1 + share))


def _ridge(x: Floats, target: Floats) -> Floats:
    """The linear map (D, K) from (M, D) to (M, K), both with a mean of 0, by ridge regression: in its dual form where
    there are more features than cells, as of a VGG16."""
    held = _RIDGE * len(x)
    if x.shape[1] > len(x):
        return np.asarray(x.T @ np.linalg.solve(x @ x.T + held * np.eye(len(x)), target), np.float64)
    return np.asarray(np.linalg.solve(x.T @ x + held * np.eye(x.shape[1]), x.T @ target), np.float64)
