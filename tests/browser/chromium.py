"""A headless Chromium with its network refused, and the processor time that a page has cost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


def programs() -> tuple[str | None, str | None]:
    """Chromium and chromedriver, None where they are not installed."""
    names = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    chromium, driver = (next((path for n in some if (path := shutil.which(n))), None) for some in names)
    return chromium, driver


def start(profile: Path, downloads: Path) -> Any:
    """A browser driven by Selenium."""
    from selenium import webdriver

    chromium, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1360,1000")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    os.environ.setdefault("SE_OFFLINE", "true")
    found = webdriver.Chrome(service=webdriver.ChromeService(driver), options=options)
    found.set_script_timeout(60)
    return found


def processor_time(browser: Any) -> float:
    """Milliseconds of processor time that the main thread of the page has spent on tasks since it was opened.

    The time is the thread's own: other programs that want the processor do not add to it.
    """
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))
