"""Where a localizer lies and which files it is made of, told without loading torch; ``store.py`` reads them."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from napari_bloodcells.core.errors import BundleError
from napari_bloodcells.core.files import display_name

WEIGHTS, METADATA = "localizer.safetensors", "localizer.json"
DEFAULT = "find"


def home(name: str | Path = "default") -> Path:
    """The folder of an installed localizer (``default``, ``find``) or the one that is given.

    Raises
    ------
    BundleError
        If the one that is given may not be entered.
    """
    if str(name) in ("default", DEFAULT):
        return Path(str(files("napari_bloodcells") / "weights" / DEFAULT))
    folder = Path(name)
    try:
        os.stat(folder / METADATA)
    except PermissionError:
        raise BundleError(
            f"{display_name(folder)}: is a folder that may not be read; see to its permissions."
        ) from None
    except (OSError, ValueError):  # whoever reads it says so
        pass
    return folder


def is_localizer(name: str | Path) -> bool:
    """Whether ``name`` is that of the installed localizer, or a folder that holds one (``default`` is a classifier)."""
    return str(name) == DEFAULT or os.path.isfile(Path(name) / METADATA)
