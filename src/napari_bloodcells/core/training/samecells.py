"""Cells that are one picture under several names: their groups become one, so that none counts as a second original.

Whoever collects cells by hand has some of them twice.  A copy on the other side of a split would be recognized and not
told by what it shows, and as an original of its own it would make every interval narrower than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from napari_bloodcells.core.training.pack import CropPack


def with_copies_joined(packs: Sequence[CropPack]) -> list[CropPack]:
    """The packs, in which all groups that share a crop (to the byte) have the name of the first of them.

    A crop of one color shows no cell, and is no copy of another.
    """
    parents: dict[str, str] = {}

    def first(group: str) -> str:
        while parents.get(group, group) != group:
            group = parents[group]
        return group

    seen: dict[bytes, str] = {}
    for pack in packs:
        for crop, group in zip(pack.crops, pack.groups, strict=True):
            if not _is_flat(crop):
                one, other = first(group), first(seen.setdefault(_digest(crop), group))
                parents[max(one, other)] = min(one, other)
    return [replace(pack, groups=tuple(first(group) for group in pack.groups)) for pack in packs]


def _is_flat(crop: Tensor) -> bool:
    return bool((crop == crop[:, :1, :1]).all())


def _digest(crop: Tensor) -> bytes:
    return hashlib.blake2b(crop.numpy().tobytes(), digest_size=16).digest()
