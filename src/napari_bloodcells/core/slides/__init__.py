"""Whole slides and huge TIFFs: read region by region, counted field by field, never held as a whole."""

from napari_bloodcells.core.slides.opening import Slide, is_slide, open_slide

__all__ = ["Slide", "is_slide", "open_slide"]
