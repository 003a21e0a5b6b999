"""Imported by the server of which workers are forked (``server.py``), for its effect there: all that a worker needs is
loaded once, and the server ends when the program does.  Anywhere else importing it does nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import signal

from napari_bloodcells.core.counting.server import PARENT


def _prepare(parent: str) -> None:
    """Make this process the server of ``parent``, a process number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        _end_with_the_program()
    if parent != str(os.getppid()):  # it has ended already
        os._exit(1)
    gc.disable()  # nothing of what is imported is ever garbage; looking for it takes a tenth of the time
    with contextlib.suppress(Exception):  # the worker that needs it will say what is wrong
        from napari_bloodcells.core.counting.workers import import_needed

        import_needed()
    gc.freeze()
    gc.enable()


def _end_with_the_program() -> None:
    """Have the kernel end this process when the one that started it ends, also when that is killed."""
    import ctypes

    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG; forked processes do not inherit it


if (told := os.environ.pop(PARENT, None)) is not None:
    _prepare(told)
