"""``cnn5bn``: the five-convolution network with two batch norms trained on PBC at 128x128 pixels.

Left open in the publication and chosen here: its one dropout (0.3) stands before the output.
"""

from __future__ import annotations

from torch import Tensor, nn

from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.models.layers import dense, glorot_, norm_layer


class Cnn5bn(Classifier):
    """The network; its third convolution carries the L1 penalty."""

    def __init__(self, n_classes: int, norm: str) -> None:
        layers: list[nn.Module] = []
        before = 3
        for i, channels in enumerate((32, 256, 128, 128, 64)):
            conv = nn.Conv2d(before, channels, 3)
            layers += [conv, nn.ReLU(), *([norm_layer(norm, channels)] if i in (0, 2) else []), nn.MaxPool2d(2)]
            before = channels
        body = nn.Sequential(*layers, nn.Flatten(), *dense(64 * 2 * 2, 128, 32), nn.Dropout(0.3))
        super().__init__(body, nn.Linear(32, n_classes))
        glorot_(self)

    def l1_parameters(self) -> tuple[Tensor, ...]:
        """The weights of the third convolution."""
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        return (convolutions[2].weight,)


def build(n_classes: int, *, norm: str = "batch") -> Classifier:
    """3x3 convolutions 32, 256, 128, 128, 64 without padding, each ReLU and 2x2 pool; dense 128, 32, ``n_classes``."""
    return Cnn5bn(n_classes, norm)


ARCHITECTURE = Architecture(
    name="cnn5bn",
    input_size=(128, 128),
    build=build,
    published="five-convolution CNN with two batch norms on PBC, 128x128 (90.5 % of 8 classes)",
    options={"norm": "batch"},
)
