"""The report page in a real browser, used as a reviewer would: by key, by mouse, on paper."""

from __future__ import annotations

import base64
import csv
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.report_page import behavior, make_page
from tests.example_run import make_run

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import apply_corrections, cells_csv, read_cells
from napari_bloodcells.core.differential import make_differential
from napari_bloodcells.core.report import write_reports
from napari_bloodcells.core.report.inputs import ReportInput
from napari_bloodcells.core.statistics.intervals import clopper_pearson, goodman, goodman_quantile, whole_percents
from napari_bloodcells.core.statistics.reference import Flag, Patient, flag, load_ranges
from napari_bloodcells.core.statistics.remarks import count_remarks, remarks

pytestmark = pytest.mark.browser


def _keys(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def _control(browser: Any, key: str, *, shift: bool = False) -> None:
    from selenium.webdriver import ActionChains, Keys

    held = [Keys.CONTROL, *([Keys.SHIFT] if shift else [])]
    chain = ActionChains(browser)
    for modifier in held:
        chain = chain.key_down(modifier)
    chain = chain.send_keys(key)
    for modifier in held:
        chain = chain.key_up(modifier)
    chain.perform()


def _counts(browser: Any) -> dict[str, int]:
    lines = browser.find_elements("css selector", "#differential tbody tr")
    return {
        line.get_attribute("data-class"): int(line.find_element("css selector", '[data-f="count"]').text)
        for line in lines
    }


def _tile(browser: Any, name: str) -> Any:
    """The first tile of a class, scrolled into the middle of the window."""
    index = browser.execute_script("return bloodcells.store.classNamed(arguments[0])", name)
    tile = browser.find_element("css selector", f'.group[data-drop="{index}"] .tile')
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", tile)
    time.sleep(0.1)
    return browser.find_element("css selector", f"#{tile.get_attribute('id')}")


def _wait(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not come that far in time"
        time.sleep(0.05)


def test_the_page_loads_without_a_console_message_and_shows_the_count(opened: Any, run: Any, artifacts: Path) -> None:
    differential = make_differential(run.cells["class"], run.scheme)
    assert _counts(opened) == {share.name: share.count for share in differential.shares}
    assert (
        opened.execute_script(
            "return performance.getEntriesByType('resource').filter(e => !/^(data|blob):/.test(e.name)).length"
        )
        == 0
    )
    opened.save_screenshot(str(artifacts / "report-light.png"))
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    opened.save_screenshot(str(artifacts / "report-dark.png"))
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert all(int(part) < 60 for part in ground[4:-1].split(", "))


def test_statistics_of_the_page_equal_those_of_the_package(opened: Any) -> None:
    pairs = [
        (0, 0),
        (0, 1),
        (1, 1),
        (0, 200),
        (200, 200),
        (10, 200),
        (3, 100),
        (59, 100),
        (1, 5000),
        (4999, 5000),
        (2500, 5000),
    ]
    got = opened.execute_script("return arguments[0].map(([k, n]) => bloodcells.Stats.clopperPearson(k, n))", pairs)
    low, high = clopper_pearson([k for k, _ in pairs], [n for _, n in pairs])
    np.testing.assert_allclose(np.array(got), np.stack([low, high], 1), atol=1e-10)
    five = [120, 60, 12, 6, 2]
    arguments = [[k, sum(five), goodman_quantile(5)] for k in five]
    got = opened.execute_script("return arguments[0].map((c) => bloodcells.Stats.goodman(...c))", arguments)
    np.testing.assert_allclose(np.array(got), np.stack(goodman(five), 1), atol=1e-12)
    tables = [[1, 1, 1], [0, 0, 0], [59, 2, 0, 32, 7], [333, 333, 334], [1, 2, 3, 4, 5, 6, 7], [199, 1]]
    got = opened.execute_script("return arguments[0].map((t) => bloodcells.Stats.wholePercents(t))", tables)
    assert got == [whole_percents(table).tolist() for table in tables]
    limits = load_ranges().find("eosinophil", "%", Patient())
    cases = [(8.0, 2.2, 19.2), (8.0, 5.8, 10.7), (3.0, 1.1, 6.4), (0.0, 0.0, 1.8)]
    got = opened.execute_script("return arguments[0].map((c) => bloodcells.Stats.flag(...c, [0, 5.5]))", cases)
    assert got == [[flag(*case, limits).code, flag(*case, limits).words] for case in cases]
    exact = (9.9 * (100 * 5 / 110) / 100, 0.1, 0.9)
    got = opened.execute_script("return bloodcells.Stats.flag(...arguments[0], [0, 0.45])", exact)
    most = replace(limits, unit="10^9/L", high=0.45)
    assert exact[0] > 0.45, "by the error of a product in binary"
    assert got == [flag(*exact, most).code, flag(*exact, most).words] == ["", "within range"]
    flags = [flag(*case, limits) for case in cases] + [Flag("L", "low"), Flag("(L)", "borderline low")]
    got = opened.execute_script("return arguments[0].map((c) => bloodcells.Stats.meaning(c))", [f.code for f in flags])
    assert got == [found.meaning for found in flags]
    figures = [(12.25, 1), (12.75, 1), (0.15, 1), (2.5, 0), (3.5, 0), (0.125, 2), (100 / 3, 1), (7.0, 2)]
    got = opened.execute_script("return arguments[0].map((f) => bloodcells.Stats.fixed(...f))", figures)
    assert got == [f"{value:.{digits}f}" for value, digits in figures]
    scheme, counts = load_scheme("wbc5"), [(0, 0), (1, 0), (99, 6), (100, 1), (199, 30), (200, 10), (200, 11), (7, 1)]
    code = "return arguments[0].map((c) => bloodcells.Stats.countRemarks(...c, [100, 200], 0.05))"
    blocks = [make_differential(["neutrophil"] * n + ["unidentified"] * u, scheme) for n, u in counts]
    assert opened.execute_script(code, counts) == [list(count_remarks(block)) for block in blocks]


def test_a_key_reclassifies_the_selected_cell_and_the_table_follows(opened: Any, run: Any, artifacts: Path) -> None:
    before = _counts(opened)
    _tile(opened, "neutrophil").click()
    assert opened.find_element("css selector", "#inspector h3").text.startswith("field_")
    opened.save_screenshot(str(artifacts / "report-selected.png"))
    _keys(opened, "m")
    after = _counts(opened)
    assert after["neutrophil"] == before["neutrophil"] - 1
    assert after["monocyte"] == before["monocyte"] + 1
    total = sum(after.values())
    low, high = clopper_pearson(after["monocyte"], total)
    line = opened.find_element("css selector", '#differential tr[data-class="monocyte"]')
    assert line.find_element("css selector", '[data-f="interval"]').text == f"{100 * low:.1f} – {100 * high:.1f}"
    assert line.find_element("css selector", '[data-f="percent"]').text == f"{100 * after['monocyte'] / total:.1f}"
    absolute = opened.find_element("css selector", '#absolute tr[data-class="monocyte"] [data-f="value"]').text
    assert absolute == f"{7.2 * after['monocyte'] / total:.2f}"
    assert "monocyte" in opened.find_element("css selector", "#status").get_attribute("textContent")


def test_the_remarks_follow_the_corrections_and_those_on_the_photographs_stay(browser: Any, tmp_path: Path) -> None:
    run = make_run({"": 3})
    run.images.loc[0, "problems"] = "out of focus"
    run.cells.loc[:, "class"] = ["unidentified"] * 2 + ["neutrophil"] * (len(run.cells) - 2)
    browser.get(write_reports(run, tmp_path)[0].as_uri())

    def shown() -> list[str]:
        return [item.text for item in browser.find_elements("css selector", "#remarks li")]

    before, n = shown(), len(run.cells)
    assert before == list(remarks(make_differential(run.cells["class"], run.scheme), run.cells, run.images))
    assert f"Only {n - 2} white cells were" in before[0]
    assert before[1].startswith("2 cells (")
    browser.execute_script("bloodcells.store.assign([0, 1], bloodcells.store.classNamed('monocyte'))")
    after = shown()
    assert f"Only {n} white cells were" in after[0]
    assert after[1:] == before[2:]
    assert "out of focus" in after[-1]
    browser.execute_script("bloodcells.store.assign([...Array(arguments[0]).keys()], 6)", n)
    assert shown()[0] == "No white cell was classified."
    browser.execute_script("bloodcells.store.undo(); bloodcells.store.undo()")
    assert shown() == before
    browser.execute_script("localStorage.clear()")


def test_the_platelets_that_were_found_are_no_cells_that_could_be_corrected(browser: Any, tmp_path: Path) -> None:
    run = make_run({"": 1})
    images = run.images.assign(n_platelets=17)
    browser.get(write_reports(ReportInput(run.cells, images, run.scheme), tmp_path)[0].as_uri())
    found = browser.find_element("css selector", '[data-kind="found"] dd')
    assert found.text == "17 17.0 per field"
    browser.execute_script("bloodcells.store.assign([0], 2)")
    assert found.text == "17 17.0 per field"
    browser.execute_script("localStorage.clear()")


def test_the_head_says_how_many_cells_a_person_saw_and_who(opened: Any, run: Any) -> None:
    fact = opened.find_element("css selector", "#fact-reviewed")
    assert fact.text == f"0 of {len(run.cells)} cells"
    opened.find_element("css selector", "#reviewer").send_keys("Dr. A")
    _tile(opened, "neutrophil").click()
    _keys(opened, "e", " ")
    assert fact.text == f"2 of {len(run.cells)} cells (Dr. A)"


@pytest.mark.parametrize(("order", "sign"), [("low", 1), ("high", -1)])
def test_the_gallery_is_sorted_by_confidence(opened: Any, order: str, sign: int) -> None:
    opened.find_element("css selector", f"#sort option[value={order}]").click()
    shown = opened.execute_script(
        "return bloodcells.gallery.groups.map((g) => g.order.map((i) => bloodcells.store.cells.confidence[i]))"
    )
    assert max(map(len, shown)) > 3
    for group in shown:
        assert group == sorted(group, key=lambda value: sign * value)


def test_hovering_shows_the_probabilities_and_a_click_the_cell_in_its_field(opened: Any, run: Any) -> None:
    from selenium.webdriver import ActionChains

    tile = _tile(opened, "neutrophil")
    number = int(tile.get_attribute("data-i"))
    ActionChains(opened).move_to_element(tile).perform()
    card = opened.find_element("css selector", "#hover")
    assert card.is_displayed()
    for name in run.scheme.names:
        assert f"{name}\n{100 * run.cells[f'p_{name}'][number]:.1f} %" in card.text
    tile.click()
    x_min, y_min, x_max, y_max = run.cells.loc[number, ["x_min", "y_min", "x_max", "y_max"]]
    box = opened.find_element("css selector", "#inspector .view rect.on")
    drawn = [float(box.get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert drawn == pytest.approx([x_min, y_min, x_max - x_min, y_max - y_min], abs=0.02)
    assert opened.find_element("css selector", "#inspector .view img").get_attribute("naturalWidth") != "0"
    others = opened.find_elements("css selector", "#inspector .view rect:not(.on):not(.halo)")
    assert len(others) == (run.cells["image"] == run.cells["image"][number]).sum() - 1


def test_a_cell_called_not_a_wbc_leaves_the_hundred_percent(opened: Any) -> None:
    before = _counts(opened)
    _tile(opened, "lymphocyte").click()
    _keys(opened, "x")
    assert sum(_counts(opened).values()) == sum(before.values()) - 1
    assert opened.find_element("css selector", '[data-apart="not a WBC"] b').text == "1"


def test_undo_and_redo_go_through_every_change(opened: Any) -> None:
    start = _counts(opened)
    _tile(opened, "neutrophil").click()
    _keys(opened, "e")
    first = _counts(opened)
    _keys(opened, "b")  # the next neutrophil has the focus now
    second = _counts(opened)
    assert second["basophil"] == start["basophil"] + 1
    _control(opened, "z")
    assert _counts(opened) == first
    _control(opened, "z")
    assert _counts(opened) == start
    _control(opened, "z", shift=True)
    assert _counts(opened) == first
    opened.find_element("css selector", "#undo").click()
    assert _counts(opened) == start
    assert not opened.find_element("css selector", "#undo").is_enabled()


def test_dragging_a_cell_onto_a_class_reclassifies_it(opened: Any, artifacts: Path) -> None:
    from selenium.webdriver import ActionChains

    before = _counts(opened)
    tile = _tile(opened, "neutrophil")
    chip = opened.find_element(
        "css selector", f"#chip-{opened.execute_script('return bloodcells.store.classNamed(`basophil`)')}"
    )
    ActionChains(opened).click_and_hold(tile).move_by_offset(12, 8).move_to_element(chip).perform()
    assert "drop" in chip.get_attribute("class")
    opened.save_screenshot(str(artifacts / "report-drag.png"))
    ActionChains(opened).release().perform()
    after = _counts(opened)
    assert after["basophil"] == before["basophil"] + 1
    assert after["neutrophil"] == before["neutrophil"] - 1
    assert opened.find_elements("css selector", ".ghost") == []


def test_several_selected_cells_change_in_one_step(opened: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    before = _counts(opened)
    _tile(opened, "neutrophil").click()
    ActionChains(opened).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    _keys(opened, "l")
    assert _counts(opened)["lymphocyte"] == before["lymphocyte"] + 3
    _control(opened, "z")
    assert _counts(opened) == before


def test_the_gallery_can_be_worked_by_keyboard_alone(opened: Any) -> None:
    from selenium.webdriver import Keys

    opened.execute_script("document.querySelector('#export').focus()")
    _keys(opened, Keys.TAB)
    tile = opened.switch_to.active_element
    assert tile.get_attribute("role") == "option"
    assert tile.get_attribute("aria-selected") == "true"
    assert "confidence" in tile.get_attribute("aria-label")
    _keys(opened, Keys.ARROW_RIGHT)
    moved = opened.switch_to.active_element
    assert moved.get_attribute("aria-posinset") == "2"
    number = int(moved.get_attribute("data-i"))
    _keys(opened, Keys.SPACE)
    assert opened.execute_script(f"return bloodcells.store.cells.reviewed[{number}]") == 1


def test_exported_corrections_are_read_back(opened: Any, run: Any, downloads: Path) -> None:
    opened.find_element("css selector", "#reviewer").send_keys("=Dr. A")
    tile = _tile(opened, "neutrophil")
    number = int(tile.get_attribute("data-i"))
    tile.click()
    _keys(opened, "e")
    for old in downloads.glob("*"):
        old.unlink()
    opened.find_element("css selector", "#export").click()
    target = downloads / "cells.csv"
    _wait(lambda: target.exists() and target.stat().st_size > 0 and not list(downloads.glob("*.crdownload")))
    written = read_cells(target)
    corrected = apply_corrections(run.cells, written)
    assert corrected["class"][number] == "eosinophil"
    assert corrected["machine_class"][number] == "neutrophil"
    assert corrected["reviewer"][number] == "=Dr. A"
    assert int(corrected["reviewed"].sum()) == 1
    text = target.read_text("utf-8")
    assert "'=Dr. A" in text
    # beside the corrections, byte for byte the table that the command writes
    columns = list(run.cells.columns)
    with target.open(encoding="utf-8", newline="") as stream:
        rows = [[row[name] for name in columns] for row in csv.DictReader(stream)]
    rows[number][columns.index("class")] = "neutrophil"
    assert rows == list(csv.reader(cells_csv(run.cells).splitlines()))[1:]


def test_corrections_survive_a_closed_tab(opened: Any) -> None:
    before = _counts(opened)
    _tile(opened, "neutrophil").click()
    _keys(opened, "e")
    opened.refresh()
    assert _counts(opened)["eosinophil"] == before["eosinophil"] + 1
    note = opened.find_element("css selector", "#restored")
    assert "1 correction" in note.text
    note.find_element("css selector", "button").click()
    assert _counts(opened) == before


def test_without_scripts_paper_has_no_empty_heading(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        browser.get(page.as_uri())
        assert browser.find_element("css selector", ".printgallery").text == ""
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.get(page.as_uri())
    assert browser.find_element("css selector", "#printed h2").get_attribute("textContent") == "Cells"


def test_it_prints_on_a4_with_the_table_on_the_first_page(opened: Any, artifacts: Path) -> None:
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    (artifacts / "report.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not here: apt-get install poppler-utils")
    pages = (
        subprocess.run(["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True, check=True)
        .stdout.decode()
        .split("\f")
    )
    assert len(pages) - 1 <= 3
    assert "neutrophil" in pages[0]
    assert "Classified white cells" in pages[0]
    assert "For research use only" in pages[0]
    assert "Signature" in "".join(pages)
    assert "Reviewed" in pages[0]
    for number, text in enumerate(pages[:-1], 1):  # a sheet that comes loose can be put back to its sample
        assert f"page {number} of {len(pages) - 1}" in text
        assert "smears · counted 2026-11-21 15:02 · wbc5-example 5f2c9a7be1d0 · research use only" in text
    assert "Export corrections" not in "".join(pages)


HOSTILE = '\\\'} html{display:none} "><img src=x onerror="document.title=1"><script>document.title=`owned`<'


def test_a_hostile_file_name_does_nothing(browser: Any, tmp_path: Path) -> None:
    run = make_run({HOSTILE: 1})
    page = write_reports(run, tmp_path)[0]
    for path in (page, tmp_path / "index.html"):
        browser.get(path.as_uri())
        browser.execute_script("window.alerted = window.alerted || 0")
        assert "owned" not in browser.title or HOSTILE in browser.title
        assert browser.title != "1"
        assert browser.execute_script("return document.querySelectorAll('img[src=x], img[onerror]').length") == 0
        assert HOSTILE in browser.find_element("css selector", "body").text
    browser.get(page.as_uri())
    browser.find_element("css selector", ".tile").click()
    assert HOSTILE in browser.find_element("css selector", "#inspector h3").text
    assert browser.execute_script("return document.querySelectorAll('img[src=x], img[onerror]').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_script_that_got_into_the_page_would_not_run(browser: Any, page: Path, tmp_path: Path) -> None:
    poisoned = tmp_path / "report.html"
    poisoned.write_text(
        page.read_text("utf-8").replace("<footer>", "<script>document.title = 'owned'</script><footer>"), "utf-8"
    )
    browser.get(poisoned.as_uri())
    assert browser.title != "owned"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


@pytest.mark.slow
def test_five_thousand_cells_scroll_and_change_without_stutter(browser: Any, tmp_path: Path, artifacts: Path) -> None:
    found = behavior(browser, make_page(5000, tmp_path))
    (artifacts / "stutter.txt").write_text("".join(f"{k}: {v}\n" for k, v in vars(found).items()))
    assert found.cells == 5000
    assert found.megabytes < 25
    assert found.tiles < 600, "only what is in view shall be drawn"
    assert found.elements < 6000
    assert found.load_cpu < 3000
    assert found.median_frame_cpu < 16.7, "a frame at 60 Hz"
    assert found.longest_frame_cpu < 100, "six frames are missed at 60 Hz"
    assert found.change_cpu < 150
