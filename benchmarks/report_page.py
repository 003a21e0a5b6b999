"""How a report page of thousands of cells behaves in headless Chromium: loading, scrolling, one reclassification.

    python -m benchmarks.report_page [--cells 5000]

Work is given as processor time of the page's main thread: other programs that run beside it do not add to it.  A frame
at 60 Hz has 16.7 ms, and 50 ms is what browsers call a long task.  Times by the clock, which other programs do
lengthen, stand beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.browser.chromium import processor_time, start
from tests.example_run import make_run

from napari_bloodcells.core.report import write_reports
from napari_bloodcells.synthetic import SmearSettings

SETTINGS = SmearSettings(width=480, height=360, cells=5)
FIELDS = 10
FRAMES = 90
STEP = 120
"""Pixels a frame: a fast wheel."""
CHANGES = 5

_FRAME = """
const done = arguments[1], top = document.querySelector('.bench').offsetTop + arguments[0];
requestAnimationFrame(() => { scrollTo(0, top); requestAnimationFrame(() => done()); });
"""
_ROLL = """
const done = arguments[0], gaps = []; let frames = 0, last = performance.now();
const start = document.querySelector('.bench').offsetTop;
const step = (now) => { gaps.push(now - last); last = now; scrollTo(0, start + frames * %d); frames += 1;
  if (frames < %d) requestAnimationFrame(step); else done(gaps); };
requestAnimationFrame(step);
"""
_CHANGE = """
const b = bloodcells, i = b.gallery.sorted[2000 + arguments[0]], t = performance.now();
b.store.assign([i], (b.store.cells.class[i] + 1) % 5); document.body.getBoundingClientRect();
return performance.now() - t;
"""


@dataclass(frozen=True)
class Behavior:
    """Figures of one page: ``_cpu`` is processor time of the main thread, ``_clock`` by the clock, both in ms."""

    cells: int
    megabytes: float
    elements: int
    tiles: int
    load_cpu: float
    load_clock: float
    median_frame_cpu: float
    longest_frame_cpu: float
    median_frame_clock: float
    change_cpu: float
    change_clock: float


def make_page(cells: int, folder: Path) -> Path:
    """A report of so many cells, of ten drawn fields listed again and again."""
    run = make_run({"": FIELDS}, settings=SETTINGS, repeat=cells // (FIELDS * 5))
    return write_reports(run, folder)[0]


def behavior(browser: Any, page: Path) -> Behavior:
    """Open ``page``, scroll through it frame by frame, and reclassify some cells."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Performance.disable", {})
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.get(page.as_uri())
    timing = browser.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart")
    _frame(browser, 0)
    load = processor_time(browser)
    frames = sorted(_cost(browser, lambda n=n: _frame(browser, n * STEP)) for n in range(1, FRAMES))
    gaps = sorted(browser.execute_async_script(_ROLL % (STEP, FRAMES)))
    clocks: list[float] = []
    changes = sorted(
        _cost(browser, lambda n=n: clocks.append(browser.execute_script(_CHANGE, n))) for n in range(CHANGES)
    )
    return Behavior(
        cells=int(browser.execute_script("return bloodcells.store.n")),
        megabytes=round(page.stat().st_size / 1e6, 1),
        elements=int(browser.execute_script("return document.querySelectorAll('*').length")),
        tiles=int(browser.execute_script("return document.querySelectorAll('.tile').length")),
        load_cpu=round(load, 1),
        load_clock=round(float(timing), 1),
        median_frame_cpu=round(frames[len(frames) // 2], 1),
        longest_frame_cpu=round(frames[-1], 1),
        median_frame_clock=round(gaps[len(gaps) // 2], 1),
        change_cpu=round(changes[len(changes) // 2], 1),
        change_clock=round(sorted(clocks)[len(clocks) // 2], 1),
    )


def _frame(browser: Any, place: int) -> None:
    browser.execute_async_script(_FRAME, place)


def _cost(browser: Any, act: Callable[[], object]) -> float:
    before = processor_time(browser)
    act()
    return processor_time(browser) - before


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        page = make_page(given.cells, Path(folder) / "page")
        browser = start(Path(folder) / "profile", Path(folder))
        try:
            for name, value in asdict(behavior(browser, page)).items():
                print(f"{name}: {value:,}")
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
