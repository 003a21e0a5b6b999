"""The boxes for other programs: COCO JSON (training frameworks) and GeoJSON (QuPath), as plain values."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS

if TYPE_CHECKING:
    from napari_bloodcells.core.report.inputs import ReportInput

GREY = "#999999"
_NAMESPACE = uuid.UUID("b2f9a2ea-0b47-5d9e-8ef1-6a5e4bb57b6e")


def coco(data: ReportInput) -> str:
    """All boxes as COCO instances: ``bbox`` is ``x y width height`` in pixels, categories count from 1.

    The final class is the category; the machine's confidence is in ``score``.  A class beyond the scheme
    (unidentified, not a WBC) has a category too, so that nothing is lost.
    """
    labels = [str(name) for name in data.cells["class"]]
    names = [*data.scheme.names, *(n for n in dict.fromkeys(labels) if n not in data.scheme.names)]
    category = {name: i for i, name in enumerate(names, 1)}
    files = list(dict.fromkeys([*map(str, data.images["image"]), *map(str, data.cells["image"])]))
    number = {name: i for i, name in enumerate(files, 1)}
    sizes = image_sizes(data)
    pictures: list[dict[str, Any]] = []
    for name in files:
        size = dict(zip(("width", "height"), sizes[name], strict=True)) if name in sizes else {}
        pictures.append({"id": number[name], "file_name": name, **size})
    boxes = data.cells[list(BOX_COLUMNS)].to_numpy(float)
    sure = data.cells["confidence"] if "confidence" in data.cells.columns else [None] * len(labels)
    entries = []
    for i, (image, label, score, box) in enumerate(zip(data.cells["image"], labels, sure, boxes, strict=True), 1):
        x_min, y_min, x_max, y_max = (round(float(v), 2) for v in box)
        width, height = round(x_max - x_min, 2), round(y_max - y_min, 2)
        entry: dict[str, Any] = {"id": i, "image_id": number[str(image)], "category_id": category[label]}
        entry |= {"bbox": [x_min, y_min, width, height], "area": round(width * height, 2), "iscrowd": 0}
        if score is not None and score == score:
            entry["score"] = round(float(score), 4)
        entries.append(entry)
    categories = [{"id": i, "name": name, "supercategory": "cell"} for name, i in category.items()]
    info = {"description": "napari-bloodcells", "version": str(_version(data))}
    whole = {"info": info, "images": pictures, "annotations": entries}
    return json.dumps({**whole, "categories": categories}, indent=1) + "\n"


def geojson(data: ReportInput, image: str) -> str:
    """The boxes of one image as a GeoJSON FeatureCollection that QuPath imports as detections of their class.

    Coordinates are pixels of the full-resolution image, the origin in the upper left corner, as QuPath has them.
    """
    cells = data.cells[data.cells["image"] == image]
    colors = data.scheme.colors
    features = []
    for row in cells.to_dict("records"):
        x_min, y_min, x_max, y_max = (float(row[name]) for name in BOX_COLUMNS)
        ring = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]
        label = str(row["class"])
        color = colors.get(label, GREY)
        measured = {str(k): v for k, v in row.items() if str(k).startswith("p_") and v == v}
        if row.get("confidence") == row.get("confidence") and row.get("confidence") is not None:
            measured["confidence"] = row["confidence"]
        properties: dict[str, Any] = {"objectType": "detection", "name": f"cell {row['cell']}"}
        properties["classification"] = {"name": label, "color": [int(color[k : k + 2], 16) for k in (1, 3, 5)]}
        properties["measurements"] = measured
        key = f"{image}\0{row['cell']}".encode("utf-8", "backslashreplace").decode()
        identity = str(uuid.uuid5(_NAMESPACE, key))
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "id": identity, "geometry": geometry, "properties": properties})
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def image_sizes(data: ReportInput) -> dict[str, tuple[int, int]]:
    """Width and height of the images whose table tells them."""
    if not {"width", "height"} <= set(data.images.columns):
        return {}
    table = data.images[data.images["width"].notna() & data.images["height"].notna()]
    rows = zip(table["image"], table["width"], table["height"], strict=True)
    return {str(name): (int(width), int(height)) for name, width, height in rows}


def _version(data: ReportInput) -> str:
    versions = data.run.get("versions")
    return str(versions.get("napari-bloodcells", "")) if isinstance(versions, dict) else ""
