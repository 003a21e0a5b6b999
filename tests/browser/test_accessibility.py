"""The pages as axe-core sees them: names, roles, contrast and structure of WCAG 2.2, level AA; and a narrow window."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.example_run import make_run

from napari_bloodcells.core.report import ReportOptions, write_reports

pytestmark = pytest.mark.browser
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The page of one sample, with all that it can have, and the index of several."""
    alone, several = make_run({"sample A": 3}), make_run({"sample A": 3, "sample B": 2, "sample C": 2})
    for run in (alone, several):
        run.images.loc[0, "problems"] = "out of focus"
        run.cells.loc[:3, "class"] = "unidentified"
    made = write_reports(alone, tmp_path_factory.mktemp("alone"), options=ReportOptions(wbc=7.2))
    return [made[0], write_reports(several, tmp_path_factory.mktemp("several"))[-1]]


@pytest.fixture(scope="module")
def axe() -> str:
    """The script axe-core, out of the package that carries it (the package itself is not needed)."""
    found = find_spec("axe_playwright_python")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


def _violations(browser: Any, axe: str) -> list[str]:
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const done = arguments[1]; axe.run({runOnly: arguments[0]}).then((r) => done(r.violations))", RULES
    )
    return [f"{v['id']}: {node['html'][:160]} {node['failureSummary']}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", [0, -1], ids=["sample", "index"])
def test_axe_finds_nothing(browser: Any, pages: list[Path], axe: str, scheme: str, which: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(pages[which].as_uri())
    assert _violations(browser, axe) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_axe_finds_nothing_in_the_midst_of_a_review(browser: Any, pages: list[Path], axe: str) -> None:
    browser.get(pages[0].as_uri())
    browser.find_element("css selector", ".tile").click()
    browser.execute_script("bloodcells.store.assign([...bloodcells.gallery.selected], 2)")
    assert _violations(browser, axe) == []
    browser.execute_script("localStorage.clear()")


def test_axe_does_find_what_is_wrong(browser: Any, pages: list[Path], axe: str) -> None:
    browser.get(pages[0].as_uri())
    browser.execute_script("document.querySelector('#undo').textContent = ''")
    browser.execute_script("document.documentElement.removeAttribute('lang')")
    found = " ".join(_violations(browser, axe))
    assert "button-name" in found
    assert "html-has-lang" in found


@pytest.mark.parametrize("width", [400, 768])
@pytest.mark.parametrize("which", [0, -1], ids=["sample", "index"])
def test_a_narrow_window_scrolls_downwards_only(
    browser: Any, pages: list[Path], artifacts: Path, width: int, which: int
) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(pages[which].as_uri())
    browser.save_screenshot(str(artifacts / f"{'index' if which else 'report'}-{width}.png"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
