"""Labeled photographs of many layouts behind one interface: ``load_dataset(folder)`` gives a ``DataSet``.

One reader a file; ``load`` chooses by what the folder holds.  Which pictures show one and the same cell stands in
``groups/*.csv`` and is applied by ``core.groups``, as are the splits.
"""

from napari_bloodcells.core.datasets.base import DataSet, FieldTruth, Sample, scale_of_red_cells
from napari_bloodcells.core.datasets.load import Data, load_dataset, open_datasets

__all__ = ["Data", "DataSet", "FieldTruth", "Sample", "load_dataset", "open_datasets", "scale_of_red_cells"]
