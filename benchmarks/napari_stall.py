"""How long the window does not answer while a count runs: the longest time between two turns of the event loop.

    python -m benchmarks.napari_stall

Opens napari, counts twelve drawn fields in the widget, the first time with torch still to be loaded, the second time
without, and prints both as one line of JSON (milliseconds, and the number of turns).  Needs a display (``xvfb-run``).
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_bloodcells.napari.count_widget import CountWidget


def main() -> None:
    """Run twice and print."""
    os.environ.pop("QT_QPA_PLATFORM", None)

    import napari
    from napari_bloodcells.napari.count_widget import CountWidget
    from napari_bloodcells.synthetic import draw_smear

    viewer = napari.Viewer()
    viewer.add_image(np.stack([draw_smear(seed).image for seed in range(12)]), rgb=True, name="smears")
    widget = CountWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Differential count")
    first = longest_stop(widget)
    second = longest_stop(widget)
    found = {"loading torch": first, "torch loaded": second}
    print(json.dumps(found))
    widget.let_go()
    viewer.close()


def longest_stop(widget: CountWidget) -> dict[str, int]:
    """Run the widget once; the longest time between two turns of the event loop in ms, and the number of turns."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    gaps: list[float] = []
    last = time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        gaps.append(now - last)
        last = now

    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(tick)
    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.01)
    widget.counting.running.connect(lambda running: None if running else timer.stop())
    last = time.perf_counter()
    timer.start()
    widget.run()
    while widget.counting.is_running:
        QApplication.processEvents()
        time.sleep(0.001)
    return {"longest_ms": round(1000 * max(gaps)), "turns": len(gaps)}


if __name__ == "__main__":
    main()
