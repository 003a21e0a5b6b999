"""Long work in a thread, with its progress in the window and a way to stop it.

The core runs in a ``thread_worker`` of napari and reports through ``ThreadProgress``, which keeps its figures under a
lock; a timer of the window reads them four times a second.  So however quickly the work reports, the event loop is
never flooded, and the window is seldom drawn anew (which costs the work a core where OpenGL is done in software; for
the same reason no bar is animated).  Errors meant for the user are shown as a notification in their own words; any
other is too, with its traceback in the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QFrame, QLayout, QScrollArea, QVBoxLayout, QWidget

from napari_bloodcells.core.errors import BloodcellsError, Cancelled

_LOG = logging.getLogger(__name__)
_TICK_MS = 250
_LEAST_HEIGHT = 400
_AROUND, _AROUND_DOCK = 110, 30
"""Pixels that a window needs besides its docks (its frame, menu and status bar), and each dock for its title."""


@dataclass(frozen=True)
class Standing:
    """How far the work is: steps done of ``total`` (None where not known), and figures such as a loss."""

    task: str = ""
    done: int = 0
    total: int | None = None
    values: dict[str, float] = field(default_factory=dict)


class ThreadProgress:
    """The core's ``Progress``, told in a thread and read in the window."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._standing = Standing()
        self._news: list[Standing] = []

    def start(self, task: str, total: int | None) -> None:
        """A task begins."""
        with self._lock:
            self._standing = Standing(task, 0, total)
            self._news.append(self._standing)

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Steps are done."""
        with self._lock:
            now = self._standing
            done = now.done + n if now.task == task else n
            self._standing = Standing(task, done, now.total if now.task == task else None, values or now.values)
            self._news.append(self._standing)

    def cancelled(self) -> bool:
        """Whether the user pressed Cancel."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._stop.set()

    def read(self) -> tuple[Standing, list[Standing]]:
        """How far the work is, and every step since the last reading."""
        with self._lock:
            news, self._news = self._news, []
            return self._standing, news


class Task(QObject):
    """One piece of work at a time in a thread.

    Signals
    -------
    told : Standing, list of Standing
        While it runs, at most four times a second.
    finished : object
        What the work returned.
    failed : object
        The exception that ended it (``Cancelled`` where the user stopped it).
    running : bool
    """

    told = Signal(object, object)
    finished = Signal(object)
    failed = Signal(object)
    running = Signal(bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.progress: ThreadProgress | None = None
        self._worker: FunctionWorker[Any] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tell)

    @property
    def is_running(self) -> bool:
        """Whether work is under way."""
        return self._worker is not None

    def start(self, work: Callable[[ThreadProgress], Any], title: str) -> None:
        """Run ``work`` in a thread; it is given the progress to report to.  ``title`` stands in the log."""
        if self._worker is not None:
            return
        _LOG.info("%s", title)
        self.progress = ThreadProgress()
        self._worker = create_worker(_quietly, [work], self.progress, _start_thread=False)
        self._worker.returned.connect(self._ended)
        self._timer.start()
        self.running.emit(True)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; it does within one batch."""
        if self.progress is not None:
            self.progress.cancel()

    def _tell(self) -> None:
        if self.progress is None:
            return
        standing, news = self.progress.read()
        if news:
            self.told.emit(standing, news)

    def _ended(self, outcome: tuple[Any, BaseException | None]) -> None:
        self._tell()
        self._timer.stop()
        self._worker, self.progress = None, None
        self.running.emit(False)
        result, error = outcome
        if error is None:
            self.finished.emit(result)
        else:
            self.failed.emit(error)


class DockedWidget(QWidget):
    """A widget that lets go of the viewer when it is closed, as a window or with its dock.

    A dock that is closed (x) tells its widget by no event but that it has no parent any more; docking elsewhere and
    floating leave it in its dock.
    """

    _content: QWidget | None = None
    _is_placed = False

    def let_go(self) -> None:
        """Stop what runs and follow the viewer no longer; may be called again.  Here nothing does."""

    def lay_out(self, layout: QLayout) -> None:
        """Fill the widget with ``layout``; in a dock that is too low for it, it is scrolled, and nothing overlaps."""
        content, scroll = QWidget(), QScrollArea()
        content.setLayout(layout)
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self._content = content

    def minimumSizeHint(self) -> QSize:
        """All of it, up to a height: to an upper dock napari gives no more than this.

        Several in one window ask for less, so that the window does not get higher than the screen.
        """
        least = super().minimumSizeHint()
        if self._content is not None:
            share = self._share() if self._is_placed else 0  # until the others have made room
            least.setHeight(min(self._content.minimumSizeHint().height(), _LEAST_HEIGHT, share))
        return least

    def _beside(self) -> list[DockedWidget]:
        """Those of its window, itself among them."""
        window = self.window()
        others = [] if window is None else window.findChildren(DockedWidget)
        return [self, *(x for x in others if x is not self and x.window() is window)]

    def _share(self) -> int:
        """The height that each of its window can have at once on the screen."""
        screen = self.screen()
        if screen is None:
            return _LEAST_HEIGHT
        return max((screen.availableGeometry().height() - _AROUND) // len(self._beside()) - _AROUND_DOCK, 100)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        QTimer.singleShot(0, lambda: self._share_height())

    def _share_height(self) -> None:
        """Those of the window ask for their heights anew, as there is one more."""
        if not self._is_alive():
            return
        self._is_placed = True
        for widget in self._beside():
            dock = widget.parentWidget()
            if isinstance(dock, QDockWidget):  # keeps the height that it needed when it was a window of its own
                dock.setMinimumHeight(0)
            widget.updateGeometry()

    def closeEvent(self, event: Any) -> None:
        self.let_go()
        super().closeEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parentWidget() is None:
            QTimer.singleShot(0, lambda: self._left())  # a widget that is only moved has its next parent by then

    def _is_alive(self) -> bool:
        """Whether Qt still has it: a timer may ring after it was deleted."""
        return bool(isalive(self))

    def _left(self) -> None:
        if self._is_alive() and self.parentWidget() is None and not self.isVisible():
            self.let_go()


class TaskWidget(DockedWidget):
    """A widget with one ``task``, which is stopped when the widget is closed: nobody could stop it any more."""

    task: Task

    def let_go(self) -> None:
        """Stop the task."""
        self.task.cancel()


def _quietly(
    given: list[Callable[[ThreadProgress], Any]], progress: ThreadProgress
) -> tuple[Any, BaseException | None]:
    """Do the work that is ``given``, and take it out: napari keeps its workers, and what they were called with, for the
    whole session, and the work holds the pixels of an image.

    Errors come back as values: raised in a worker, napari would show a dialog with a traceback.
    """
    work = given.pop()
    try:
        return work(progress), None
    except BloodcellsError as error:
        return None, error
    except Exception as error:
        _LOG.exception("The work in the thread failed.")
        return None, error


def report_error(error: BaseException, doing: str) -> None:
    """Tell the user of an error: its own words where it was meant for them, else what to do."""
    if isinstance(error, Cancelled):
        return
    if isinstance(error, BloodcellsError):
        show_error(str(error))
    else:
        kind = type(error).__name__
        show_error(f"{doing} failed ({kind}: {error}). Your review is kept; the log of napari has the details.")
