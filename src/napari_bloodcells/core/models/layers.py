"""Layers of the published networks, which were written in Keras: its convolution block, its initial weights, its norms.

Where torch's defaults differ from Keras's (Glorot weights and zero biases there), Keras's are taken: without them six
convolutions without a norm hardly start to learn.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd

from torch import nn

from napari_bloodcells.core.errors import UsageError


def norm_layer(kind: str, channels: int) -> nn.Module:
    """A normalization over (N, channels, H, W).

    Parameters
    ----------
    kind : str
        ``"batch"`` as published; ``"group"`` for at most eight groups, which keeps no statistics of the training
        microscope and so holds better on another one; ``"none"``.
    channels : int

    Raises
    ------
    UsageError
        For another kind.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=1e-3)
    if kind == "group":
        return nn.GroupNorm(gcd(8, channels), channels, eps=1e-3)
    if kind == "none":
        return nn.Identity()
    raise UsageError(f"{kind!r} is no normalization; choose batch, group or none.")


def glorot_(module: nn.Module) -> None:
    """Start every convolution and dense layer of ``module`` as Keras does: Glorot uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def dense(*widths: int) -> list[nn.Module]:
    """Fully connected layers ``widths[0] -> widths[1] -> ...``, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers
