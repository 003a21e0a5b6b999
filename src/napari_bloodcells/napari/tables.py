"""Between a review and the tables: ``cells.csv``, the features of the Shapes layer, and the result of a count.

All have the columns that ``core/counting/cellstable.py`` names, so a review goes into a table and comes back the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED, ClassScheme, load_scheme, parse_scheme, scheme_names
from napari_bloodcells.core.counting.cellstable import (
    BOX_COLUMNS,
    PROBABILITY_PREFIX,
    cell_columns,
    probability_columns,
)
from napari_bloodcells.napari.cell import Cell
from napari_bloodcells.napari.review import Review

if TYPE_CHECKING:
    import pandas as pd

IMAGE_COLUMNS = ("image", "status", "n_rbc", "n_platelets", "um_per_pixel", "problems", "warnings")


def review_frame(review: Review, cells: Sequence[Cell] | None = None) -> pd.DataFrame:
    """``cells`` (all of the review where None is given) as a reviewed ``cells`` table, a row each, in their order."""
    import pandas as pd

    shown = review.cells if cells is None else cells
    names = review.scheme.names
    blank = (math.nan,) * len(names)
    rows = [
        (
            review.images[c.image],
            c.number,
            *c.box,
            c.name,
            c.confidence,
            *(c.probabilities or blank),
            c.source,
            c.distance,
            c.label,
            c.machine,
            c.reviewed,
            c.reviewer,
            c.time,
        )
        for c in shown
    ]
    frame = pd.DataFrame(rows, columns=cell_columns(names, labeled=True, reviewed=True))
    numeric = [*BOX_COLUMNS, "confidence", "distance", *probability_columns(frame)]
    frame = frame.astype({**dict.fromkeys(numeric, "float64"), "cell": "int64", "reviewed": "bool"})
    return frame if any(c.label for c in shown) else frame.drop(columns="label")


def deleted_rows(review: Review) -> list[dict[str, Any]]:
    """Rows that tell who reads a table of the review which of the counted cells were deleted: as ``not a WBC``, where
    they were found."""
    cells = [
        replace(c, name=NOT_A_WBC, box=c.origin or c.box, reviewed=True) for c in review.deleted if c.source != "drawn"
    ]
    return review_frame(review, cells).to_dict("records") if cells else []


def image_records(images: pd.DataFrame) -> list[dict[str, Any]]:
    """What the ``images`` table of a count says of each field beside its cells, for ``Review.info["fields"]``."""
    found: list[dict[str, Any]] = json.loads(
        images[[c for c in IMAGE_COLUMNS if c in images]].to_json(orient="records")
    )
    return found


def images_frame(review: Review) -> pd.DataFrame:
    """The ``images`` table of a review as it stands: counts of its cells, and what the count said of each field."""
    import pandas as pd

    from napari_bloodcells.core.counting.cells import recount_images

    kept = {entry["image"]: entry for entry in review.info.get("fields", ())}
    images = pd.DataFrame([{"image": name, "status": "ok", **kept.get(name, {})} for name in review.images])
    cells = review.reviewable()
    classes = pd.DataFrame({"image": [review.images[c.image] for c in cells], "class": [c.name for c in cells]})
    return recount_images(images, classes, review.scheme)


def features_frame(review: Review, cells: Sequence[Cell]) -> pd.DataFrame:
    """The table as features of a Shapes layer: the class is a category, so that a table offers only real ones."""
    import pandas as pd

    frame = review_frame(review, cells)
    strangers = dict.fromkeys(c.name for c in cells if review.is_bystander(c))
    frame["class"] = pd.Categorical(frame["class"], categories=[*review.class_names(), *strangers])
    return frame


def frame_cells(frame: pd.DataFrame, scheme: ClassScheme, images: Sequence[str], first_id: int = 1) -> list[Cell]:
    """The rows of a ``cells`` table as cells; ``images`` gives the field of each by its name.

    A class that the scheme knows under another name is brought to its own; one that it does not know stays as it is.
    The machine's class of a table that nobody reviewed is its class.
    """
    place = {name: i for i, name in enumerate(images)}
    own = {UNIDENTIFIED, NOT_A_WBC}
    columns = [PROBABILITY_PREFIX + name for name in scheme.names]
    known = all(column in frame.columns for column in columns)
    cells: list[Cell] = []
    for k, row in enumerate(frame.to_dict("records")):
        name = _text(row.get("class")) or UNIDENTIFIED
        name = name if name in own else scheme.canonical(name) or name
        scored = known and not math.isnan(_number(row[columns[0]]))
        cells.append(
            Cell(
                id=first_id + k,
                image=place[_text(row["image"])],
                number=int(row["cell"]),
                box=tuple(float(row[side]) for side in BOX_COLUMNS),  # type: ignore[arg-type]
                name=name,
                machine=_text(row["machine_class"]) if "machine_class" in row else (name if scored else ""),
                confidence=_number(row.get("confidence")),
                probabilities=tuple(float(row[column]) for column in columns) if scored else (),
                source=_text(row.get("box_source")) or "found",
                distance=_number(row.get("distance")),
                label=_text(row.get("label")),
                reviewed=bool(row.get("reviewed", False)),
                reviewer=_text(row.get("reviewer")),
                time=_text(row.get("time")),
            )
        )
    return cells


def scheme_of_frame(frame: pd.DataFrame, info: Mapping[str, Any] | None = None) -> ClassScheme:
    """The class scheme of a ``cells`` table: that of the model which ``info`` keeps, where it has the classes of the
    table; else one that comes with the package and has them, else made of them.

    Raises
    ------
    UsageError
        The scheme that ``info`` keeps is damaged.
    """
    names = [column.removeprefix(PROBABILITY_PREFIX) for column in probability_columns(frame)]
    model = (info or {}).get("model")
    if isinstance(model, dict) and "scheme" in model:
        scheme = parse_scheme(model["scheme"], "the model that counted")
        if list(scheme.names) == names:
            return scheme
    if not names:
        return load_scheme("wbc5")
    for known in scheme_names():
        scheme = load_scheme(known)
        if list(scheme.names) == names:
            return scheme
    kinds = {c.name: c.kind for known in scheme_names() for c in load_scheme(known).classes}
    classes = [{"name": name, "kind": kinds.get(name, "wbc")} for name in names]
    return parse_scheme({"name": "of the table", "classes": classes}, "cells table")


def review_of_frame(
    frame: pd.DataFrame,
    images: Sequence[str] | None = None,
    scheme: ClassScheme | None = None,
    reviewer: str = "",
    info: dict[str, Any] | None = None,
) -> Review:
    """A review of a ``cells`` table; ``images`` are the names of the fields in their order (else as they come)."""
    scheme = scheme or scheme_of_frame(frame, info)
    names = list(dict.fromkeys(str(name) for name in frame["image"])) if images is None else list(images)
    return Review(scheme, names, frame_cells(frame, scheme, names), reviewer, info)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)
