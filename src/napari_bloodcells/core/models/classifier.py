"""The form that every network here has: a body that makes features, and one linear head that makes logits of them."""

from __future__ import annotations

from typing import cast

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

    def l1_parameters(self) -> tuple[Tensor, ...]:
        """The weights that the publication put an L1 penalty on; the strength is the recipe's."""
        return ()
