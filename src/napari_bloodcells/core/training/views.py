"""Training cells as a network sees them under other stains and cameras.

What was learned on few microscopes must hold on the next.  So what is fitted after the training (the shape that the
last layer listens to, where the classes lie) is fitted to each cell as it is and as the training's augmentation changes
it, at its true size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.model import Model
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.training.augment import AugmentSettings, augment
from napari_bloodcells.core.training.traindata import Cells

MOST_CELLS = 150
"""Of one class of one source."""
N_VIEWS = 4
_BATCH = 128


def even_cells(cells: Cells, most: int = MOST_CELLS) -> Cells:
    """At most ``most`` of one class of one source, drawn the same each time."""
    keep: NDArray[np.bool_] = np.zeros(len(cells), np.bool_)
    order = np.random.default_rng(0).permutation(len(cells))
    labels, sources = cells.labels.numpy()[order], cells.sources[order]
    for source in np.unique(sources):
        for label in np.unique(labels):
            keep[order[(sources == source) & (labels == label)][:most]] = True
    return cells.take(keep)


def stained_views(
    model: Model, cells: Cells, stain: AugmentSettings | None, progress: Progress | None = None
) -> Tensor:
    """(N, V, D) features of cells, as they are first, then under other stains and cameras; without ``stain`` V is 1.

    Parameters
    ----------
    model : Model
    cells : Cells
    stain : AugmentSettings, optional
        Of the training.
    progress : Progress, optional
        Can cancel.
    """
    progress = progress or Silent()
    settings = None if stain is None else replace(stain, size=cells.crops.shape[-1], zoom=0.0, to_box=0.0)
    generator = torch.Generator().manual_seed(0)
    wide = cells.crops if cells.wide is None else cells.wide
    views: list[list[Tensor]] = [[] for _ in range(1 if settings is None else N_VIEWS)]
    for number, parts in enumerate(views):
        for at in range(0, len(cells), _BATCH):
            check_cancelled(progress)
            crops = cells.crops[at : at + _BATCH]
            if settings is not None and number:
                extent = cells.extent[at : at + _BATCH]
                crops = augment(wide[at : at + _BATCH], extent, settings, generator).mul(255).round().byte()
            parts.append(model.features_and_logits(crops)[0])
    return torch.stack([torch.cat(parts) for parts in views], 1)
