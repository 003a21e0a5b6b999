"""Imported by the server of which workers are forked (``server.py``), for its effect: all that a worker needs is loaded
once, and the server ends when the program does."""

from __future__ import annotations

import contextlib
import gc
import os
import signal


def _end_with_the_program() -> None:
    """Have the kernel end this process when the one that started it ends, also when that is killed."""
    import ctypes

    from napari_bloodcells.core.counting.server import PARENT

    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG; forked processes do not inherit it
    if os.environ.pop(PARENT, "") != str(os.getppid()):  # it has ended already
        os._exit(1)


signal.signal(signal.SIGINT, signal.SIG_IGN)
with contextlib.suppress(OSError, AttributeError):
    _end_with_the_program()
gc.disable()  # nothing of what is imported is ever garbage; looking for it takes a tenth of the time
with contextlib.suppress(Exception):  # the worker that needs it will say what is wrong
    from napari_bloodcells.core.counting.workers import import_needed

    import_needed()
gc.freeze()
gc.enable()
