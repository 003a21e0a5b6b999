"""What the network is taught: heat maps and box sides drawn from boxes, and the loss against them.

Around the middle of every box lies a Gaussian as wide as the box (TTFNet, arXiv:1909.00700): 1 in the middle, the
answer that the heat map should give, and away from it the weight with which the four sides are learned.  A class that
the source did not box, and the neighborhood of boxes that are not to be trusted, are left out of the heat-map loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_bloodcells.core.localize.net import CLASSES, STRIDE

_HEAT_SIGMA = 0.54 / 6
_SIDES_SIGMA = 0.54 / 6 * 1.3
IGNORE = -1
"""Label offset: a box labeled ``IGNORE - c`` covers cells of class ``c`` that are neither asked for nor punished."""


@dataclass(frozen=True)
class Targets:
    """Targets of one batch, on the grid of the maps.

    Attributes
    ----------
    heat : (N, 3, h, w)
        0 to 1.
    known : (N, 3, h, w)
        Weight of the heat-map loss, 0 where nothing is known.
    sides : (N, 3, 4, h, w)
        Pixels from the grid point to the left, top, right and bottom of its box.
    weight : (N, 3, h, w)
        Weight of the box loss.
    """

    heat: Tensor
    known: Tensor
    sides: Tensor
    weight: Tensor


def draw_targets(
    boxes: NDArray[np.float32], labels: NDArray[np.intp], known: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.float32], ...]:
    """Targets of one square tile.

    Parameters
    ----------
    boxes : (N, 4) float32
        Pixels of the tile.
    labels : (N,) int
        Position in ``CLASSES``, or ``IGNORE - position``.
    known : (3,) bool
        Whether the source boxed each class.
    side : int
        Side of the tile in pixels.

    Returns
    -------
    heat, known, sides, weight
        As in ``Targets``, without the batch.
    """
    n = side // STRIDE
    heat = np.zeros((len(CLASSES), n, n), np.float32)
    trust = np.repeat(known.astype(np.float32), n * n).reshape(len(CLASSES), n, n)
    sides = np.ones((len(CLASSES), 4, n, n), np.float32)
    weight = np.zeros((len(CLASSES), n, n), np.float32)
    grid = (np.arange(n, dtype=np.float32) + 0.5) * STRIDE
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    for index in order:
        x0, y0, x1, y1 = boxes[index]
        label = int(labels[index])
        if label <= IGNORE:
            c = IGNORE - label
            columns = (grid > x0 - STRIDE / 2) & (grid < x1 + STRIDE / 2)
            rows = (grid > y0 - STRIDE / 2) & (grid < y1 + STRIDE / 2)
            trust[c][np.ix_(rows, columns)] = 0
            continue
        c = label
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        column, row = (min(max(int(v / STRIDE), 0), n - 1) for v in (x, y))
        reach_x, reach_y = (max(v * _SIDES_SIGMA, 0.55 * STRIDE) for v in (x1 - x0, y1 - y0))
        bell_x = np.exp(-((grid - x) ** 2) / (2 * reach_x**2))
        bell_y = np.exp(-((grid - y) ** 2) / (2 * reach_y**2))
        bell = bell_y[:, None] * bell_x
        bell[bell < 0.05] = 0
        bell[row, column] = max(bell[row, column], 0.5)
        inside = bell > 0
        weight[c][inside] = bell[inside] / bell.sum()
        rows, columns = np.nonzero(inside)
        sides[c][:, rows, columns] = np.maximum(
            np.stack([grid[columns] - x0, grid[rows] - y0, x1 - grid[columns], y1 - grid[rows]]), 0.25
        )
        sigma_x, sigma_y = (max(v * _HEAT_SIGMA, 0.4 * STRIDE) for v in (x1 - x0, y1 - y0))
        near = np.exp(-((grid - grid[column]) ** 2) / (2 * sigma_x**2))
        spot = np.exp(-((grid - grid[row]) ** 2) / (2 * sigma_y**2))[:, None] * near
        np.maximum(heat[c], spot, out=heat[c])
        trust[c][row, column] = known[c]
    return heat, trust, sides, weight


def heat_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Focal loss of the heat maps (CornerNet, arXiv:1808.01244, equation 1), for each class per cell of it."""
    logits = logits.float()
    sure = F.logsigmoid(logits)
    unsure = F.logsigmoid(-logits)
    p = logits.sigmoid()
    middle = (targets.heat > 0.999).float()
    hit = -((1 - p) ** 2) * sure * middle
    miss = -(p**2) * unsure * (1 - targets.heat) ** 4 * (1 - middle)
    loss = ((hit + miss) * targets.known).sum((0, 2, 3))
    cells = (middle * targets.known).sum((0, 2, 3))
    return (loss / cells.clamp(min=4.0)).sum()


def box_loss(sides: Tensor, targets: Targets) -> Tensor:
    """Generalized IoU loss of the boxes (arXiv:1902.09630), weighted by ``targets.weight``, mean over the cells."""
    n, _, h, w = sides.shape
    found = sides.float().view(n, len(CLASSES), 4, h, w).clamp(-4, 7).exp()
    true = targets.sides
    low, high = torch.minimum(found, true), torch.maximum(found, true)
    area = (found[:, :, 0] + found[:, :, 2]) * (found[:, :, 1] + found[:, :, 3])
    area_true = (true[:, :, 0] + true[:, :, 2]) * (true[:, :, 1] + true[:, :, 3])
    overlap = (low[:, :, 0] + low[:, :, 2]) * (low[:, :, 1] + low[:, :, 3])
    hull = (high[:, :, 0] + high[:, :, 2]) * (high[:, :, 1] + high[:, :, 3])
    union = area + area_true - overlap
    loss = 1 - overlap / union + (hull - union) / hull
    per_class = (loss * targets.weight).sum((0, 2, 3)) / targets.weight.sum((0, 2, 3)).clamp(min=1.0)
    return per_class.sum()
