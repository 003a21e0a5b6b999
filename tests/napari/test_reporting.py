"""The report of the plugin's button: the pages of the command, of the review as it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from napari_bloodcells.core.bundle import read_info
from napari_bloodcells.core.report import write_reports
from napari_bloodcells.napari.reporting import report_input


def _fields(image: np.ndarray) -> Any:
    return SimpleNamespace(names=("a.jpg",), sizes=(image.shape[:2],), read=lambda place: image)


def test_the_report_is_that_of_the_review_as_it_stands(
    make_review: Callable[..., Any], field_image: np.ndarray, tmp_path: Path
) -> None:
    review = make_review(["neutrophil"] * 5 + ["eosinophil"])
    data = report_input(review, _fields(field_image))
    page = write_reports(data, tmp_path)[0].read_text("utf-8")
    assert page.count('data-class="neutrophil"') == 1
    assert '<td class="n" data-f="count">5</td>' in page
    assert "Corrected for the classifier" not in page  # nobody knows which model that was


def test_the_report_knows_the_validation_cells_of_the_model_that_counted(
    make_review: Callable[..., Any], field_image: np.ndarray, tmp_path: Path
) -> None:
    info = read_info("wbc5")
    review = make_review(["neutrophil"] * 5 + ["eosinophil"])
    review.info["model"] = {"name": info.name, "sha256": info.sha256}
    data = report_input(review, _fields(field_image))
    assert info.confusion, "the shipped model carries no validation cells"
    assert data.confusion is not None
    assert "Corrected for the classifier" in write_reports(data, tmp_path)[0].read_text("utf-8")
