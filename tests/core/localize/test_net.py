"""The network: its size, its shape, and what it may not contain."""

from __future__ import annotations

import torch
from torch import nn

from napari_bloodcells.core.localize.net import CellNet, NetSettings, count_macs, n_parameters, plain_weights
from napari_bloodcells.core.localize.store import describe


def test_a_640x480_field_costs_less_than_a_quarter_of_the_allowed_gmac() -> None:
    assert count_macs(height=96, width=128) < 0.25e9


def test_multiplications_grow_with_the_area() -> None:
    assert count_macs(height=192, width=128) == 2 * count_macs(height=96, width=128)


def test_the_shipped_weights_are_under_five_megabytes() -> None:
    about = describe()
    assert about["bytes"] < 5e6
    assert about["parameters"] == n_parameters(CellNet())


def test_there_is_no_batch_norm() -> None:
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in CellNet().modules())


def test_folded_weights_compute_the_same() -> None:
    torch.manual_seed(3)
    net = CellNet(NetSettings((16, 16, 24, 32), (1, 1, 1), 16)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        x = torch.randn(2, 3, 48, 64)
        for ours, folded in zip(net(x), plain_weights(net)(x), strict=True):
            torch.testing.assert_close(ours, folded, rtol=1e-4, atol=1e-4)


def test_the_whole_net_learns() -> None:
    net = CellNet(NetSettings((16, 16, 24, 32), (1, 1, 1), 16))
    heat, sides = net(torch.randn(1, 3, 32, 32))
    (heat.square().mean() + sides.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
