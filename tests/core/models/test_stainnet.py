"""The default network: small enough, without batch norm, indifferent to the rest of the batch."""

from __future__ import annotations

import torch

from napari_bloodcells.core.models import architecture, build


def test_a_cell_costs_less_than_a_quarter_of_a_gmac():
    assert architecture("stainnet").macs(5) < 0.25e9


def test_there_is_no_batch_norm():
    assert not [m for m in build("stainnet", 5).modules() if "BatchNorm" in type(m).__name__]


def test_the_logits_of_a_cell_do_not_depend_on_its_neighbors():
    torch.manual_seed(0)
    module = build("stainnet", 5).eval()
    images = torch.randn(4, 3, 80, 80)
    alone = torch.cat([module(image[None]) for image in images])
    assert torch.allclose(module(images), alone, atol=1e-4)


def test_every_weight_learns():
    torch.manual_seed(0)
    module = build("stainnet", 5)
    for name, parameter in module.named_parameters():
        if name.endswith("norm2.weight"):
            torch.nn.init.ones_(parameter)  # they begin at zero, which stops the gradient of what lies before them
    module(torch.randn(2, 3, 80, 80)).square().sum().backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


def test_other_sizes_can_be_built_and_read():
    assert build("stainnet", 3, width=32, depth2=2)(torch.zeros(1, 3, 64, 72)).shape == (1, 3)
