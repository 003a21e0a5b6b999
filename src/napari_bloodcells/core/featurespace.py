"""Where the classes lie in the features before a network's last layer, and how they move between microscopes.

The features of the training cells are turned so that their spread within a class of one microscope is one in every
direction (a shared covariance, shrunk towards a round one as there are few cells).  The distance of a cell is the one
to the nearest class mean there, divided by the square root of the number of directions.  In a bundle it is given in
units of the 99th percentile of cells that were held out (``in_units_of``): above 1 is unlike the training.  Lee et al.,
"A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_DIRECTIONS = 256
SHRINKAGE = 0.1
LEAST_CELLS = 10
"""Of a class of one microscope, to have a mean of its own."""
_RARE = 0.1
"""A feature of less than so many times the usual spread, or a hundredth of the largest one, is hardly ever there, and
is not made as large as the others."""


@dataclass(frozen=True)
class FeatureSpace:
    """The space.

    Attributes
    ----------
    whiten : (D, K) float
        Turns features into directions of one spread.
    means : (C, K) float
        The classes there: the mean of the microscopes of the training.
    drift : (R, K) float or None
        How far a class of one microscope lay from its mean, a row for each; None where there was one microscope.
    within : float
        Spread of a class of one microscope in every direction, on average.
    """

    whiten: Tensor
    means: Tensor
    drift: Tensor | None = None
    within: float = 1.0

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
        drift = None if self.drift is None else self.drift / unit
        return FeatureSpace(self.whiten / unit, self.means / unit, drift, self.within / unit)

    def to(self, device: torch.device | str) -> FeatureSpace:
        """The same on another device."""
        drift = None if self.drift is None else self.drift.to(device)
        return FeatureSpace(self.whiten.to(device), self.means.to(device), drift, self.within)


def fit_feature_space(
    features: Tensor, labels: Tensor, n_classes: int, sources: Sequence[str] | None = None
) -> FeatureSpace:
    """Fit the space to training cells.

    Parameters
    ----------
    features : (N, D) or (N, V, D) float
        Of each cell, or of each in V views (other stains, other cameras): directions in which these move a cell count
        less then.
    labels : (N,) int
        Class of each cell; classes without a cell get the mean of another, so that they change no distance.
    n_classes : int
    sources : sequence of N str, optional
        Microscope of each cell: of a class, all count alike.  One for all by default.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> labels = torch.arange(2).repeat(500)
    >>> features = torch.randn(1000, 3) * torch.tensor([1., 10., 0.1]) + 50 * labels[:, None]
    >>> space = fit_feature_space(features, labels, 2)
    >>> near, far = space.distance(torch.tensor([[50., 50., 50.], [500., 50., 0.]])).tolist()
    >>> near < 0.2 and far > 50
    True
    >>> shifted = features + torch.tensor([3.0, 0, 0])
    >>> both = fit_feature_space(torch.cat([features, shifted]), labels.repeat(2), 2, ["a"] * 1000 + ["b"] * 1000)
    >>> tuple(both.drift.shape), both.drift.sum(0).abs().max().item() < 0.01     # each lies half of 3 from the middle
    ((4, 3), True)
    """
    views = features if features.ndim == 3 else features[:, None]
    x = views.cpu().flatten(0, 1)
    if x.shape[1] <= MAX_DIRECTIONS:
        x = x.double()  # the many features of a flattened VGG16, which would fill GB, once they are fewer directions
    scale = feature_scale(x)
    x = x / scale  # not in place: it may be the given tensor
    basis = _basis(x)
    x, basis, scale = (x @ basis).double(), basis.double(), scale.double()
    n_views = views.shape[1]
    truth = labels.cpu().repeat_interleave(n_views)
    number = np.zeros(len(labels), int) if sources is None else np.unique(list(sources), return_inverse=True)[1]
    of = torch.from_numpy(number).repeat_interleave(n_views)
    clouds = _clouds(truth, of, n_classes, LEAST_CELLS * n_views)
    by_class = [[x[at].mean(0) for label, at in clouds if label == c] for c in range(n_classes)]
    means = [torch.stack(own or next(filter(None, by_class))).mean(0) for own in by_class]
    spread = [x[at] - x[at].mean(0) for _, at in clouds]
    covariance = torch.stack([s.T @ s / max(1, len(s) - 1) for s in spread]).mean(0)
    size = covariance.diagonal().mean().clamp_min(1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * size * torch.eye(len(covariance), dtype=x.dtype)
    values, vectors = torch.linalg.eigh(covariance)
    turn = vectors / values.sqrt()
    apart = [x[at].mean(0) - means[label] for label, at in clouds if sum(label == c for c, _ in clouds) > 1]
    drift = (torch.stack(apart) @ turn).float() if apart else None
    return FeatureSpace((basis @ turn / scale[:, None]).float(), (torch.stack(means) @ turn).float(), drift)


def feature_scale(features: Tensor) -> Tensor:
    """(M, D) -> (D,): what features are divided by to have one spread, but for those that are hardly ever there.

    >>> feature_scale(torch.tensor([[-1.0, 0.0, -4.0], [1.0, 0.0, 4.0]]).double()).tolist()
    [1.0, 0.1, 4.0]
    """
    spread = features.std(0, correction=0)
    return spread.clamp_min(max(_RARE * float(spread.quantile(0.5)), _RARE**2 * float(spread.max()), 1e-12))


def _clouds(truth: Tensor, sources: Tensor, n_classes: int, least: int) -> list[tuple[int, Tensor]]:
    """Class and rows (M,) of the cells of one class of one microscope; where no microscope has enough of a class, all
    its cells together."""
    found = []
    for c in range(n_classes):
        own = [
            at
            for s in sorted(set(sources.tolist()))
            if len(at := torch.nonzero((truth == c) & (sources == s))[:, 0]) >= least
        ]
        whole = torch.nonzero(truth == c)[:, 0]
        found += [(c, at) for at in own or ([whole] if len(whole) else [])]
    return found


def _basis(x: Tensor) -> Tensor:
    """(D, K): all directions, or those of most spread (a flattened VGG16 has 25,088 features)."""
    directions = min(MAX_DIRECTIONS, x.shape[1])
    if directions == x.shape[1]:
        return torch.eye(directions, dtype=x.dtype)
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    few = x[torch.randperm(len(x))[:2000]]
    basis = torch.svd_lowrank(few - few.mean(0), min(directions, len(few)))[2]
    torch.set_rng_state(generator_state)
    return basis
