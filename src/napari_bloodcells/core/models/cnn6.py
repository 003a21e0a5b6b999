"""``cnn6``: the six-convolution network of the Kaggle "Blood Cell Images" studies, 200x200 pixels.

Left open in the publication and chosen here: the dropout rate, 0.2.
"""

from __future__ import annotations

from torch import nn

from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.models.layers import dense, glorot_, norm_layer


def build(n_classes: int, *, norm: str = "batch", dropout: float = 0.2) -> Classifier:
    """3x3 convolutions 16, 64, 64, 64, 64, 128 without padding, then dense 128, 64, ``n_classes``.

    Each convolution is followed by ReLU and a 2x2 max-pool; the norm stands after the first pool, dropout after the
    others.  The last map is one pixel, so the features before the dense layers are the 128 channels.
    """
    layers: list[nn.Module] = []
    before = 3
    for i, channels in enumerate((16, 64, 64, 64, 64, 128)):
        layers += [nn.Conv2d(before, channels, 3), nn.ReLU(), nn.MaxPool2d(2)]
        layers.append(norm_layer(norm, channels) if i == 0 else nn.Dropout(dropout))
        before = channels
    net = Classifier(nn.Sequential(*layers, nn.Flatten(), *dense(128, 128, 64)), nn.Linear(64, n_classes))
    glorot_(net)
    return net


ARCHITECTURE = Architecture(
    name="cnn6",
    input_size=(200, 200),
    build=build,
    published="six-convolution CNN on Kaggle Blood Cell Images, 200x200 (80 % on its TEST)",
    options={"norm": "batch", "dropout": 0.2},
)
