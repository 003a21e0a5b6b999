"""The form that every network here has: a body that makes features, and one linear head that makes logits of them."""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Classifier(nn.Module):
    """A network in two parts.

    Parameters
    ----------
    body : nn.Module
        (N, 3, H, W) float images, normalized -> (N, D) features.
    head : nn.Linear
        (N, D) -> (N, C) logits.
    """

    body: nn.Module
    head: nn.Linear

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized float images -> (N, D): the input of the last layer."""
        return cast(Tensor, self.body(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized float images -> (N, C) logits."""
        return cast(Tensor, self.head(self.features(images)))

    def with_head(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Classifier:
        """The same network, body and all, under a last layer of its own: ``weight`` (C, D), ``bias`` (C,)."""
        head = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weight))
            head.bias.copy_(torch.from_numpy(bias))
        other = copy.copy(self)  # whatever arguments the architecture was built with
        other._modules = {**self._modules, "head": head}
        return other

    def l1_parameters(self) -> tuple[Tensor, ...]:
        """The weights that the publication put an L1 penalty on; the strength is the recipe's."""
        return ()
