"""Where a localizer lies and which files it is made of, told without loading torch; ``store.py`` reads them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

WEIGHTS, METADATA = "localizer.safetensors", "localizer.json"
DEFAULT = "find"


def home(name: str | Path = "default") -> Path:
    """The folder of an installed localizer (``default``, ``find``) or the one that is given."""
    if str(name) in ("default", DEFAULT):
        return Path(str(files("napari_bloodcells") / "weights" / DEFAULT))
    return Path(name)


def is_localizer(name: str | Path) -> bool:
    """Whether ``name`` is that of the installed localizer, or a folder that holds one (``default`` is a classifier)."""
    return str(name) == DEFAULT or (Path(name) / METADATA).is_file()
