"""Drawn smear fields with known truth: for the demo, for tests, for load tests and for the pictures of the docs.

``draw_smear(seed, settings)`` draws one field; ``write_folder`` writes many with VOC XML and ``truth.csv``.  The image
is built as a microscope makes it: every cell adds optical density (``cells``, ``red_cells``), the slide adds dirt and
plasma (``ground``), light falls through it (Beer-Lambert) and lens and camera spoil it a little (``optics``).  Nothing
was copied from a photograph: the fields prove that the chain works, they say nothing of accuracy on real blood.
"""

from napari_bloodcells.synthetic.folder import write_folder
from napari_bloodcells.synthetic.settings import CELL_TYPES, NORMAL_ADULT, Ground, Optics, SmearSettings, Stain
from napari_bloodcells.synthetic.smear import Smear, draw_smear

__all__ = [
    "CELL_TYPES",
    "NORMAL_ADULT",
    "Ground",
    "Optics",
    "Smear",
    "SmearSettings",
    "Stain",
    "draw_smear",
    "write_folder",
]
