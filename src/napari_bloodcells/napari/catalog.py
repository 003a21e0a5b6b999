"""Which models there are, told without loading torch: the names of the bundles in the places where the core looks.

A model trained in this session is offered at once (``offer``), in every open widget.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from psygnal import Signal

from napari_bloodcells.core.installed import model_homes

METADATA = "model.json"
DEFAULT = "default"


class CatalogEvents:
    """``offered``: a bundle (its folder) was trained or chosen, and can be used from now on."""

    offered = Signal(str)


events = CatalogEvents()
_offered: list[str] = []


def model_names() -> list[str]:
    """``default``, then the installed models by name, then the bundles of this session by folder."""
    names = {folder.name for home in model_homes() for folder in _folders(home)}
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
