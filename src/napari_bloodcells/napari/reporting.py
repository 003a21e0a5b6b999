"""A review as the core's report wants it: its tables as they stand now, and a way to the pixels of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_bloodcells.napari.differential_table import intervals_of, ranges_of
from napari_bloodcells.napari.fields import Fields
from napari_bloodcells.napari.preferences import Reference
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import images_frame, review_frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_bloodcells.core.report.content import ReportOptions
    from napari_bloodcells.core.report.inputs import ReportInput
    from napari_bloodcells.core.slides import ArraySlide


def report_input(review: Review, fields: Fields) -> ReportInput:
    """The input of ``write_reports``: every cell of the scheme with the class that it has now, and all
    fields with what the count said of them."""
    from napari_bloodcells.core.report.inputs import ReportInput, with_model

    cells = review_frame(review, review.reviewable())
    sizes = fields.sizes[: len(review.images)]  # a table may be of the first fields of a series only
    images = images_frame(review).assign(width=[w for _, w in sizes], height=[h for h, _ in sizes])
    place = {name: index for index, name in enumerate(review.images)}
    run = {"model": review.info.get("model", {}), "boxes": review.info.get("boxes", "")}
    run["slides"] = review.info.get("slides", [])

    def pixels(name: str) -> NDArray[np.uint8] | ArraySlide:
        return fields.slide(place[name]) or fields.read(place[name])

    found = ReportInput(cells, images, review.scheme, run, load=pixels)
    known = with_model(found)  # with its validation cells, for the corrected shares
    return known if known.scheme.names == review.scheme.names else found


def report_options(chosen: Reference) -> ReportOptions:
    """The ranges, the patient and the intervals of the preferences, by which the window flags too."""
    from napari_bloodcells.core.report.content import ReportOptions

    ranges, patient = ranges_of(chosen)
    return ReportOptions(patient=patient, ranges=ranges, intervals=intervals_of(chosen))
