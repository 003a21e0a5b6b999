"""What a browser keeps of a review: it comes back, and does not override what the page was made with since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_bloodcells.core.counting.cellstable import apply_corrections, read_cells
from napari_bloodcells.core.report import write_reports

pytestmark = pytest.mark.browser
SAVED = "Object.keys(localStorage).filter((k) => k.startsWith('napari-bloodcells:')).map((k) => localStorage[k])"


def _reviewed_page(run: Any, folder: Path, corrections: str) -> str:
    """The address of the page made with the corrections that a page has exported."""
    folder.mkdir(exist_ok=True)
    (folder / "cells.csv").write_text(corrections, "utf-8")
    cells = apply_corrections(run.cells, read_cells(folder / "cells.csv"))
    return str(write_reports(replace(run, cells=cells), folder)[0].as_uri())


def test_what_the_page_holds_already_is_not_restored_again(opened: Any, run: Any, tmp_path: Path) -> None:
    opened.execute_script("bloodcells.store.assign([0, 1], 2)")
    opened.get(_reviewed_page(run, tmp_path, opened.execute_script("return bloodcells.store.csv()")))
    assert opened.find_element("css selector", "#fact-reviewed").text.startswith("2 of ")
    assert not opened.find_element("css selector", "#restored").is_displayed()
    assert not opened.find_element("css selector", "#stale").is_displayed()
    assert opened.find_elements("css selector", ".corrected.stale") == []
    assert opened.execute_script(f"return {SAVED}") == []


def test_an_older_correction_of_this_browser_does_not_override_a_newer_one_of_the_page(
    opened: Any, run: Any, tmp_path: Path
) -> None:
    """This browser called cells 0 and 1 monocytes; another, later, cell 0 a basophil, and the page was made of that."""
    opened.execute_script("bloodcells.store.assign([0, 1], bloodcells.store.classNamed('monocyte'))")
    made = opened.execute_script(
        "const s = bloodcells.store; s.put(1, s.baked(1));"
        "s.put(0, [s.classNamed('basophil'), 1, 'Dr. B', '2199-01-01T00:00:00Z']); return s.csv()"
    )
    address = _reviewed_page(run, tmp_path, made)
    opened.get(address)
    names = "return [0, 1].map((i) => bloodcells.store.className(bloodcells.store.cells.class[i]))"
    assert opened.execute_script(names) == ["basophil", "monocyte"]
    assert "1 correction from" in opened.find_element("css selector", "#restored").text
    # a change to the page itself holds, though the clock of the other was ahead
    opened.execute_script("bloodcells.store.assign([0], bloodcells.store.classNamed('lymphocyte'))")
    opened.get(address)
    assert opened.execute_script(names) == ["lymphocyte", "monocyte"]


def test_a_newer_correction_of_this_browser_is_restored_over_an_older_one_of_the_page(
    opened: Any, run: Any, tmp_path: Path
) -> None:
    opened.execute_script("bloodcells.store.assign([0], bloodcells.store.classNamed('monocyte'))")
    made = opened.execute_script(
        "const s = bloodcells.store, c = s.snapshot(0);"
        "s.put(0, [s.classNamed('basophil'), 1, '', '2001-01-01T00:00:00Z']);"
        "const text = s.csv(); s.put(0, c); return text"
    )
    opened.get(_reviewed_page(run, tmp_path, made))
    assert opened.execute_script("return bloodcells.store.className(bloodcells.store.cells.class[0])") == "monocyte"
