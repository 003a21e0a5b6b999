"""A real browser for the report page: headless Chromium through Selenium, its network refused, its console read.

Screenshots and the printed PDF stay under ``artifacts/browser``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.chromium import programs, start

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
