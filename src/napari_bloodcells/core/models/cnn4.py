"""``cnn4``: the four-convolution network trained on PBC at 128x128 pixels.

Left open in the publication and chosen here: the three dropouts (0.2, 0.3, 0.4) stand after the second, third and
fourth pool.
"""

from __future__ import annotations

from torch import nn

from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.models.layers import dense, glorot_


def build(n_classes: int) -> Classifier:
    """3x3 convolutions 32, 32, 64, 32 without padding, each ReLU and 2x2 pool, then dense 128, 80, ``n_classes``."""
    layers: list[nn.Module] = []
    before = 3
    for channels, dropout in ((32, 0.0), (32, 0.2), (64, 0.3), (32, 0.4)):
        layers += [nn.Conv2d(before, channels, 3), nn.ReLU(), nn.MaxPool2d(2)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        before = channels
    net = Classifier(nn.Sequential(*layers, nn.Flatten(), *dense(32 * 6 * 6, 128, 80)), nn.Linear(80, n_classes))
    glorot_(net)
    return net


ARCHITECTURE = Architecture(
    name="cnn4",
    input_size=(128, 128),
    build=build,
    published="four-convolution CNN on PBC, 128x128 (85.4 % of 8 classes)",
)
