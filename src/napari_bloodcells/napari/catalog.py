"""Which models there are, told without loading torch: the names of the bundles in the places where the core looks.

A model trained in this session is offered at once (``offer``), in every open widget.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from psygnal import Signal

METADATA = "model.json"
DEFAULT = "default"


class CatalogEvents:
    """``offered``: a bundle (its folder) was trained or chosen, and can be used from now on."""

    offered = Signal(str)


events = CatalogEvents()
_offered: list[str] = []


def model_names() -> list[str]:
    """``default``, then the installed models by name, then the bundles of this session by folder."""
    names = {folder.name for home in _homes() for folder in _folders(home)}
    return [DEFAULT, *sorted(names), *_offered]


def offer(folder: str | Path) -> None:
    """Offer the bundle in ``folder`` in every widget."""
    name = str(folder)
    if name not in _offered:
        _offered.append(name)
    events.offered.emit(name)


def _folders(home: Path) -> Iterator[Path]:
    if home.is_dir():
        yield from (path.parent for path in sorted(home.glob(f"*/{METADATA}")))


def _homes() -> Iterator[Path]:
    yield Path(str(files("napari_bloodcells") / "weights"))
    named = os.environ.get("BLOODCELLS_MODELS")
    if named:
        yield Path(named)
        return
    import pooch

    yield Path(pooch.os_cache("napari-bloodcells")) / "models"
