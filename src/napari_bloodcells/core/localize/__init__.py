"""Finding the cells of a field that has no annotation."""

from napari_bloodcells.core.localize.base import Field, Localizer
from napari_bloodcells.core.localize.load import load_localizer

__all__ = ["Field", "Localizer", "load_localizer"]
