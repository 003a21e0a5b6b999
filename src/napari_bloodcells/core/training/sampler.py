"""Which cells an epoch shows, in which order: a function of the seed and the epoch alone, so that it can be resumed."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_bloodcells.core.training.recipe import SamplerSettings


def cell_weights(labels: Tensor, sources: Tensor, settings: SamplerSettings) -> Tensor:
    """(N,) float64: the chance of each cell to be drawn, adding up to 1.

    Parameters
    ----------
    labels, sources : (N,) int64
        Class and source of each cell.
    settings : SamplerSettings

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 1])
    >>> cell_weights(labels, torch.zeros(4, dtype=torch.int64), SamplerSettings("class")).tolist()
    [0.16..., 0.16..., 0.16..., 0.5]
    """
    if settings.name == "natural":
        return torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
    by_class = torch.bincount(labels).double()[labels]
    weights = by_class.pow(settings.temper) / by_class
    if settings.name == "source_class":
        pair = labels * (int(sources.max()) + 1) + sources
        by_pair = torch.bincount(pair).double()[pair]
        share = by_pair.pow(settings.temper) / by_pair
        whole = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add_(0, labels, share)[labels]
        weights = weights * by_class * share / whole
    return weights / weights.sum()


def epoch_order(weights: Tensor, settings: SamplerSettings, seed: int) -> Tensor:
    """Positions of the cells of one epoch, in their order: (``epoch_cells`` or N,) int64.

    ``natural`` shows each cell once before any comes again; the others draw with replacement.
    """
    generator = torch.Generator().manual_seed(seed)
    length = settings.epoch_cells or len(weights)
    if settings.name == "natural":
        rounds = [torch.randperm(len(weights), generator=generator) for _ in range(-(-length // len(weights)))]
        return torch.cat(rounds)[:length]
    return torch.multinomial(weights, length, replacement=True, generator=generator)
