"""The localizer's network in 8-bit whole numbers, for processors that do not multiply bfloat16: most laptops.

There oneDNN multiplies small whole numbers twice as fast as float32 (``python -m benchmarks.eight_bit`` measures both,
and what it changes in the boxes).  Steps are as fine as the range of the numbers allows, which was measured on training
fields (``localizer.json`` keeps it): weights have one step for each output channel.  What a convolution is given has
one for all, so channels are first brought to more even ranges, and the weights the other way (Xiao et al.,
"SmoothQuant", ICML 2023).  Only 7 of its 8 bits are used: without VNNI two products are added up in 16 bits, which 8
would overflow.  The first two layers and the last stay in float32: what the stem gives has few large numbers among
many small ones (in whole numbers too, the second layer doubles the error), and answers bear no coarser steps.  Sums of
whole numbers are exact, so the bits are the same whatever the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_bloodcells.core.localize.net import CellNet

LARGEST = 127
EVENED = 0.75
"""Channels are divided by this power of their range: 0 leaves them, 1 makes all alike, and the weights uneven."""
_EXACT = ("stem", "down4", "output")


@dataclass(frozen=True)
class Range:
    """What a convolution is given: the lowest number of all channels (0 or below), the highest of each."""

    low: float
    high: tuple[float, ...]


class EightBitConv(nn.Module):
    """A convolution of float32 maps that multiplies whole numbers.

    Parameters
    ----------
    conv : nn.Conv2d
        Without groups or dilation.
    given : Range
        Of what comes in; numbers beyond it are cut off.
    """

    def __init__(self, conv: nn.Conv2d, given: Range) -> None:
        super().__init__()
        high = torch.tensor(given.high).clamp_min(1e-3 * max(*given.high, -given.low, 1e-6))
        even = high**EVENED if given.low == 0 else torch.ones_like(high)
        self.step = (float((high / even).max()) - given.low) / LARGEST
        self.zero = round(-given.low / self.step)
        self.place = (list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups)
        self.bias = conv.bias
        weight = conv.weight.detach().float() * even.view(1, -1, 1, 1)
        self.steps = (weight.abs().amax((1, 2, 3)) / LARGEST).clamp_min(1e-12)
        whole = (weight / self.steps.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zeros = torch.zeros(len(whole), dtype=torch.int32)
        self.packed = torch.ops.onednn.qconv_prepack(whole, self.steps, self.step, self.zero, *self.place, None)
        self.rate = (1 / (self.step * even)).view(1, -1, 1, 1)
        self.middle = torch.full((1, 1, 1, 1), self.zero + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> the same as the convolution that it was made of, but for rounding."""
        whole = torch.addcmul(self.middle, x, self.rate).clamp_(0, LARGEST)
        whole = whole.to(torch.int8).view(torch.uint8)  # to uint8 directly, torch takes 14 times as long
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            whole.contiguous(memory_format=torch.channels_last),
            self.step,
            self.zero,
            self.packed,
            self.steps,
            self.zeros,
            self.bias,
            *self.place,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return result


def eight_bit(net: CellNet, ranges: Mapping[str, Range]) -> CellNet:
    """A network of ordinary convolutions (``plain_weights``) with those that ``ranges`` names in whole numbers.

    What is not replaced is shared with ``net``.
    """
    result = copy.deepcopy(net, {id(parameter): parameter for parameter in net.parameters()})
    for name, conv in eight_bit_convolutions(net).items():
        if name in ranges:
            result.set_submodule(name, EightBitConv(conv, ranges[name]))
    return result


def eight_bit_convolutions(net: CellNet) -> dict[str, nn.Conv2d]:
    """The convolutions that may be in whole numbers, by their names."""
    every = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: conv for name, conv in every.items() if name not in _EXACT}


@contextmanager
def recorded_ranges(net: CellNet) -> Iterator[dict[str, Range]]:
    """Record what the convolutions of ``net`` are given while the block runs."""
    found: dict[str, Range] = {}

    def look(name: str, x: Tensor) -> None:
        before = found.get(name, Range(0.0, (0.0,) * x.shape[1]))
        highest = torch.maximum(torch.tensor(before.high), x.float().amax((0, 2, 3)).cpu())
        found[name] = Range(min(before.low, float(x.min())), tuple(highest.tolist()))

    handles = [
        conv.register_forward_pre_hook(lambda _, given, name=name: look(name, given[0]))
        for name, conv in eight_bit_convolutions(net).items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
