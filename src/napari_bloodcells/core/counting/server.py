"""A process that imports torch while this one does other things; worker processes are then forked from it.

Importing torch takes longer than all else in starting a count, on one processor.  So the command asks Python's
"forkserver" for a process that imports what workers need (``preload.py``), and meanwhile lists images and imports what
the tables need.  The workers import the main module of the program once more, which only a program may allow whose
main module does nothing then: ``CountOptions.guarded_main``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from napari_bloodcells.core.devices import cpu_count, surely_cpu
from napari_bloodcells.core.find import IMAGE_SUFFIXES

FEW = 32
"""So few images are counted in the process that was started: starting others would take longer."""
PARENT = "BLOODCELLS_PARENT"
"""The variable that tells the server which process started it."""
_PRELOAD = "napari_bloodcells.core.counting.preload"


def start_server_for(inputs: Sequence[str], device: str, workers: int) -> None:
    """Start the server before the images are listed, where a glance tells that worker processes will count them.

    Parameters
    ----------
    inputs : sequence of str
        Folders and files to count, as the user gave them; folders inside are not looked into.
    device, workers
        As ``count`` takes them.
    """
    if (workers or cpu_count()) > 1 and surely_cpu(device) and len(list(islice(_images(inputs), FEW + 1))) > FEW:
        start_server()


def _images(inputs: Sequence[str]) -> Iterator[str]:
    for path in inputs:
        try:
            with os.scandir(path) as entries:
                yield from (entry.name for entry in entries if _suffix(entry.name) in IMAGE_SUFFIXES)
        except (OSError, ValueError):  # a file, or what the listing will complain of
            if _suffix(path) in IMAGE_SUFFIXES:
                yield path


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].casefold()


def start_server() -> bool:
    """Start the server, unless it runs; False where workers must come another way.

    That is where there is no such server (Windows) or it would be of no use (macOS, where forking is not safe; torch
    is imported here already), or where it cannot be started.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return False
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload([_PRELOAD])
    try:
        with _environment(), no_interrupt():
            forkserver.ensure_running()
    except OSError:  # no room for its socket, or for a process
        return False
    return True


@contextmanager
def _environment() -> Iterator[None]:
    """What is started in this block imports nothing from the folder in which the user is, as ``python -c`` would, knows
    this process, and does not warn of semaphores that it removes where this process was killed."""
    warnings = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker"]
    told = {"PYTHONSAFEPATH": "1", "PYTHONWARNINGS": ",".join(filter(None, warnings)), PARENT: str(os.getpid())}
    former = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in former.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextmanager
def no_interrupt() -> Iterator[None]:
    """What is started in this block, also by threads that are, never sees Ctrl-C, which goes to the whole group; this
    process sees it after.  On Windows, where signals cannot be held back, it does nothing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # first, as it lets Ctrl-C through again
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
