"""Readers: a VOC file with its photograph, the ``cells.csv`` of a former count, a folder as a series.

Each ``..._reader`` looks at the path only and gives the function that reads; an error is told by napari with its text.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.errors import AnnotationError, DataWarning, ImageError
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.cell_shapes import cell_layer_data
from napari_bloodcells.napari.fields import METADATA
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.series import image_layer
from napari_bloodcells.napari.tables import review_of_frame

if TYPE_CHECKING:
    import pandas as pd

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[str], list[LayerData]]
OUTPUT_SUFFIX = "-differential"
_SNIFF = 4096
_SCHEME = "wbc5"
OTHER_CELLS = ("RBC", "Platelets")


def voc_reader(path: str | Sequence[str]) -> Reader | None:
    """For a VOC XML: its photograph and its boxes; None for other XML files."""
    if not isinstance(path, str) or not path.lower().endswith(".xml"):
        return None
    try:
        with Path(path).open("rb") as file:
            head = file.read(_SNIFF)
    except OSError:
        return None
    return read_voc_layers if b"annotation" in head.replace(b"\0", b"") else None


def cells_reader(path: str | Sequence[str]) -> Reader | None:
    """For a ``cells.csv`` (of the command, the plugin, or corrections of the report); None for other tables."""
    if not isinstance(path, str) or not path.lower().endswith(".csv"):
        return None
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            names = {name.strip() for name in file.readline().split(",")}
    except OSError:
        return None
    return read_cells_layers if {"image", "cell", "x_min", "class"} <= names else None


def folder_reader(path: str | Sequence[str]) -> Reader | None:
    """For a folder that holds photographs."""
    from napari_bloodcells.core.find import IMAGE_SUFFIXES

    if not isinstance(path, str) or not Path(path).is_dir():
        return None
    inside = (p.suffix.lower() for p in Path(path).rglob("*"))
    return read_folder_layers if any(suffix in IMAGE_SUFFIXES for suffix in inside) else None


def read_voc_layers(path: str) -> list[LayerData]:
    """The photograph of a VOC file, and its boxes: white cells to be reviewed, red cells and platelets in grey."""
    from napari_bloodcells import read_voc
    from napari_bloodcells.core.classes import UNIDENTIFIED, load_scheme
    from napari_bloodcells.core.datasets.folder import box_kind

    annotation = read_voc(path)
    photo = photograph_of(annotation.path, annotation.filename)
    name = photo.name if photo is not None else annotation.filename or annotation.path.stem
    scheme = load_scheme(_SCHEME)
    cells = [
        Cell(
            id=number,
            image=0,
            number=number,
            box=tuple(float(v) for v in box),  # type: ignore[arg-type]
            name=label if box_kind(label) in OTHER_CELLS else scheme.canonical(label) or UNIDENTIFIED,
            source="xml",
            label=scheme.canonical(label) or "",
        )
        for number, (box, label) in enumerate(zip(annotation.boxes.xyxy, annotation.boxes.labels, strict=True), 1)
    ]
    info: dict[str, Any] = {"boxes": "xml", "sizes": [[annotation.height, annotation.width]]}
    layers: list[LayerData] = []
    if photo is None:
        warnings.warn(
            f"{annotation.path.name}: its photograph ({annotation.filename or 'not named'}) is not beside it; "
            "only the boxes are shown.",
            DataWarning,
            stacklevel=2,
        )
    else:
        layers.append(image_layer([photo]))
        info["image_layer"] = photo.name
        info["sizes"] = layers[0][1]["metadata"][METADATA]["sizes"]
    shapes, keywords = cell_layer_data(Review(scheme, [name], cells, info=info), f"{name} cells", series=False)
    return [*layers, (shapes or None, keywords, "shapes")]


def photograph_of(xml: Path, filename: str) -> Path | None:
    """The photograph that a VOC file is of: in its folder, or in the image folder beside it, as VOC lays data out."""
    from napari_bloodcells.core.find import find_images
    from napari_bloodcells.core.matching import match_annotations

    folders = [xml.parent, *(xml.parent.parent / name for name in ("JPEGImages", "images", "Images"))]
    for folder in folders:
        if filename and (folder / filename).is_file():
            return folder / filename
    try:
        images = find_images([f for f in folders if f.is_dir()], recursive=False)
    except ImageError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return next(iter(match_annotations(images, [xml])), None)


def read_cells_layers(path: str) -> list[LayerData]:
    """The photographs of a former count, as one field or a series, and its cells with every correction."""
    from napari_bloodcells.core.counting.cellstable import read_cells
    from napari_bloodcells.core.differential import slides_in

    table = Path(path)
    frame = read_cells(table)
    root = image_root(table, frame)
    names = _image_names(table, frame)
    run = _run_of(table)
    info: dict[str, Any] = {"table": str(table), "model": run.get("model", {}), "slides": sorted(slides_in(run))}
    if root is None:
        warnings.warn(
            f"{table.name}: its photographs ({names[0] if names else 'none named'}) are not where they were; "
            "only the boxes are shown.",
            DataWarning,
            stacklevel=2,
        )
        review = review_of_frame(frame, names, info=info)
        shapes, keywords = cell_layer_data(review, f"{table.parent.name} cells", series=len(names) > 1)
        return [(shapes or None, keywords, "shapes")]
    present = [name for name in names if (root / name).is_file()]
    image = image_layer([root / name for name in present], present, present[0] if len(present) == 1 else root.name)
    shown = image[1]["metadata"][METADATA]
    lost = frame[~frame["image"].isin(shown["images"])]
    if len(lost):
        warnings.warn(
            f"{table.name}: {lost['image'].nunique()} photographs are missing; their {len(lost)} cells are left out.",
            DataWarning,
            stacklevel=2,
        )
    info |= {"image_layer": image[1]["name"], "sizes": shown["sizes"]}
    review = review_of_frame(frame[frame["image"].isin(shown["images"])], shown["images"], info=info)
    shapes, keywords = cell_layer_data(review, f"{image[1]['name']} cells", series=len(shown["images"]) > 1)
    return [image, (shapes or None, keywords, "shapes")]


def image_root(table: Path, frame: pd.DataFrame) -> Path | None:
    """The folder that the names in a ``cells.csv`` are relative to; None where the photographs are not to be found.

    Told by ``run.json`` beside the table, else the folder of the table, the one it was named after
    (``smears-differential``), or the one above.
    """
    from napari_bloodcells.core.counting.output import image_root as root_of

    names = [str(name) for name in frame["image"].unique()[:20]] or _image_names(table, frame)
    return root_of(table.resolve().parent, _run_of(table), names)


def _run_of(table: Path) -> dict[str, Any]:
    """The ``run.json`` beside a table; empty where there is none that can be read."""
    try:
        run = json.loads((table.parent / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return run if isinstance(run, dict) else {}


def _image_names(table: Path, frame: pd.DataFrame) -> list[str]:
    """All fields of the count, also those without a cell, where ``images.csv`` stands beside the table."""
    import pandas as pd

    names = [str(name) for name in frame["image"].unique()]
    try:
        images = pd.read_csv(table.parent / "images.csv", dtype=str, keep_default_na=False)
        counted = [str(n) for n, status in zip(images["image"], images["status"], strict=True) if status == "ok"]
    except (OSError, ValueError, KeyError):
        return names
    return counted if set(names) <= set(counted) else names


def read_folder_layers(path: str) -> list[LayerData]:
    """The photographs of a folder, in natural order, as a series to browse."""
    from napari_bloodcells.core.find import find_images

    folder = Path(path)
    images = find_images([folder])
    if not images:
        raise AnnotationError(f"{folder.name}: holds no photographs (JPEG, PNG, BMP, WebP or TIFF).")
    return [image_layer(images, [p.relative_to(folder).as_posix() for p in images], folder.name)]
