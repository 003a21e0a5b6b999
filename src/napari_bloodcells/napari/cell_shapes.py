"""The shapes of a review: what napari is given to draw its cells as boxes, in one piece or a few at a time.

A Shapes layer of thousands is filled in parts, so that the window answers in between (250 boxes take 50 ms).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.fields import METADATA, Fields
from napari_bloodcells.napari.geometry import box_of, rectangles
from napari_bloodcells.napari.palette import class_color, rgba
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import features_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from napari.layers import Image, Shapes

AT_ONCE = 250
"""Boxes that are added to a layer in one piece."""


def edge_width(cells: Sequence[Cell]) -> float:
    """Width of the frames in pixels of the image: a thirtieth of a usual box, so that it looks the same at any scale.

    >>> edge_width([Cell(1, 0, 1, (0, 0, 90, 90), "monocyte")])
    3.0
    """
    sides = [max(c.box[2] - c.box[0], c.box[3] - c.box[1]) for c in cells]
    return float(np.clip(np.median(sides) / 30, 0.5, 20)) if sides else 3.0


def cell_layer_data(review: Review, name: str, series: bool, image: Image | None = None) -> tuple[Any, dict[str, Any]]:
    """Data and keywords of the Shapes layer of a review; scale, translation and turn are those of ``image``."""
    cells = review.cells
    shapes = rectangles([c.box for c in cells], [c.image for c in cells] if series else None)
    keywords: dict[str, Any] = {
        "name": name,
        "ndim": 3 if series else 2,
        "shape_type": "rectangle",
        "edge_width": edge_width(cells),
        "opacity": 1.0,
        "face_color": "transparent",
        "edge_color": [rgba(class_color(review.scheme, c.name)) for c in cells] or "#999999",
        "features": features_frame(review, cells),
        "metadata": {METADATA: {"images": list(review.images), **review.info}},
    }
    if image is not None:
        keywords.update(
            scale=image.scale, translate=image.translate, rotate=image.rotate, shear=image.shear, affine=image.affine
        )
        keywords["units"] = image.units
        keywords["metadata"][METADATA] |= {"image_layer": image.name, "image_id": str(image.unique_id)}
    return shapes, keywords


def first_part(review: Review, fields: Fields) -> tuple[Any, dict[str, Any]]:
    """Data and keywords of a new layer, not visible yet, with the first cells of a review; ``fill`` adds the others."""
    shapes, keywords = cell_layer_data(review, f"{fields.layer.name} cells", fields.series, fields.layer)
    if len(shapes) > AT_ONCE:
        keywords["edge_color"] = keywords["edge_color"][:AT_ONCE]
        keywords["features"] = keywords["features"].iloc[:AT_ONCE]
    keywords["visible"] = False
    return shapes[:AT_ONCE], keywords


def empty(layer: Shapes, keywords: dict[str, Any]) -> None:
    """Make a layer ready for the cells of another review, of which ``keywords`` are (``cell_layer_data``)."""
    layer.selected_data = set()
    layer.text = None
    layer.data = []
    layer.features = keywords["features"].iloc[:0]
    layer.metadata = keywords["metadata"]


def refill(layer: Shapes, review: Review, series: bool) -> None:
    """Put the cells of a review on a layer in place of those that it holds, in one piece."""
    keywords = cell_layer_data(review, layer.name, series)[1]
    empty(layer, {**keywords, "metadata": dict(layer.metadata)})
    for _ in fill(layer, review, series):
        pass


def fill(layer: Shapes, review: Review, series: bool) -> Iterator[None]:
    """Add the cells of a review that a layer does not hold yet, in parts; features and classes come last."""
    cells = review.cells
    width = edge_width(cells)
    while layer.nshapes < len(cells):
        part = cells[layer.nshapes : layer.nshapes + AT_ONCE]
        layer.add(
            rectangles([c.box for c in part], [c.image for c in part] if series else None),
            shape_type="rectangle",
            edge_width=width,
            edge_color=[rgba(class_color(review.scheme, c.name)) for c in part],
            face_color="transparent",
        )
        yield


def table_as_it_lies(layer: Shapes) -> pd.DataFrame:
    """The features of a layer, with the boxes of shapes that were moved while nobody followed them."""
    table = layer.features
    if len(table) != layer.nshapes or not set(BOX_COLUMNS) <= set(table.columns):
        return table
    table = table.copy()
    columns = [table.columns.get_loc(side) for side in BOX_COLUMNS]
    for row, shape in enumerate(layer.data):
        box = box_of(shape)
        if max(abs(a - float(table.iat[row, c])) for a, c in zip(box, columns, strict=True)) > 0.02:
            for side, column in zip(box, columns, strict=True):
                table.iat[row, column] = side
    return table
