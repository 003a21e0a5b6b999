"""A real browser for the report page: headless Chromium through Selenium, its network refused, its console read.

Screenshots and the printed PDF stay under ``artifacts/browser``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.chromium import programs, start
from tests.example_run import make_run

from napari_bloodcells.core.report import ReportOptions, write_reports
from napari_bloodcells.synthetic import SmearSettings

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts" / "browser"


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser puts what it downloads."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium driven by Selenium; skipped where there is none."""
    if None in programs():
        pytest.skip("chromium and chromedriver are not here: apt-get install chromium chromium-driver")
    found = start(tmp_path_factory.mktemp("profile"), downloads)
    yield found
    found.quit()


@pytest.fixture(scope="module")
def run() -> Any:
    """Eight drawn fields, counted."""
    return make_run({"": 8}, settings=SmearSettings(width=480, height=360, cells=5))


@pytest.fixture(scope="module")
def page(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report page of that count."""
    return write_reports(run, tmp_path_factory.mktemp("report"), options=ReportOptions(wbc=7.2))[0]


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page freshly opened, nothing remembered; at the end the console must be clean."""
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    browser.get(page.as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
