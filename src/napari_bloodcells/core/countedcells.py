"""The cells of a finished count as a data set: each with its class, the scale of its field, and who named it.

A cell that a person looked at has that person's class, any other the machine's.  The photographs lie where the run
found them, or beside the tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.core.counting.output import find_table, image_root
from napari_bloodcells.core.datasets.base import MACHINE, REVIEWED, DataSet, Sample
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.find import is_output_folder
from napari_bloodcells.core.groups import Grouping

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.counting.result import CountResult

_COLUMNS = {"image", "cell", "class", "confidence", *BOX_COLUMNS}


@dataclass(frozen=True)
class CountedCells:
    """The cells of a count.

    Attributes
    ----------
    dataset : DataSet
        One sample a cell, in the order of the table; ``sure`` are those that a person looked at.
    names : tuple of str
        For each sample what its picture may be called: photograph, number of the cell, ``reviewed`` or ``machine``.
    sizes : dict of Path to (width, height)
        Of each photograph as it was counted, in pixels.
    """

    dataset: DataSet
    names: tuple[str, ...]
    sizes: dict[Path, tuple[int, int]]

    @property
    def n_reviewed(self) -> int:
        """Cells that a person looked at."""
        return sum(sample.sure for sample in self.dataset.samples)


def holds_count(folder: Path) -> bool:
    """Whether a folder holds the cells of a count: its output folder, or one with a ``cells.csv`` of its columns."""
    table = find_table(folder, "cells")
    if table is None or table.suffix != ".csv":
        return table is not None and is_output_folder(folder)
    try:
        with table.open(encoding="utf-8-sig", errors="replace") as file:
            return {name.strip() for name in file.readline().split(",")} >= _COLUMNS
    except OSError:
        return False


def read_counted(folder: Path, images: Path | None = None, corrections: Sequence[Path] = ()) -> CountedCells:
    """The cells of a count.

    Parameters
    ----------
    folder : Path
        The output folder of a count, or a folder of photographs with the ``cells.csv`` and ``images.csv`` of one.
    images : Path, optional
        The folder that was counted, if it has moved since.
    corrections : sequence of Path
        Each a ``cells.csv`` exported by the report page or the plugin; of one cell the last correction holds.

    Raises
    ------
    UsageError, AnnotationError, OutputError
        A table is not sound, or the photographs are not to be found.
    """
    from napari_bloodcells.core.report.inputs import from_folder

    found = from_folder(folder, images, corrections)
    listed = list(dict.fromkeys(str(name) for name in found.images["image"]))
    place = images or image_root(folder, found.run, listed)
    if place is None:
        raise UsageError(
            f"{display_name(folder)}: the photographs of this count are not where they were; give their folder with "
            "--images."
        )
    grouping = Grouping(place.resolve().name or "data", place)
    fields = {str(row["image"]): row for row in found.images.to_dict("records")}
    problems: list[str] = []
    samples: list[Sample] = []
    names: list[str] = []
    for name, cells in found.cells.groupby("image", sort=False):
        path = _below(place, str(name))
        if path is None:
            problems.append(f"{name}: does not lie below the folder of the photographs; its cells are left out.")
            continue
        scale, group = _number(fields.get(str(name), {}).get("um_per_pixel")), grouping.of(path)
        stem = re.sub(r"[^\w.-]+", "_", str(PurePosixPath(str(name)).with_suffix("")))
        for row, reviewed in zip(cells.to_dict("records"), _reviewed(cells), strict=True):
            x_min, y_min, x_max, y_max = (float(row[side]) for side in BOX_COLUMNS)
            label = str(row["class"]) or None
            samples.append(
                Sample(path, (x_min, y_min, x_max, y_max), label, group, place.name, None, reviewed, scale, label)
            )
            names.append(f"{stem}_{row['cell']}_{REVIEWED if reviewed else MACHINE}")
    sizes = {place / name: size for name, row in fields.items() if (size := _size(row)) is not None}
    dataset = DataSet(place.name, place, tuple(samples), "count", problems=tuple(problems))
    return CountedCells(dataset, tuple(names), sizes)


def dataset_of(result: CountResult, name: str) -> DataSet:
    """The cells of a count of files that was just made, by the machine's class, called ``name``."""
    scales = {str(row["image"]): _number(row["um_per_pixel"]) for row in result.images.to_dict("records")}
    samples = []
    for row in result.cells.to_dict("records"):
        image = str(row["image"])
        x_min, y_min, x_max, y_max = (float(row[side]) for side in BOX_COLUMNS)
        label = str(row["class"]) or None
        box = x_min, y_min, x_max, y_max
        path = Path(result.files[image])
        samples.append(Sample(path, box, label, image, name, None, False, scales[image], label))
    return DataSet(name, result.root or Path(), tuple(samples), "count")


def _reviewed(cells: pd.DataFrame) -> list[bool]:
    """Which cells have a person's class: looked at, or of another class than the machine said."""
    looked = cells["reviewed"].astype(bool) if "reviewed" in cells else cells["cell"] < 0
    if "machine_class" in cells:
        looked = looked | ((cells["machine_class"] != "") & (cells["machine_class"] != cells["class"]))
    return [bool(value) for value in looked]


def _below(place: Path, name: str) -> Path | None:
    """``name`` below ``place``; None for one that leads out of it (a table is not to be believed)."""
    parts = PurePosixPath(name)
    return None if parts.is_absolute() or ".." in parts.parts else place / name


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None


def _size(row: dict[str, Any]) -> tuple[int, int] | None:
    width, height = _number(row.get("width")), _number(row.get("height"))
    return None if width is None or height is None else (int(width), int(height))
