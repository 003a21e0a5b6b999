"""Other lamps, stains and cameras: a batch of tiles as another laboratory would have photographed it.

Stains add up in optical density, so stain changes are made there (each channel's strength, mixing between channels);
lamp and camera changes follow in intensity (uneven light, tint of the ground, gamma), then blur, loss of resolution
and noise.  All on the whole batch at once, each tile with its own numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def change_looks(tiles: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Change stain, lamp and camera of a batch.

    Parameters
    ----------
    tiles : (N, 3, H, W) float, 0 to 1
        Divided by their white.
    generator
        Source of all chance.
    strength : float
        0 leaves the batch as it is, 1 is the usual range.

    Returns
    -------
    (N, 3, H, W) float, 0 to 1.1
    """
    n = len(tiles)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * strength

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def some(p: float) -> Tensor:
        return (uniform(n, 1, 1, 1) < p * min(strength, 1.0)).float()

    density = -torch.log(tiles.clamp(0.02, 1.1))
    mixing = torch.eye(3) + 0.12 * normal(n, 3, 3)
    gain = torch.exp(0.22 * normal(n, 1, 1) + 0.22 * normal(n, 3, 1))
    mixing = torch.where(uniform(n, 1, 1) < 0.12 * strength, _swapped(n, uniform) @ mixing, mixing)
    density = torch.einsum("nij,njhw->nihw", mixing * gain, density)
    density = density.clamp(min=-0.1)
    light = 0.10 * normal(n, 3, 1, 1) * some(0.7)
    size = tiles.shape[2:]
    uneven = F.interpolate(normal(n, 1, 3, 3), size=size, mode="bilinear", align_corners=True) * 0.16 * some(0.5)
    tint = F.interpolate(normal(n, 3, 3, 3), size=size, mode="bilinear", align_corners=True) * 0.07 * some(0.4)
    veil = uniform(n, 1, 1, 1) * 0.25 * some(0.25)
    picture = torch.exp(-density) * (1 - veil) + 0.9 * veil
    picture = picture * torch.exp(light + uneven + tint)
    picture = picture.clamp(0.004, 1.3) ** torch.exp(0.18 * normal(n, 1, 1, 1))
    picture = _blurred(picture, uniform, strength)
    coarse = some(0.15)
    if coarse.any():
        half = F.interpolate(F.avg_pool2d(picture, 2), size=size, mode="bilinear", align_corners=False)
        picture = torch.where(coarse > 0, half, picture)
    noise = torch.randn(picture.shape, generator=generator) * (0.03 * uniform(n, 1, 1, 1) * some(0.6))
    return (picture + noise).clamp(0, 1.1)


def _swapped(n: int, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Mixing matrices that pull the channels toward their mean: stains that look grey or of another color."""
    pull = uniform(n, 1, 1) * 0.8
    return torch.eye(3) * (1 - pull) + torch.full((3, 3), 1 / 3) * pull


def _blurred(picture: Tensor, uniform, strength: float) -> Tensor:  # type: ignore[no-untyped-def]
    """A Gaussian blur of 0.3 to 1.6 pixels for three tenths of the tiles, a sharpening for one tenth."""
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
    soft = sum(kernel[:, i] * padded[..., i : i + width] for i in range(7))
    padded = F.pad(soft, (0, 0, 3, 3), mode="replicate")
    soft = sum(kernel[:, i] * padded[..., i : i + height, :] for i in range(7))
    sharper = (kind[chosen] > 0.5)[:, None, None, None]
    result = picture.clone()
    result[chosen] = torch.where(sharper, part + 0.8 * (part - soft), soft)
    return result
