"""What the registry knows of a network before it is built: its name, its input, its options and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_bloodcells.core.models.classifier import Classifier


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry.

    Attributes
    ----------
    name : str
        As in ``--arch``; the name of the file.
    input_size : (height, width)
        Pixels of the input as published.  Crops of another size are resized to it.
    build : callable
        ``build(n_classes, **options)`` gives the network.
    published : str
        Where the architecture comes from, and what was left open there and chosen here.
    options : mapping
        The options of ``build`` with their defaults.
    """

    name: str
    input_size: tuple[int, int]
    build: Callable[..., Classifier]
    published: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def n_parameters(self, n_classes: int, **options: Any) -> int:
        """Number of parameters in Keras's way of counting: the running statistics of batch norms count.

        torch keeps those as buffers.  Nothing is allocated: the network is built on torch's ``meta`` device.
        """
        return count_parameters(self.skeleton(n_classes, **options))

    def macs(self, n_classes: int, **options: Any) -> int:
        """Multiply-accumulates of one image through the convolutions and dense layers, without running it."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        module = self.skeleton(n_classes, **options).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            module(torch.empty(1, 3, *self.input_size, device="meta"))
        return int(counter.get_total_flops()) // 2

    def skeleton(self, n_classes: int, **options: Any) -> Classifier:
        """The network without memory for its weights (torch's ``meta`` device)."""
        import torch

        with torch.device("meta"):
            return self.build(n_classes, **{**self.options, **options})


def count_parameters(module: Any) -> int:
    """Parameters and running statistics of ``module``; the step counters of batch norms do not count."""
    weights = sum(p.numel() for p in module.parameters())
    return int(weights + sum(b.numel() for b in module.buffers() if b.is_floating_point()))
