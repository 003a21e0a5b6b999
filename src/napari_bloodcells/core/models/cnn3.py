"""``cnn3``: the small three-convolution network on 50x50 crops.

Its 4x4 "same" convolutions are padded as Keras does: one pixel before, two after.  Left open in the publication and
chosen here: the dropout of 0.35 stands once, after the third pool.
"""

from __future__ import annotations

from torch import nn

from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.models.layers import dense, glorot_


def build(n_classes: int) -> Classifier:
    """4x4 convolutions 16, 32, 64, each ReLU and 2x2 pool, dropout 0.35, dense 512, dropout 0.5, ``n_classes``."""
    layers: list[nn.Module] = []
    before = 3
    for channels in (16, 32, 64):
        layers += [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(before, channels, 4), nn.ReLU(), nn.MaxPool2d(2)]
        before = channels
    body = nn.Sequential(*layers, nn.Dropout(0.35), nn.Flatten(), *dense(64 * 6 * 6, 512), nn.Dropout(0.5))
    net = Classifier(body, nn.Linear(512, n_classes))
    glorot_(net)
    return net


ARCHITECTURE = Architecture(
    name="cnn3",
    input_size=(50, 50),
    build=build,
    published="three-convolution CNN on 50x50 crops (96.1 % on a test of its own source)",
)
