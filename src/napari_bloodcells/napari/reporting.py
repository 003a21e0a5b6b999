"""A review as the core's report wants it: its tables as they stand now, and a way to the pixels of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_bloodcells.napari.fields import Fields
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import review_frame

if TYPE_CHECKING:
    from napari_bloodcells.core.report.inputs import ReportInput


def report_input(review: Review, fields: Fields) -> ReportInput:
    """The input of ``write_reports``: every cell of the scheme with the class that it has now, and all fields."""
    import pandas as pd

    from napari_bloodcells.core.differential import UNIDENTIFIED
    from napari_bloodcells.core.report.inputs import ReportInput, with_model

    cells = review_frame(review, review.reviewable())
    white = {c.name for c in review.scheme.classes if c.kind == "wbc"} | {UNIDENTIFIED}
    rows = []
    for name, (height, width) in zip(fields.names, fields.sizes, strict=True):
        labels = cells.loc[cells["image"] == name, "class"]
        counts = {c: int((labels == c).sum()) for c in (*review.scheme.names, UNIDENTIFIED)}
        rows.append({"image": name, "status": "ok", "n_wbc": int(labels.isin(white).sum()), **counts})
        rows[-1] |= {"width": width, "height": height}
    place = {name: index for index, name in enumerate(fields.names)}
    run = {"model": review.info.get("model", {}), "boxes": review.info.get("boxes", "")}
    found = ReportInput(cells, pd.DataFrame(rows), review.scheme, run, load=lambda name: fields.read(place[name]))
    known = with_model(found)  # with its validation cells, for the corrected shares
    return known if known.scheme.names == review.scheme.names else found
