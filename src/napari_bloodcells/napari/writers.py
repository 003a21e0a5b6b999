"""Writers: the cell layer as VOC XML, as ``cells.csv``, as COCO JSON.

The boxes are taken from the shapes and the rest from the features, so any Shapes layer can be saved; one without
classes gives boxes named ``WBC``.  A file that is there already is kept under ``NAME~1``: nothing is overwritten.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.napari.fields import METADATA
from napari_bloodcells.napari.geometry import box_of, plane_of

if TYPE_CHECKING:
    import pandas as pd

UNTYPED = "WBC"


def write_cells_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a cell layer as ``cells.csv``, corrections included; cells that were deleted are in it as ``not a WBC``."""
    import pandas as pd

    from napari_bloodcells.core.counting.cellstable import write_cells

    table = layer_table(data, attributes)
    if deleted := attributes.get("metadata", {}).get(METADATA, {}).get("deleted"):
        gone = pd.DataFrame(deleted).reindex(columns=table.columns)
        table = gone if table.empty else pd.concat([table, gone], ignore_index=True)
    return [str(write_cells(table, _free(Path(path))))]


def write_voc_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a cell layer as VOC XML: one file, or one per field of a series (``NAME_field.xml``).

    Cells that are no WBC are left out; an unidentified one is called ``WBC``.
    """
    from napari_bloodcells import write_voc
    from napari_bloodcells.core.boxes import Boxes
    from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED
    from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS

    table = layer_table(data, attributes)
    sizes = _sizes(table, attributes)
    target = Path(path)
    files = _file_of_each(list(sizes), target)
    written: list[str] = []
    for name in sizes:
        rows = table[(table["image"] == name) & (table["class"] != NOT_A_WBC)]
        labels = tuple(UNTYPED if label == UNIDENTIFIED else str(label) for label in rows["class"])
        boxes = Boxes(rows[list(BOX_COLUMNS)].to_numpy(np.float32), labels)
        height, width = sizes[name]
        written.append(str(write_voc(_free(files[name]), boxes, image=name, width=width, height=height)))
    return written


def write_coco_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a cell layer as COCO JSON."""
    import pandas as pd

    from napari_bloodcells.core.files import write_atomic
    from napari_bloodcells.core.report.annotations import coco
    from napari_bloodcells.core.report.inputs import ReportInput
    from napari_bloodcells.napari.tables import scheme_of_frame

    table = layer_table(data, attributes)
    sizes = _sizes(table, attributes)
    rows = [(name, "ok", width, height) for name, (height, width) in sizes.items()]
    images = pd.DataFrame(rows, columns=["image", "status", "width", "height"])
    text = coco(ReportInput(table, images, scheme_of_frame(table)))
    return [str(write_atomic(_free(Path(path)), text.encode(), overwrite=False))]


def layer_table(data: Sequence[Any], attributes: dict[str, Any]) -> pd.DataFrame:
    """The ``cells`` table of a Shapes layer: boxes as they lie on the canvas, all else from its features."""
    import pandas as pd

    from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS

    features = pd.DataFrame(attributes.get("features")).reset_index(drop=True)
    boxes = np.array([box_of(shape) for shape in data], float).reshape(-1, 4)
    if {"image", "cell", "class"} <= set(features.columns) and len(features) == len(boxes):
        table = features.copy()
        table["class"] = table["class"].astype(str)
    else:
        table = _plain_table(data, attributes)
    for k, side in enumerate(BOX_COLUMNS):
        table[side] = boxes[:, k]
    leading = [c for c in ("image", "cell", *BOX_COLUMNS, "class") if c in table.columns]
    return table[[*leading, *(c for c in table.columns if c not in leading)]]


def _plain_table(data: Sequence[Any], attributes: dict[str, Any]) -> pd.DataFrame:
    """For shapes that were drawn without this plugin: numbered boxes of the fields that the metadata names."""
    import pandas as pd

    images = attributes.get("metadata", {}).get(METADATA, {}).get("images") or [attributes.get("name", "image")]
    planes = [plane_of(shape) for shape in data]
    names = [images[p] if p < len(images) else f"{images[-1]} [{p + 1}]" for p in planes]
    numbers = [planes[: k + 1].count(p) for k, p in enumerate(planes)]
    return pd.DataFrame({"image": names, "cell": numbers, "class": UNTYPED, "box_source": "drawn"})


def _sizes(table: pd.DataFrame, attributes: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Height and width of each field: as the metadata tells, else as far as the boxes reach."""
    known = attributes.get("metadata", {}).get(METADATA, {})
    sizes = dict(zip(known.get("images", ()), known.get("sizes", ()), strict=False))
    found: dict[str, tuple[int, int]] = {}
    for name in dict.fromkeys([*known.get("images", ()), *table["image"]]):
        rows = table[table["image"] == name]
        if name in sizes and min(sizes[name]) > 0:
            found[name] = (int(sizes[name][0]), int(sizes[name][1]))
        elif len(rows):
            found[name] = (int(np.ceil(rows["y_max"].max())), int(np.ceil(rows["x_max"].max())))
    return found


def _file_of_each(names: list[str], target: Path) -> dict[str, Path]:
    """The XML of each field: ``target`` of a single one, else one beside it that tells the field; never one for two."""
    if len(names) == 1:
        return {names[0]: target}
    flat = Counter(_flat(name) for name in names)
    found: dict[str, Path] = {}
    for name in names:
        told = _flat(name) if flat[_flat(name)] == 1 else name.replace("/", "_").replace(os.sep, "_")
        file, number = target.with_name(f"{target.stem}_{told}.xml"), 2
        while file in found.values():
            file, number = target.with_name(f"{target.stem}_{told}-{number}.xml"), number + 1
        found[name] = file
    return found


def _flat(name: str) -> str:
    return str(Path(name).with_suffix("")).replace("/", "_").replace(os.sep, "_")


def _free(path: Path) -> Path:
    """``path``, free to be written: a file that is there is renamed to ``NAME~1``, ``NAME~2``."""
    if not path.exists():
        return path
    number = 1
    while (kept := path.with_name(f"{path.name}~{number}")).exists():
        number += 1
    try:
        os.rename(path, kept)
    except OSError as error:
        raise OutputError(f"{path.name}: is there and cannot be put aside ({error.strerror or error}).") from error
    return path
