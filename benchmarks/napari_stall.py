"""How long the window does not answer while a count runs and its cells are put on the canvas.

    python -m benchmarks.napari_stall

Opens napari, counts twelve drawn fields in the widget, the first time with torch still to be loaded, the second time
without, until every cell stands on the canvas and in the gallery.  Prints, for each, the longest turn of the event
loop as one line of JSON (milliseconds): by the clock; by the clock less what threads of this process waited for a
processor that other programs had; and as time of the processor that the window's own thread used.  Needs a display
(``xvfb-run``).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_bloodcells.napari.count_widget import CountWidget


@dataclass(frozen=True)
class Turn:
    """One turn of the event loop, in seconds.

    ``waited`` is how long the window's thread was ready to run while the processor did something else, and the
    longest such wait of any other thread of this process (which may have held Python's lock meanwhile).
    """

    wall: float
    cpu: float
    waited: float

    @property
    def own(self) -> float:
        """Seconds without an answer that are this program's own."""
        return max(0.0, self.wall - self.waited)


class TurnClock:
    """Clocks the turns of the Qt event loop, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self.turns: list[Turn] = []
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._me = threading.get_native_id()

    def start(self) -> None:
        """Begin."""
        self.turns.clear()
        self._last = self._now()
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def longest_ms(self) -> dict[str, int]:
        """The longest turn by each measure, and the number of turns."""
        figures = {name: round(1000 * max(getattr(t, name) for t in self.turns)) for name in ("wall", "own", "cpu")}
        return {**figures, "turns": len(self.turns)}

    def _tick(self) -> None:
        now = self._now()
        delays = {thread: delay - self._last[2].get(thread, 0.0) for thread, delay in now[2].items()}
        waited = delays.pop(self._me, 0.0) + max(delays.values(), default=0.0)
        self.turns.append(Turn(now[0] - self._last[0], now[1] - self._last[1], waited))
        self._last = now

    def _now(self) -> tuple[float, float, dict[int, float]]:
        return time.perf_counter(), time.thread_time(), waits()


def waits() -> dict[int, float]:
    """Seconds that each thread of this process was ready to run and had no processor; empty where nobody tells."""
    found: dict[int, float] = {}
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            found[int(task.parent.name)] = int(task.read_text().split()[1]) / 1e9
    return found


def main() -> None:
    """Run twice and print."""
    os.environ.pop("QT_QPA_PLATFORM", None)
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()  # no review of the user's is opened or changed

    import napari
    from napari_bloodcells.napari.count_widget import CountWidget
    from napari_bloodcells.synthetic import draw_smear

    viewer = napari.Viewer()
    viewer.add_image(np.stack([draw_smear(seed).image for seed in range(12)]), rgb=True, name="smears")
    widget = CountWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Differential count")
    found = {"loading torch": clock_count(widget).longest_ms(), "torch loaded": clock_count(widget).longest_ms()}
    print(json.dumps(found))
    widget.let_go()
    viewer.close()


def clock_count(widget: CountWidget, settle_s: float = 1.0, timeout_s: float = 240.0) -> TurnClock:
    """Run the widget once, and clock every turn until its cells are shown and their crops made.

    Raises
    ------
    TimeoutError
        The cells were not shown in time.
    """
    from qtpy.QtWidgets import QApplication

    def turn() -> None:
        QApplication.processEvents()
        time.sleep(0.001)

    end = time.monotonic() + settle_s
    while time.monotonic() < end:
        turn()
    clock, former, end = TurnClock(), widget.cells, time.monotonic() + timeout_s
    clock.start()
    widget.run()
    while (
        widget.counting.is_running
        or widget.turns.are_going
        or widget.gallery is None
        or widget.cells is former
        or not widget.gallery.model.thumbnails.are_made
    ):
        if time.monotonic() > end:
            raise TimeoutError(f"no cells were shown: {widget.run_bar.said.text()}")
        turn()
    end = time.monotonic() + settle_s
    while time.monotonic() < end:
        turn()
    clock.stop()
    return clock


if __name__ == "__main__":
    main()
