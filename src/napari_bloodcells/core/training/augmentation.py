"""Augmentations by name: from cells of the training to a batch of float images from 0 to 1.

``flip`` and ``affine`` are those of the published networks, made with torchvision.transforms.v2 image by image;
``stain`` is the one of the shipped models (``augment.py``).  All draw from torch's generator, which the training seeds
anew for every step, so that a resumed training draws the same.  So does a process that makes only its share of a batch:
the published ones draw for each cell from a seed of its own; ``stain``, where cells lend each other stain and ground,
makes the batch whole and gives the share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from napari_bloodcells.core.crops import WHITE_LEVEL
from napari_bloodcells.core.training.augment import augment
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.traindata import Cells

Augmentation = Callable[[Cells, Tensor, slice, torch.device], Tensor]
"""(cells, positions (B,) of a batch, share of it, device) -> the share (b, 3, S, S) float, 0 to 1, on the device."""


def augmentation(recipe: Recipe) -> Augmentation:
    """The augmentation that a recipe names.

    ``none``; ``flip``: left-right and up-down, each in half of the images; ``affine``: that, and up to 15 degrees,
    10 % shift and 10 % zoom, the border filled with white; ``stain``: color, camera and geometry (``augment.py``).
    """
    if recipe.augment == "stain":
        return _stain(recipe)
    if recipe.augment == "none":
        return lambda cells, at, share, device: cells.crops[at[share]].to(device).float() / 255
    from torchvision.transforms import v2

    steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if recipe.augment == "affine":
        bilinear = v2.InterpolationMode.BILINEAR
        steps.append(v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), interpolation=bilinear, fill=WHITE_LEVEL))
    change = v2.Compose(steps)

    def published(cells: Cells, at: Tensor, share: slice, device: torch.device) -> Tensor:
        seeds = torch.randint(2**62, (len(at),))[share].tolist()
        changed = []
        for crop, seed in zip(cells.crops[at[share]], seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            changed.append(change(crop))
        return torch.stack(changed).to(device).float() / 255

    return published


def _stain(recipe: Recipe) -> Augmentation:
    settings = replace(recipe.stain, size=recipe.crop.size)

    def stain(cells: Cells, at: Tensor, share: slice, device: torch.device) -> Tensor:
        wide = cells.wide if cells.wide is not None else cells.crops
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
        batch = wide[at].to(device)
        return augment(batch, cells.extent[at].to(device), settings, generator)[share]

    return stain
