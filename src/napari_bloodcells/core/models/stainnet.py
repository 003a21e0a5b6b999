"""``stainnet``: the default classifier, a small residual network with group norm, made for two CPU cores.

Two strided convolutions bring an 80 x 80 crop to 20 x 20, where most of the work is done in 64 to 256 channels: the
sizes at which bfloat16 convolutions run near a core's peak.  No batch norm: its running statistics are those of the
training microscopes.  The mean over the map makes it blind to where in the crop the cell lies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier

_GROUPS = 8
_FEW = 16
"""Channels of a group from which on torch's channels-last kernel is the faster one."""
_WIDEST, _DEEPEST = 1024, 64
"""A bundle of a stranger says how large its network is: beyond these, building it alone would take minutes."""


class Norm(nn.GroupNorm):
    """Group norm that is not slow on a CPU: in bfloat16 and with few channels a group, torch's own takes three times as
    long on channels-last maps as on plain ones, with both changes of layout counted; in float32 half as long."""

    def forward(self, images: Tensor) -> Tensor:
        few = self.num_channels // self.num_groups < _FEW
        if few and images.device.type == "cpu" and images.dtype == torch.bfloat16:
            return super().forward(images.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(images)


class Block(nn.Module):
    """Two 3x3 convolutions with group norm, added to what came in."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm1 = Norm(_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = Norm(_GROUPS, channels)
        nn.init.zeros_(self.norm2.weight)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or before != channels:
            self.skip = nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(before, channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(images)))
        result: Tensor = F.relu(self.skip(images) + self.norm2(self.conv2(inner)))
        return result


class Body(nn.Module):
    """Stem, residual stages, mean over the map: (N, 3, H, W) -> (N, width of the last stage)."""

    def __init__(self, width: int, depths: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1, bias=False),
            Norm(_GROUPS, width),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        before = width
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            for position in range(depth):
                stages.append(Block(before, channels, 2 if stage and not position else 1))
                before = channels
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.dropout(self.stages(self.stem(images)).mean((2, 3)))
        return features


def build(
    n_classes: int, *, width: int = 64, depth1: int = 1, depth2: int = 1, depth3: int = 1, dropout: float = 0.1
) -> Classifier:
    """``width`` channels in the first of three stages of ``depth1``, ``depth2`` and ``depth3`` blocks."""
    if not 0 < width <= _WIDEST or not all(0 < depth <= _DEEPEST for depth in (depth1, depth2, depth3)):
        raise UsageError(f"stainnet has 8 to {_WIDEST} channels and 1 to {_DEEPEST} blocks in a stage.")
    return Classifier(Body(width, (depth1, depth2, depth3), dropout), nn.Linear(4 * width, n_classes))


ARCHITECTURE = Architecture(
    name="stainnet",
    input_size=(80, 80),
    build=build,
    published="this project; residual blocks (He et al., CVPR 2016) with group norm (Wu and He, ECCV 2018)",
    options={"width": 64, "depth1": 1, "depth2": 1, "depth3": 1, "dropout": 0.1},
)
