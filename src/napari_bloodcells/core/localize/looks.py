"""Other lamps, stains and cameras: a batch of tiles as another laboratory would have photographed it.

Stains add up in optical density, so everything that multiplies light is done there: each channel's strength, mixing
between channels, uneven and tinted lamps, gamma.  A veil of stray light, blur, loss of resolution and noise follow in
intensity.  All on the whole batch at once, each tile with its own numbers; channels stand last throughout, as the
network wants them (0.5 ms a tile of 128 pixels on one core).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_LOG = np.log(np.clip(np.arange(256) / 255, 0.02, 1)).astype(np.float32)

Draw = Callable[..., Tensor]


def change_looks(tiles: NDArray[np.uint8], generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Change stain, lamp and camera of a batch.

    Parameters
    ----------
    tiles : (N, H, W, 3) uint8
        RGB, divided by their white.
    generator
        Source of all chance.
    strength : float
        0 leaves the batch as it is, 1 is the usual range.

    Returns
    -------
    (N, 3, H, W) float, 0 to 1, channels last in memory

    Examples
    --------
    >>> flat = np.full((1, 8, 8, 3), 204, np.uint8)
    >>> round(float(change_looks(flat, torch.Generator().manual_seed(0), 0).mean()), 3)
    0.8
    """
    n, height, width = tiles.shape[:3]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * strength

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def some(p: float, *shape: int) -> Tensor:
        return (uniform(n, *shape) < p * min(strength, 1.0)).float()

    log = torch.from_numpy(_LOG[tiles]).view(n, height * width, 3)
    gain = torch.exp(0.22 * normal(n, 1, 1) + 0.22 * normal(n, 1, 3))
    mixing = torch.eye(3) + 0.12 * normal(n, 3, 3)
    # Red cells as purple as nuclei: what absorbs green (all stains do) absorbs red as well.
    mixing[:, 1, 0] += 0.8 * strength * uniform(n) * some(0.3)
    pull = 0.8 * uniform(n, 1, 1) * some(0.12, 1, 1)
    mixing = (mixing * (1 - pull) + pull / 3) * gain
    # Dark red cells beside pale nuclei, and the reverse: a curve in density about 1, where usual nuclei lie.
    curve = torch.exp((0.3 * normal(n, 1, 1) + 0.1 * normal(n, 1, 3)) * some(0.5, 1, 1))
    log = torch.bmm(log, mixing).neg_().clamp_(min=1e-5).pow_(curve).neg_().view(n, height, width, 3)
    light = 0.10 * normal(n, 3, 1, 1) * some(0.7, 1, 1, 1)
    uneven = 0.16 * normal(n, 1, 3, 3) * some(0.5, 1, 1, 1) + 0.07 * normal(n, 3, 3, 3) * some(0.4, 1, 1, 1)
    lamp = (light + uneven).contiguous(memory_format=torch.channels_last)
    lamp = F.interpolate(lamp, size=(height, width), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    gamma = torch.exp(0.18 * normal(n, 1, 1, 1))
    picture = log.add_(lamp).clamp_(max=0.25).mul_(gamma).exp_()
    veil = 0.25 * uniform(n, 1, 1, 1) * some(0.25, 1, 1, 1)
    picture = picture.mul_(1 - veil).add_(0.9 * veil).permute(0, 3, 1, 2)
    picture = _blurred(picture, uniform, strength)
    coarse = torch.nonzero(some(0.15))[:, 0]
    if len(coarse):
        half = F.avg_pool2d(picture[coarse], 2)
        picture[coarse] = F.interpolate(half, size=(height, width), mode="bilinear", align_corners=False)
    noisy = torch.nonzero(some(0.5))[:, 0]
    if len(noisy):
        noise = torch.randn((height, width, 3, 4), generator=generator)
        kind = torch.randint(4, (len(noisy),), generator=generator)
        level = 0.03 * uniform(len(noisy), 1, 1, 1)
        picture[noisy] += noise[..., kind].permute(3, 2, 0, 1) * level
    return picture.clamp_(0, 1)


def _blurred(picture: Tensor, uniform: Draw, strength: float) -> Tensor:
    """A Gaussian blur of 0.3 to 1.6 pixels for three tenths of the tiles, a sharpening for one tenth; in place."""
    n, _, height, width = picture.shape
    sigma = 0.3 + 1.3 * uniform(n, 1) ** 2
    kind = uniform(n)
    chosen = torch.nonzero((kind < 0.3 * strength) | (kind > 1 - 0.1 * strength))[:, 0]
    if not len(chosen):
        return picture
    part = picture[chosen]
    x = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma[chosen] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, :, None, None, None]
    padded = F.pad(part, (3, 3, 0, 0), mode="replicate")
    soft = torch.zeros_like(part)
    for i in range(7):
        soft.addcmul_(kernel[:, i], padded[..., i : i + width])
    padded = F.pad(soft, (0, 0, 3, 3), mode="replicate")
    soft = torch.zeros_like(part)
    for i in range(7):
        soft.addcmul_(kernel[:, i], padded[..., i : i + height, :])
    sharper = (kind[chosen] > 0.5)[:, None, None, None]
    picture[chosen] = torch.where(sharper, part + 0.8 * (part - soft), soft)
    return picture
