"""From crops to what a network reads: resized to its input and normalized; one function for training and counting."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_input(
    images: Tensor, size: tuple[int, int], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Bring images to the input of a network.

    Parameters
    ----------
    images : (N, 3, H, W) uint8, or float from 0 to 1
    size : (height, width)
        Input of the network in pixels; images of another size are resized (bilinear, antialiased).
    mean, std : three floats each
        Per channel, for images from 0 to 1.

    Returns
    -------
    (N, 3, height, width) float32 tensor, channels last in memory.

    Examples
    --------
    >>> white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    >>> to_input(white, (4, 4), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).unique().tolist()
    [2.0]
    """
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    middle = torch.tensor(mean, device=images.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, device=images.device).view(1, 3, 1, 1)
    return ((images - middle) / spread).contiguous(memory_format=torch.channels_last)
