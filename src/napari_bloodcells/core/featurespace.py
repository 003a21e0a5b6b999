"""How far a cell is from anything seen in training, measured on the features before a network's last layer.

The features of the training cells are turned so that their spread within a class is one in every direction (a shared
covariance, shrunk towards a round one as there are few cells); the distance of a cell is the one to the nearest class
mean there, divided by the square root of the number of directions.  In a bundle it is given in units of the 99th
percentile of cells that were held out (``in_units_of``): above 1 is unlike the training.  Lee et al., "A simple
unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_DIRECTIONS = 256
SHRINKAGE = 0.1


@dataclass(frozen=True)
class FeatureSpace:
    """``whiten`` (D, K) turns features into directions of spread one; ``means`` (C, K) are the classes there."""

    whiten: Tensor
    means: Tensor

    def distance(self, features: Tensor) -> Tensor:
        """(N, D) features -> (N,) float32: to the nearest class mean."""
        turned = features.float() @ self.whiten
        squared = (turned[:, None] - self.means[None]).square().sum(2).amin(1)
        return (squared / self.whiten.shape[1]).sqrt()

    def in_units_of(self, unit: float) -> FeatureSpace:
        """The same space measured with another unit: what was ``unit`` away is 1 away.

        >>> space = FeatureSpace(torch.eye(1), torch.zeros(1, 1))
        >>> space.distance(torch.tensor([[3.0]])).item(), space.in_units_of(2.0).distance(torch.tensor([[3.0]])).item()
        (3.0, 1.5)
        """
        return FeatureSpace(self.whiten / unit, self.means / unit)

    def to(self, device: torch.device | str) -> FeatureSpace:
        """The same on another device."""
        return FeatureSpace(self.whiten.to(device), self.means.to(device))


def fit_feature_space(features: Tensor, labels: Tensor, n_classes: int) -> FeatureSpace:
    """Fit the space to training cells.

    Parameters
    ----------
    features : (N, D) float
    labels : (N,) int
        Class of each cell; classes without a cell get no mean of their own (that of all cells).
    n_classes : int

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> labels = torch.arange(2).repeat(500)
    >>> features = torch.randn(1000, 3) * torch.tensor([1., 10., 0.1]) + 50 * labels[:, None]
    >>> space = fit_feature_space(features, labels, 2)
    >>> near, far = space.distance(torch.tensor([[50., 50., 50.], [500., 50., 0.]])).tolist()
    >>> near < 0.2 and far > 50
    True
    """
    x = features.double().cpu()
    means = torch.stack([x[labels == c].mean(0) if (labels == c).any() else x.mean(0) for c in range(n_classes)])
    within = x - means[labels]
    directions = min(MAX_DIRECTIONS, x.shape[1])
    if directions < x.shape[1]:  # a flattened VGG16 has 25,088 features: keep the directions of most spread
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        few = x[torch.randperm(len(x))[:2000]]
        basis = torch.svd_lowrank(few - few.mean(0), min(directions, len(few)))[2]
        torch.set_rng_state(generator_state)
    else:
        basis = torch.eye(directions, dtype=x.dtype)
    spread = within @ basis
    covariance = spread.T @ spread / max(1, len(x) - 1)
    size = covariance.diagonal().mean().clamp_min(1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * size * torch.eye(len(covariance), dtype=x.dtype)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = basis @ (vectors / values.sqrt())
    return FeatureSpace(whiten.float(), (means @ whiten).float())
