"""Differential white-blood-cell counts from photographs of stained blood smears.

The command ``bloodcells-batch`` and the napari plugin call nothing but the names below.  They are looked up when
first used, so that importing this package (or asking the command for ``--help``) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["count", "evaluate", "load_model", "read_voc", "train", "write_voc"]

_HOME = {
    "count": "napari_bloodcells.core.count",
    "evaluate": "napari_bloodcells.core.evaluate",
    "load_model": "napari_bloodcells.core.bundle",
    "read_voc": "napari_bloodcells.core.voc",
    "train": "napari_bloodcells.core.train",
    "write_voc": "napari_bloodcells.core.voc",
}

if TYPE_CHECKING:
    from napari_bloodcells.core.bundle import load_model
    from napari_bloodcells.core.count import count
    from napari_bloodcells.core.evaluate import evaluate
    from napari_bloodcells.core.train import train
    from napari_bloodcells.core.voc import read_voc, write_voc


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'napari_bloodcells' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
