"""The localizer's network: a small fully convolutional net that marks the middle of every cell and measures its box.

In goes a field at a working scale (a red cell 13 to 32 pixels across) divided by its white; out come, on a grid four
times coarser, a heat map for each class (as in CenterNet, Zhou et al. 2019, arXiv:1904.07850) and the distances from
each grid point to the four sides of the box (as in TTFNet, Liu et al. 2019, arXiv:1909.00700).  There is no batch
norm, which collapses on an unseen microscope: the weights themselves are standardized (Brock et al. 2021,
arXiv:2101.08692), which costs nothing once ``plain_weights`` has folded it in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = ("WBC", "RBC", "Platelets")
STRIDE = 4
"""Pixels of the working image per grid point of the maps."""
GRID = 16
"""Height and width of what the net is given are multiples of this."""
MEAN, SPREAD = 0.70, 0.25
"""Where values of a field divided by its white lie, and how far they spread (a normalization, not a measurement)."""

_RELU_GAIN = 1.7139588594436646


@dataclass(frozen=True)
class NetSettings:
    """Channels of the stages at 1/2, 1/4, 1/8 and 1/16 of the working image, and their 3x3 convolutions."""

    channels: tuple[int, int, int, int] = (32, 64, 96, 128)
    blocks: tuple[int, int, int] = (2, 3, 2)
    head: int = 64


class StandardConv(nn.Conv2d):
    """A convolution with weights standardized for each output channel, and a learned gain for each."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, size // 2)
        nn.init.kaiming_normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def standardized(self) -> Tensor:
        """The weights that are applied: mean 0, variance 1 / fan-in, times the gain and that of the ReLU."""
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        fan_in = self.weight[0].numel()
        return (self.weight - mean) * torch.rsqrt(variance * fan_in + 1e-4) * self.gain * _RELU_GAIN

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardized(), self.bias, self.stride, self.padding)


class Residual(nn.Module):
    """``x + strength * relu(conv(x))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = StandardConv(channels, channels, 3)
        self.strength = nn.Parameter(torch.full((1, channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, self.strength, F.relu_(self.conv(x)))


class CellNet(nn.Module):
    """Heat maps and box sides of the cells of a field.

    Examples
    --------
    >>> heat, sides = CellNet()(torch.zeros(1, 3, 64, 96))
    >>> tuple(heat.shape), tuple(sides.shape)
    ((1, 3, 16, 24), (1, 12, 16, 24))
    """

    def __init__(self, settings: NetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or NetSettings()
        c2, c4, c8, c16 = settings.channels
        n4, n8, n16 = settings.blocks
        self.stem = StandardConv(12, c2, 3)
        self.down4 = StandardConv(c2, c4, 3, stride=2)
        self.stage4 = nn.Sequential(*(Residual(c4) for _ in range(n4)))
        self.down8 = StandardConv(c4, c8, 3, stride=2)
        self.stage8 = nn.Sequential(*(Residual(c8) for _ in range(n8)))
        self.down16 = StandardConv(c8, c16, 3, stride=2)
        self.stage16 = nn.Sequential(*(Residual(c16) for _ in range(n16)))
        self.lift16 = StandardConv(c16, c8, 1)
        self.merge8 = StandardConv(c8, c8, 3)
        self.lift8 = StandardConv(c8, settings.head, 1)
        self.side4 = StandardConv(c4, settings.head, 1)
        self.merge4 = StandardConv(settings.head, settings.head, 3)
        self.output = nn.Conv2d(settings.head, 5 * len(CLASSES), 1)
        nn.init.normal_(self.output.weight, std=0.01)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias[: len(CLASSES)] = -4.0
            self.output.bias[len(CLASSES) :] = 2.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of a normalized field.

        Parameters
        ----------
        x : (N, 3, H, W) float
            ``normalize`` gives it; H and W multiples of 16.

        Returns
        -------
        heat : (N, 3, H/4, W/4)
            Logits of the middle of a WBC, RBC, platelet.
        sides : (N, 12, H/4, W/4)
            For each class the natural logarithms of the pixels from the middle of the grid point to the left, top,
            right and bottom of the box.
        """
        x = F.pixel_unshuffle(x, 2)
        x = F.relu_(self.down4(F.relu_(self.stem(x))))
        at4 = self.stage4(x)
        at8 = self.stage8(F.relu_(self.down8(at4)))
        at16 = self.stage16(F.relu_(self.down16(at8)))
        at8 = F.relu_(self.merge8(at8 + F.interpolate(self.lift16(at16), scale_factor=2.0)))
        at4 = F.relu_(self.side4(at4) + F.interpolate(self.lift8(at8), scale_factor=2.0))
        maps = self.output(F.relu_(self.merge4(at4)))
        return maps[:, : len(CLASSES)], maps[:, len(CLASSES) :]


def plain_weights(net: CellNet) -> CellNet:
    """The same net with the standardization folded into ordinary convolutions, for inference."""
    result = CellNet(net.settings)
    result.load_state_dict(net.state_dict())
    with torch.no_grad():
        for module in list(result.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, StandardConv):
                    plain = nn.Conv2d(
                        child.in_channels, child.out_channels, child.kernel_size[0], child.stride[0], child.padding[0]
                    )
                    plain.weight.copy_(child.standardized())
                    assert plain.bias is not None
                    assert child.bias is not None
                    plain.bias.copy_(child.bias)
                    setattr(module, name, plain)
    return result.eval().to(memory_format=torch.channels_last)


def n_parameters(net: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in net.parameters())


def count_macs(settings: NetSettings | None = None, height: int = 80, width: int = 112) -> int:
    """Multiplications and additions (pairs) of the convolutions for a working image of ``height`` x ``width``.

    Examples
    --------
    >>> count_macs() < 0.25e9
    True
    """
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.weight[0].numel()

    with torch.device("meta"):
        net = CellNet(settings)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        net(torch.zeros(1, 3, height, width))
    return total
