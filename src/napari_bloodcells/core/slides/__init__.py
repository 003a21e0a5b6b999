"""Whole slides and huge TIFFs: read region by region, counted field by field, never held as a whole."""

from napari_bloodcells.core.slides.arrayslide import ArraySlide
from napari_bloodcells.core.slides.opening import is_large, is_slide, open_slide
from napari_bloodcells.core.slides.slide import Slide

__all__ = ["ArraySlide", "Slide", "is_large", "is_slide", "open_slide"]
