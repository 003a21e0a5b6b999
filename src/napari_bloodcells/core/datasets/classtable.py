"""Tables of single cells (``jtsc``, ``cellavision``): a file, and its class by name or by number.

Numbers are those of segmentation_WBC (Zheng 2018): 1 neutrophil, 2 lymphocyte, 3 monocyte, 4 eosinophil, 5 basophil;
-1 means that the authors could not say, and the image is skipped.  Anybody else's numbers may mean something else, so
that the meaning taken is told before all other problems.
"""

from __future__ import annotations

from napari_bloodcells.core.datasets.base import DataSet, Sample
from napari_bloodcells.core.datasets.folder import Folder
from napari_bloodcells.core.datasets.tables import CLASS_COLUMNS, IMAGE_COLUMNS, column, has_boxes
from napari_bloodcells.core.files import natural_key

_NUMBERED = {"1": "neutrophil", "2": "lymphocyte", "3": "monocyte", "4": "eosinophil", "5": "basophil"}
_SKIP = "-1"


def read(folder: Folder) -> DataSet | None:
    """The data set of a folder with a table of files and classes, or None where there is none."""
    samples: dict[str, Sample] = {}
    for path, rows in folder.tables:
        image_column, class_column = column(rows, IMAGE_COLUMNS), column(rows, CLASS_COLUMNS)
        if image_column is None or class_column is None or has_boxes(rows):
            continue
        missing = 0
        numbered = False
        for number, row in enumerate(rows, 2):
            text = row[class_column].removesuffix(".0")
            if text == _SKIP:
                continue
            image = folder.index.find(row[image_column])
            if image is None:
                missing += 1
                continue
            if text.isdecimal() and text not in _NUMBERED:
                folder.problems.append(f"{path.name}: line {number}: class {text} is not one of 1 to 5; no label.")
                text = ""
            numbered |= text in _NUMBERED
            detail = _NUMBERED.get(text, text) or None
            if image.as_posix() in samples:
                folder.problems.append(f"{path.name}: line {number}: {image.name} is here twice; the first is taken.")
                continue
            group = folder.grouping.of(image)
            samples[image.as_posix()] = Sample(
                image, None, folder.label(detail), group, folder.name, folder.split(image), detail=detail
            )
        if numbered:
            meaning = ", ".join(f"{number} {name}" for number, name in _NUMBERED.items())
            folder.problems.insert(0, f"{path.name}: classes are numbers: taken are {meaning}; else write names.")
        if missing:
            folder.problems.append(f"{path.name}: {missing} rows have no image here; left out.")
    if not samples:
        return None
    ordered = sorted(samples.values(), key=lambda s: natural_key(s.image))
    return DataSet(folder.name, folder.root, tuple(ordered), "table", (), tuple(folder.problems))
