"""Worker processes: shards of jobs out, shards of records back, and none lost when a worker dies.

Each worker builds one ``FieldCounter`` and computes on one thread, which on a CPU is faster than one process with
many threads (the images are small) and makes every sum the same on every machine.  Where that is safe (Linux, nothing
else running in this process) workers are forked, so torch is imported once: from a server that was started early
(``server.py``), or from this process; elsewhere they are spawned.  A worker that is killed takes its pool with it: the
pool is built anew, without the server, and what was unfinished runs again.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeAlias

from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup, StageTimes
from napari_bloodcells.core.counting.shelf import LentShelf, Shelf
from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.core.files import printable
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled

Work: TypeAlias = tuple[int, Sequence[FieldJob]]
Done: TypeAlias = tuple[int, list[FieldRecord], StageTimes]

MAX_DEATHS = 5
"""So many times the workers may die before the run gives up."""
_POLL_S = 0.2
_NAMED = 3
_setup: CounterSetup | None = None
_shelf: LentShelf | None = None
_counter: FieldCounter | None = None
_progress: Progress = Silent()


def all_devices(text: str) -> tuple[str, ...]:
    """The devices that ``all`` (every graphics card of this machine) or a list ``cuda:0,cuda:1`` means.

    >>> all_devices("cuda:0, cuda:1")
    ('cuda:0', 'cuda:1')
    """
    if text.strip().casefold() != "all":
        return tuple(name for name in text.replace(" ", "").split(",") if name)
    import torch

    n = torch.cuda.device_count()
    return tuple(f"cuda:{i}" for i in range(n)) if n else ()


def run_inline(counter: FieldCounter, work: Iterable[Work], progress: Progress) -> Iterator[Done]:
    """Count in this process, one shard after the other; stops between two shards or within a slide when asked to."""
    for shard, jobs in work:
        check_cancelled(progress)
        counter.times, counter.progress = StageTimes(), progress
        yield shard, counter.count(jobs), counter.times


def run_processes(
    setups: Sequence[CounterSetup], work: Iterable[Work], progress: Progress, shelf: Shelf | None = None
) -> Iterator[Done]:
    """Count in one process per setup; shards come back as they are finished.

    With a ``shelf`` the processes come from the server, which was started; it is filled until they do.

    Raises
    ------
    BloodcellsError
        The workers died again and again (the images that they had then are named), or one could not start (its own
        error).
    Cancelled
        ``progress`` asked to stop; shards that were under way are finished and lost.
    """
    todo = iter(work)
    lost: list[Work] = []
    for attempt in range(MAX_DEATHS):
        lost = []
        yield from _run_pool(setups, todo, progress, lost, shelf if attempt == 0 else None)
        if not lost:
            return
        todo = _chain(lost, todo)  # the former one is kept: work that it still holds would be closed with it
    raise BloodcellsError(
        f"The worker processes died {MAX_DEATHS} times (killed, or out of memory), the last time with "
        f"{named_images(lost)}: try fewer of them with --workers, and without these images."
    )


def named_images(work: Iterable[Work]) -> str:
    """The first images of some work, for an error.

    >>> named_images([(0, [FieldJob("a/1.jpg", "")]), (1, [FieldJob(f"{i}.jpg", "") for i in range(4)])])
    'a/1.jpg, 0.jpg, 1.jpg and 2 more'
    """
    names = [printable(job.image) for _, jobs in work for job in jobs]
    return f"{', '.join(names[:_NAMED])}{f' and {more} more' if (more := len(names) - _NAMED) > 0 else ''}"


def _chain(first: Sequence[Work], rest: Iterator[Work]) -> Iterator[Work]:
    yield from first
    yield from rest


def _run_pool(
    setups: Sequence[CounterSetup], work: Iterator[Work], progress: Progress, lost: list[Work], shelf: Shelf | None
) -> Iterator[Done]:
    """Run one pool until the work is done or the pool dies; what it took with it is put into ``lost``."""
    method = _start_method(setups) if shelf is None else "forkserver"
    if method == "fork":
        import_needed()
    context = multiprocessing.get_context(method)
    # A plain byte: a worker that is killed while it looks at an event would keep its lock.
    queue, stop = context.SimpleQueue(), context.RawValue("b", 0)
    pool = ProcessPoolExecutor(len(setups), context, _start_worker, (queue, stop))
    running: dict[Future[Done], Work] = {}
    waited_for = len(setups)
    try:
        if shelf is not None and (item := next(work, None)) is not None:
            try:
                running[_submit_filling(shelf, pool, item, lost, progress)] = item
            except BrokenProcessPool:
                return
        for setup in setups:
            queue.put((setup, shelf and shelf.lend()))
        waited_for = 0
        while True:
            try:
                while len(running) < 2 * len(setups) and (item := next(work, None)) is not None:
                    running[_submit(pool, item, lost)] = item
            except BrokenProcessPool:
                lost.extend(running.values())
                return
            if not running:
                return
            for future in wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    done = future.result()
                except BrokenProcessPool:
                    lost.extend([item, *running.values()])
                    return
                yield done
            check_cancelled(progress)
    finally:
        stop.value = 1  # a slide may take many minutes more
        for _ in range(waited_for):  # a worker ends only once it has started, and it starts with its setup
            queue.put((None, None))
        pool.shutdown(wait=True, cancel_futures=True)
        if shelf is not None:
            shelf.close()


def _submit(pool: ProcessPoolExecutor, item: Work, lost: list[Work]) -> Future[Done]:
    try:
        return pool.submit(_count_shard, *item)
    except (BrokenProcessPool, EOFError, ConnectionError) as error:  # the last two where it is the server that died
        lost.append(item)
        raise BrokenProcessPool from error


def _submit_filling(
    shelf: Shelf, pool: ProcessPoolExecutor, item: Work, lost: list[Work], progress: Progress
) -> Future[Done]:
    """Submit the first work, which takes until the server has imported all it needs, and fill the shelf meanwhile."""
    with ThreadPoolExecutor(1) as aside:
        submitted = aside.submit(_submit, pool, item, lost)
        shelf.fill(lambda: submitted.done() or progress.cancelled())
        return submitted.result()


def _start_method(setups: Sequence[CounterSetup]) -> str:
    """Fork only where it is safe: Linux, no GPU, also none that this process used before, and no other thread that
    could hold a lock."""
    on_cpu = all(setup.device == "cpu" for setup in setups)
    torch = sys.modules.get("torch")
    used_gpu = torch is not None and torch.cuda.is_initialized()
    safe = sys.platform == "linux" and on_cpu and not used_gpu and threading.active_count() == 1
    return "fork" if safe else "spawn"


def import_needed() -> None:
    """Import what counting on a CPU imports on the way, before workers are forked, which would each do so."""
    from PIL import BmpImagePlugin, GifImagePlugin, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    import napari_bloodcells.core.bundle
    import napari_bloodcells.core.localize.learned
    import napari_bloodcells.core.models.stainnet
    import napari_bloodcells.core.voc  # noqa: F401


class _Stoppable(Silent):
    """Cancels when the parent has no more use for the work; tells of nothing."""

    def __init__(self, stop: Any) -> None:
        self._stop = stop

    def cancelled(self) -> bool:
        return bool(self._stop.value)


def _start_worker(queue: Any, stop: Any) -> None:
    """Take the setup of this process, and end when the parent ends."""
    global _setup, _shelf, _progress
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    with contextlib.suppress(ValueError, AttributeError):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # a million objects of torch and numpy that stay: no collection need look at them again
    _keep_memory()
    _end_with(multiprocessing.parent_process())
    _progress = _Stoppable(stop)
    _setup, lent = queue.get()
    _shelf = lent and LentShelf(lent)


def _keep_memory() -> None:
    """Have glibc keep freed memory up to 16 MB: every picture would else be asked of the system page by page."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            import ctypes

            libc = ctypes.CDLL(None)
            libc.mallopt(-3, 8 * 2**20)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 16 * 2**20)  # M_TRIM_THRESHOLD


def _end_with(parent: Any) -> None:
    """End this process when ``parent`` does, also when that was killed: no orphan computes on."""

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def _count_shard(shard: int, jobs: Sequence[FieldJob]) -> Done:
    global _counter
    if _counter is None:  # here and not at the start, so that what goes wrong comes back as its own error
        if _setup is None:
            raise RuntimeError("the worker was not started")
        _counter = FieldCounter(_setup)
        _counter.shelf = _shelf
    _counter.times, _counter.progress = StageTimes(), _progress
    return shard, _counter.count(jobs), _counter.times


Runner: TypeAlias = Callable[[Iterable[Work], Progress], Iterator[Done]]
