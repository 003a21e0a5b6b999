"""Augmentations by name: from cells of the training to a batch of float images from 0 to 1.

``flip`` and ``affine`` are those of the published networks, made with torchvision.transforms.v2 image by image;
``stain`` is the one of the shipped models (``augment.py``).  All draw from torch's generator, which the training seeds
anew for every step, so that a resumed training draws the same.
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

Augmentation = Callable[[Cells, Tensor, torch.device], Tensor]
"""(cells, positions (B,), device) -> (B, 3, S, S) float, 0 to 1, on the device."""


def augmentation(recipe: Recipe) -> Augmentation:
    """The augmentation that a recipe names.

    ``none``; ``flip``: left-right and up-down, each in half of the images; ``affine``: that, and up to 15 degrees,
    10 % shift and 10 % zoom, the border filled with white; ``stain``: color, camera and geometry (``augment.py``).
    """
    if recipe.augment == "stain":
        return _stain(recipe)
    if recipe.augment == "none":
        return lambda cells, at, device: cells.crops[at].to(device, non_blocking=True).float() / 255
    from torchvision.transforms import v2

    steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if recipe.augment == "affine":
        bilinear = v2.InterpolationMode.BILINEAR
        steps.append(v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), interpolation=bilinear, fill=WHITE_LEVEL))
    change = v2.Compose(steps)

    def published(cells: Cells, at: Tensor, device: torch.device) -> Tensor:
        return torch.stack([change(crop) for crop in cells.crops[at]]).to(device, non_blocking=True).float() / 255

    return published


def _stain(recipe: Recipe) -> Augmentation:
    settings = replace(recipe.stain, size=recipe.crop.size)

    def stain(cells: Cells, at: Tensor, device: torch.device) -> Tensor:
        wide = cells.wide if cells.wide is not None else cells.crops
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
        return augment(wide[at].to(device, non_blocking=True), cells.extent[at].to(device), settings, generator)

    return stain
