"""What another microscope might have made of the same cell: stain, camera and geometry of a batch of crops, at random.

Packed crops (uint8, larger than the network's, white ground at 235) go in, float crops from 0 to 1 come out.  All is
drawn per cell and computed for the batch in few tensor operations, as on two cores the augmentation must not take
longer than a third of the training step (``python -m benchmarks.accuracy.steptime`` prints both).  Stain is changed
in optical density, where a dye's amount is linear (Beer and Lambert); the camera in intensity.  The ground around the
cell is swapped with that of another cell of the batch or emptied, as in several sources class and slide go together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from napari_bloodcells.core.crops import WHITE_LEVEL

_WHITE = WHITE_LEVEL / 255
_DARKEST = 0.02


@dataclass(frozen=True)
class AugmentSettings:
    """Strengths of the augmentation.

    Attributes
    ----------
    size : int
        Side in pixels of what comes out; the packed crops keep their pixel size (times the zoom).
    zoom : float
        Crops are zoomed by ``exp(U(-zoom, zoom))``.
    to_box : float
        Share of cells that are brought to one size of their box instead, as happens where a field's scale is unknown.
    stain : float
        Spread of the logarithm of a stain's strength; the mixing of channels and gamma scale with it.
    ground : float
        Share of cells whose ground is swapped, emptied or tinted.
    camera : float
        Strength of white balance, haze, uneven light, blur, noise and compression; 0 for none.
    """

    size: int = 80
    zoom: float = 0.25
    to_box: float = 0.3
    stain: float = 0.35
    ground: float = 0.45
    camera: float = 1.0


def augment(crops: Tensor, extent: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """Change a batch of packed crops at random.

    Parameters
    ----------
    crops : (N, 3, P, P) uint8
        Packed crops, RGB, ground at 235.
    extent : (N,) float
        Longest side of each cell's box in pixels of the packed crop.
    settings : AugmentSettings
    generator : torch.Generator
        All randomness comes from it.

    Returns
    -------
    (N, 3, size, size) float32, 0 to 1

    Examples
    --------
    >>> crops = torch.full((2, 3, 120, 120), 235, dtype=torch.uint8)
    >>> out = augment(crops, torch.full((2,), 56.0), AugmentSettings(), torch.Generator().manual_seed(0))
    >>> out.shape, bool(out.min() >= 0), bool(out.max() <= 1)
    (torch.Size([2, 3, 80, 80]), True, True)
    """
    draw = _Draw(generator, len(crops), crops.device)
    images, radius = _geometry(crops, extent, settings, draw)
    density = torch.log(images.clamp_(_DARKEST, 1.0).div_(_WHITE)).neg_()
    inside = _disk(radius, settings.size, draw)
    density = _stain(density, inside, settings.stain, draw)
    density = _ground(density, inside, settings.ground, draw)
    images = density.neg_().exp_().mul_(_WHITE)
    return _camera(images, radius, settings.camera, draw).clamp_(0, 1)


class _Draw:
    """Random numbers of shape (N, channels, 1, 1), one row a cell."""

    def __init__(self, generator: Generator, n: int, device: torch.device) -> None:
        self.generator, self.n, self.device = generator, n, device

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand((self.n, channels, 1, 1), generator=self.generator)
        return (low + (high - low) * drawn).to(self.device)

    def normal(self, spread: float, channels: int = 1) -> Tensor:
        return (torch.randn((self.n, channels, 1, 1), generator=self.generator) * spread).to(self.device)

    def chance(self, share: float) -> Tensor:
        """(N, 1, 1, 1) of 0 and 1."""
        return (self.uniform(0, 1) < share).float()

    def some(self, share: float) -> Tensor:
        """Positions of about ``share`` of the cells, for operations that are too dear to do on all."""
        return torch.nonzero(torch.rand(self.n, generator=self.generator) < share)[:, 0].to(self.device)

    def others(self) -> Tensor:
        """A partner for every cell."""
        return torch.randperm(self.n, generator=self.generator).to(self.device)


def _geometry(crops: Tensor, extent: Tensor, settings: AugmentSettings, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Rotate, mirror, zoom, stretch and shift: (N, 3, size, size) float 0 to 1, and the cells' radius in its pixels."""
    n, packed, size = len(crops), crops.shape[-1], settings.size
    usual = packed * 14.0 / 30.0
    box = extent.to(crops.device).float().clamp(usual * 0.4, usual * 1.8)
    zoom = draw.uniform(-settings.zoom, settings.zoom).flatten().exp()
    to_box = draw.chance(settings.to_box).flatten()
    zoom = zoom * torch.where(to_box > 0, (usual / box).clamp(0.65, 1.6), torch.ones_like(box))
    angle = draw.uniform(0, 2 * math.pi).flatten()
    mirror = draw.chance(0.5).flatten() * 2 - 1
    stretch = draw.uniform(-0.08, 0.08).flatten().exp()
    shift = (draw.normal(0.04, 2).flatten(1) * (box / packed)[:, None] * 2).clamp(-0.2, 0.2)
    reach = size / packed / zoom
    cos, sin = angle.cos() * reach, angle.sin() * reach
    affine = torch.stack(
        [
            torch.stack([cos * mirror * stretch, -sin / stretch, shift[:, 0]], 1),
            torch.stack([sin * mirror * stretch, cos / stretch, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(affine, [n, 3, size, size], align_corners=False)
    images = crops.float().div_(255).sub_(_WHITE)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(_WHITE)
    return images, box * zoom / 2


def _disk(radius: Tensor, size: int, draw: _Draw) -> Tensor:
    """A soft disk about each cell, a little larger than its box at random: (N, 1, size, size), 1 inside."""
    axis = torch.arange(size, device=radius.device, dtype=torch.float32) - (size - 1) / 2
    distance = (axis[:, None].square() + axis[None, :].square()).sqrt()[None, None]
    edge = radius.view(-1, 1, 1, 1) * draw.uniform(1.0, 1.3)
    return ((edge - distance) / 3.0 + 0.5).clamp_(0, 1)


def _stain(density: Tensor, inside: Tensor, strength: float, draw: _Draw) -> Tensor:
    """Another stain: the statistics of another cell of the batch, other strengths, mixed channels, another curve."""
    if strength <= 0:
        return density
    weight = inside * (density.mean(1, keepdim=True) > 0.12)
    total = weight.sum((2, 3), keepdim=True).clamp_min(1.0)
    mean = (density * weight).sum((2, 3), keepdim=True) / total
    partner = draw.others()
    share = draw.chance(0.35) * draw.uniform(0.3, 1.0)
    ratio = ((mean[partner] + 0.05) / (mean + 0.05)).clamp(0.4, 2.5)
    gain = (share * ratio.log()).exp() * (draw.normal(strength) + draw.normal(strength * 0.4, 3)).clamp(-1.0, 1.0).exp()
    mixing = torch.eye(3, device=density.device) + draw.normal(strength * 0.25, 9).view(-1, 3, 3)
    mixing = mixing * gain.view(-1, 1, 3)
    n, _, height, width = density.shape
    density = torch.bmm(mixing, density.view(n, 3, -1)).view(n, 3, height, width)
    curve = draw.normal(strength * 0.4).clamp(-0.5, 0.5).exp()
    return density.clamp_min_(0).add_(1e-3).pow(curve)


def _ground(density: Tensor, inside: Tensor, share: float, draw: _Draw) -> Tensor:
    """Outside the disk: the ground of another cell, nothing, or a tint, for ``share`` of the cells."""
    if share <= 0:
        return density
    kind = draw.uniform(0, 1)
    partner = draw.others()
    # A partner's cell would lie in the middle too: turned inside out, its border comes to the disk's edge.
    other = torch.roll(density[partner], (density.shape[-1] // 2, density.shape[-1] // 2), (2, 3))
    empty = draw.uniform(0, 0.12, 3).expand_as(density) * draw.chance(0.5)
    ground = torch.where(kind < share * 0.5, other, empty)
    keep = torch.where(kind < share, inside, torch.ones_like(inside))
    return density * keep + ground * (1 - keep)


def _camera(images: Tensor, radius: Tensor, strength: float, draw: _Draw) -> Tensor:
    """Another camera: lens, light, white balance, noise and compression."""
    if strength <= 0:
        return images
    size = images.shape[-1]
    ramp = torch.linspace(-1, 1, size, device=images.device)
    slope = (draw.normal(0.04 * strength) * ramp.view(1, 1, 1, -1)) + (
        draw.normal(0.04 * strength) * ramp.view(1, 1, -1, 1)
    )
    balance = (draw.normal(0.05 * strength) + draw.normal(0.05 * strength, 3)).exp()
    haze = draw.uniform(0, 0.35 * strength) * draw.chance(0.35)
    images = images * ((1 - haze) * balance) * (1 + slope) + haze * 0.85
    luma = images.mean(1, keepdim=True)
    images = torch.lerp(images, luma, draw.chance(0.3) * draw.uniform(-0.5, 0.8) * strength)
    some = draw.some(0.5)
    images[some] = _lens(images[some], draw)
    some = draw.some(0.25)
    images[some] = _resample(images[some], draw)
    some = draw.some(0.2)
    images[some] = _compress(images[some].clamp(0, 1), draw)
    some = draw.some(0.08)
    images[some] = _outline(images[some], radius[some], draw)
    some = draw.some(0.5)
    noise = torch.randn(images[some].shape, generator=draw.generator).to(images.device)
    amount = (torch.rand((len(some), 1, 1, 1), generator=draw.generator) ** 2 * 0.06 * strength).to(images.device)
    images[some] = images[some] + noise * amount
    return images


def _lens(images: Tensor, draw: _Draw) -> Tensor:
    """Blur or sharpen, fine or coarse, each image by its own amount."""
    coarse = bool(torch.rand((), generator=draw.generator) < 0.5)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0] if coarse else [1.0, 2.0, 1.0], device=images.device)
    kernel = (taps / taps.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    pad = len(taps) // 2
    blurred = F.conv2d(F.pad(images, (pad, pad, pad, pad), mode="replicate"), kernel, groups=3)
    blurred = F.conv2d(blurred, kernel.transpose(2, 3), groups=3)
    amount = (torch.rand((len(images), 1, 1, 1), generator=draw.generator) * 2.2 - 1.0).clamp(-1, 1)
    return torch.lerp(images, blurred, amount.to(images.device))


def _resample(images: Tensor, draw: _Draw) -> Tensor:
    """To fewer pixels and back."""
    size = images.shape[-1]
    smaller = max(8, int(size * (0.35 + 0.5 * float(torch.rand((), generator=draw.generator)))))
    if images.device.type == "mps":  # which averages whole numbers of pixels alone
        rows = _shares(size, smaller).to(images.device)
        few = rows @ images @ rows.T
    else:
        few = F.interpolate(images, (smaller, smaller), mode="area")
    return F.interpolate(few, (size, size), mode="bilinear", align_corners=False)


def _shares(size: int, smaller: int) -> Tensor:
    """Rows (smaller, size) that average ``size`` pixels into fewer, as ``adaptive_avg_pool`` does."""
    rows = torch.zeros(smaller, size)
    for row in range(smaller):
        start, stop = row * size // smaller, -(-(row + 1) * size // smaller)
        rows[row, start:stop] = 1 / (stop - start)
    return rows


def _compress(images: Tensor, draw: _Draw) -> Tensor:
    """As JPEG does: 8 x 8 blocks, their cosine transform rounded, coarser for fine detail."""
    n, _, height, width = images.shape
    if height % 8 or width % 8:
        return images
    k = torch.arange(8, device=images.device, dtype=torch.float32)
    basis = torch.cos((2 * k[None, :] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2)
    blocks = images.reshape(n, 3, height // 8, 8, width // 8, 8).transpose(3, 4)
    step = (torch.rand((n, 1, 1, 1, 1, 1), generator=draw.generator) * 0.09 + 0.01).to(images.device)
    step = step * (1 + k[:, None] + k[None, :]) / 3
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(coefficients / step) * step) @ basis
    return blocks.transpose(3, 4).reshape(n, 3, height, width)


def _outline(images: Tensor, radius: Tensor, draw: _Draw) -> Tensor:
    """A thin drawn ring about the cell, as some published sets carry; it must not tell the class."""
    n, size = len(images), images.shape[-1]
    axis = torch.arange(size, device=images.device, dtype=torch.float32) - (size - 1) / 2
    distance = (axis[:, None].square() + axis[None, :].square()).sqrt()[None, None]
    edge = radius.view(-1, 1, 1, 1) * (0.85 + 0.35 * torch.rand((n, 1, 1, 1), generator=draw.generator)).to(
        images.device
    )
    ring = ((1.2 - (distance - edge).abs()) / 1.2).clamp(0, 1)
    color = torch.rand((n, 3, 1, 1), generator=draw.generator).to(images.device)
    color[:, 0] = color[:, 0] * 0.3 + 0.7
    return torch.lerp(images, color.expand_as(images), ring)
