"""Work of the window itself, cut into pieces: one piece in a turn of the event loop, keys and drawing in between.

Putting cells on the canvas cannot go to a thread, because napari and Qt belong to the window.  So it is written as a
generator that yields where it can rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from qtpy.QtCore import QObject, QTimer

_REST_MS = 10


class Turns(QObject):
    """Runs generators piece by piece, one generator after the other."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Iterator[None]] = deque()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)
        self._timer.timeout.connect(self._turn)

    @property
    def are_going(self) -> bool:
        """Whether there is a piece left."""
        return bool(self._waiting)

    def take(self, pieces: Iterator[None]) -> None:
        """Run ``pieces`` after what is waiting already."""
        self._waiting.append(pieces)
        self._timer.start()

    def stop(self) -> None:
        """Leave out what is left."""
        self._timer.stop()
        while self._waiting:
            pieces = self._waiting.popleft()
            if hasattr(pieces, "close"):
                pieces.close()

    def _turn(self) -> None:
        if not self._waiting:
            return
        try:
            next(self._waiting[0])
        except StopIteration:
            self._waiting.popleft()
        except Exception:
            self._waiting.popleft()  # it is told by napari; the others shall not wait for ever
            raise
        finally:
            if self._waiting:
                self._timer.start()
