"""What a person reads and other systems take in: report pages, FHIR, COCO, GeoJSON.

``write_reports`` writes the pages; the formats for other programs are in ``exports``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_bloodcells.core.report.content import ReportOptions
    from napari_bloodcells.core.report.page import write_reports

__all__ = ["ReportOptions", "write_reports"]


def __getattr__(name: str) -> Any:
    """Load on first use: a count without a report pays for none of it."""
    if name == "write_reports":
        from napari_bloodcells.core.report.page import write_reports

        return write_reports
    if name == "ReportOptions":
        from napari_bloodcells.core.report.content import ReportOptions

        return ReportOptions
    raise AttributeError(name)
