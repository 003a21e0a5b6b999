"""The weights in the package are those of the committed table, and give its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.accuracy.__main__ import RESULTS, fixed_part
from benchmarks.accuracy.table import BEGIN, END, markdown

from napari_bloodcells.core.bundle import load_model

ROOT = Path(__file__).parents[2]
NAMES = ("wbc5", "pbc8", "wbc4")


@pytest.fixture(scope="module")
def table() -> dict:
    return json.loads((RESULTS / "table.json").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_of_the_weights_in_the_package(table, name):
    assert table["weights"][name] == load_model(name, device="cpu").info.sha256


def test_the_page_shows_the_committed_figures(table):
    page = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == markdown(table).strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_small_and_quick(name):
    info = load_model(name, device="cpu").info
    folder = ROOT / "src" / "napari_bloodcells" / "weights" / name
    assert sum(f.stat().st_size for f in folder.iterdir()) < 5e6
    assert info.macs < 0.25e9
    assert info.confusion is not None
    assert 0 < info.min_confidence < 1


@pytest.mark.data
def test_the_weights_give_the_committed_figures_on_a_small_fixed_part(table, shared_data):
    """To one cell a source: processors round bfloat16 alike, but not all have it."""
    for source, (right, n) in fixed_part(shared_data).items():
        wanted, cells = table["fixed_part"][source]
        assert n == cells
        assert abs(right - wanted) <= 1, source
