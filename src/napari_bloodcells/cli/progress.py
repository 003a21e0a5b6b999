"""A progress bar in the terminal, and Ctrl-C or a polite kill as a request to stop.

The first SIGINT or SIGTERM asks the core to stop at the next batch, where everything finished is kept; a second one
ends the process at once.  Where the output is no terminal, nothing is drawn.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class TerminalProgress:
    """Implements ``core.progress.Progress`` with rich.

    Parameters
    ----------
    words : dict
        What a task is called on screen, by its name in the core.
    """

    def __init__(self, words: dict[str, str] | None = None) -> None:
        self.words = words or {}
        self.stopped_by: int | None = None
        self._bar: Bar | None = None
        self._tasks: dict[str, Any] = {}
        self._former: dict[int, Any] = {}

    def __enter__(self) -> TerminalProgress:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stopped_by = number
        self.say_stopping()

    def say_stopping(self) -> None:
        """Answer the first signal."""
        with suppress(OSError):  # not print: the signal may come in the midst of one, which cannot be entered twice
            os.write(2, b"Stopping ... (once more to end at once)\n")

    def start(self, task: str, total: int | None) -> None:
        """Show a bar for ``task``, or begin it anew."""
        if not sys.stderr.isatty():
            return
        bar = self._bar or self._open()
        if task in self._tasks:
            bar.reset(self._tasks[task], total=total, values="")
            return
        self._tasks[task] = bar.add_task(self.words.get(task, task), total=total, values="")

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Move the bar of ``task`` on, with ``values`` beside it."""
        if self._bar is not None and task in self._tasks:
            shown = "  ".join(f"{name} {value:,.4g}" for name, value in values.items())
            self._bar.update(self._tasks[task], advance=n, values=shown)

    def cancelled(self) -> bool:
        """Whether Ctrl-C was pressed or the process asked to end."""
        return self.stopped_by is not None

    def _open(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[values]}"), console=Console(stderr=True))
        self._bar.start()
        return self._bar
