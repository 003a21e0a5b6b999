"""The report of the plugin's button: the pages of the command, of the review as it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_bloodcells.core.bundle import read_info
from napari_bloodcells.core.report import write_reports
from napari_bloodcells.napari.differential_table import DifferentialTable, differential_of
from napari_bloodcells.napari.preferences import Reference
from napari_bloodcells.napari.reporting import report_input, report_options


def _fields(image: np.ndarray) -> Any:
    return SimpleNamespace(
        names=("a.jpg",), sizes=(image.shape[:2],), slide=lambda place: None, read=lambda place: image
    )


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


def test_the_report_says_of_the_fields_what_the_count_said(
    make_review: Callable[..., Any], field_image: np.ndarray, tmp_path: Path
) -> None:
    said = [
        {"image": "a.jpg", "status": "ok", "problems": "out of focus"},
        {"image": "b.jpg", "status": "b.jpg: is damaged."},
    ]
    review = make_review(["neutrophil"], ("a.jpg", "b.jpg"), info={"fields": said})
    fields = SimpleNamespace(
        names=review.images,
        sizes=(field_image.shape[:2],) * 2,
        slide=lambda place: None,
        read=lambda place: field_image,
    )
    data = report_input(review, fields)
    assert data.images["status"].tolist() == ["ok", "b.jpg: is damaged."]
    assert data.images["n_wbc"].fillna(-1).tolist() == [1, -1], "what was not read has no count"
    assert differential_of(review).fields == 1
    page = write_reports(data, tmp_path)[0].read_text("utf-8")
    assert "1 of 2 images could not be read" in page
    assert "out of focus" in page


def test_the_report_flags_by_the_ranges_of_the_preferences(
    make_review: Callable[..., Any], field_image: np.ndarray, tmp_path: Path
) -> None:
    mine = {"class": "neutrophil", "unit": "%", "low": 17, "high": 23, "age_min": 2, "age_max": 9, "sex": "female"}
    (tmp_path / "mine.json").write_text(json.dumps({"ranges": [mine]}))
    options = report_options(Reference(str(tmp_path / "mine.json"), "female", 5))
    data = report_input(make_review(["neutrophil"] * 30), _fields(field_image))
    page = write_reports(data, tmp_path, options=options)[0].read_text("utf-8")
    assert "17 – 23" in page
    assert "high" in page


@pytest.mark.gui
@pytest.mark.parametrize("intervals", ["binomial", "multinomial"])
def test_window_and_report_flag_alike_by_either_kind_of_interval(
    make_review: Callable[..., Any], field_image: np.ndarray, tmp_path: Path, qtbot: Any, intervals: str
) -> None:
    names = ["neutrophil"] * 100 + ["lymphocyte"] * 60 + ["monocyte"] * 21 + ["eosinophil"] * 19
    said = [{"image": "a.jpg", "status": "ok", "n_platelets": 17}]
    review = make_review(names, info={"fields": said})
    chosen = Reference(intervals=intervals)
    table = DifferentialTable(chosen)
    qtbot.addWidget(table)
    table.show_review(review)
    assert table.cell_text("eosinophil", "flag") == ("H" if intervals == "binomial" else "(H)")
    assert table.cell_text("platelets found", "n") == "17"
    data = report_input(review, _fields(field_image))
    page = write_reports(data, tmp_path, options=report_options(chosen))[0].read_text("utf-8")
    line = page[page.index('<tr data-class="eosinophil">') :].split("</tr>")[0]
    assert f'data-code="{table.cell_text("eosinophil", "flag")}"' in line
    assert table.cell_text("eosinophil", "95 % interval") in line
