"""``cnn4bn``: four blocks of convolution, batch norm, ReLU and max-pool on whole 240x320 Kaggle images.

Left open in the publication and chosen here: 3x3 convolutions with padding, channels 16, 32, 64, 64, and fully
connected layers of 256, 128 and 64.
"""

from __future__ import annotations

from torch import nn

from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.models.layers import dense, glorot_, norm_layer


def build(n_classes: int, *, norm: str = "batch") -> Classifier:
    """Four blocks (16, 32, 64, 64 channels), three fully connected layers (256, 128, 64) and the output."""
    layers: list[nn.Module] = []
    before = 3
    for channels in (16, 32, 64, 64):
        layers += [nn.Conv2d(before, channels, 3, padding=1), norm_layer(norm, channels), nn.ReLU(), nn.MaxPool2d(2)]
        before = channels
    net = Classifier(nn.Sequential(*layers, nn.Flatten(), *dense(64 * 15 * 20, 256, 128, 64)), nn.Linear(64, n_classes))
    glorot_(net)
    return net


ARCHITECTURE = Architecture(
    name="cnn4bn",
    input_size=(240, 320),
    build=build,
    published="four-block CNN with batch norm on Kaggle Blood Cell Images, 240x320, SGD (75.7 % on its TEST)",
    options={"norm": "batch"},
)
