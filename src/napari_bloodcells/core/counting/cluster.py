"""Counting on a cluster: shards of jobs to dask workers, records back, the same bytes as on one machine.

Every worker process builds one ``FieldCounter``, of which each of its threads has a twin, and keeps it while the
settings and the files of the models stay the same to the byte (a cluster outlives its counts).  Settings and files, of
the bundle and of a localizer of the user's own, are sent once to each worker, not with each shard; the scheduler has
them too, for workers that come when all others are gone.  dask runs the shards of a worker that dies on another one, up
to ``DEATHS`` times; an error that a worker raises ends the run at once.  Workers read the images themselves, so these
must lie where all machines see them under the same path.  Extra ``cluster``.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.server import no_interrupt
from napari_bloodcells.core.counting.setup import BOX_CHOICES, CounterSetup, StageTimes, readers_of
from napari_bloodcells.core.counting.workers import Done, Work, named_images
from napari_bloodcells.core.devices import pick_device
from napari_bloodcells.core.errors import GO_ON, BloodcellsError, BundleError, OutageError, UsageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.progress import Progress, check_cancelled

AHEAD = 3
"""Shards that wait at the scheduler, per worker: enough to keep it busy, few enough for the scheduler's memory."""
DEATHS = 10
"""So many workers may die under one shard before it is given up; a scheduler of one's own has its own limit."""
_WAIT_S = 60
"""So long a scheduler may take to answer, and a cluster may be without workers."""
_POLL_S = "200ms"

_lock = threading.Lock()
_counters: dict[tuple[CounterSetup, str], FieldCounter] = {}
_mine = threading.local()


def run_cluster(address: str, setup: CounterSetup, work: Iterable[Work], progress: Progress) -> Iterator[Done]:
    """Count shards on the dask cluster at ``address`` (``tcp://host:8786``), or on one started here (``local:4``).

    Raises
    ------
    UsageError
        The extra is missing, or the address cannot be meant.
    BloodcellsError
        The scheduler cannot be reached, or has no workers.
    OutageError
        The scheduler was lost, all workers were and no other came, or a shard kills every worker that takes it.
    """
    try:
        import distributed
    except ImportError:
        raise UsageError("--cluster needs dask: pip install 'napari-bloodcells[cluster]'.") from None
    with _client(distributed, address) as client:
        yield from _run(distributed, client, setup, iter(work), progress)


@contextmanager
def _client(distributed: Any, address: str) -> Iterator[Any]:
    kind, _, number = address.partition(":")
    if kind == "local":
        if number and not number.isdigit():
            raise UsageError(f"--cluster {address}: local:N takes a number of workers, such as local:4.")
        with _local_cluster(distributed, max(int(number or 2), 1)) as cluster, distributed.Client(cluster) as client:
            yield client
        return
    try:
        client = distributed.Client(address, timeout=_WAIT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise BloodcellsError(f"{address}: no dask scheduler answers there ({error}).") from None
    with client:
        yield client


def _local_cluster(distributed: Any, workers: int) -> Any:
    """A scheduler in this process with worker processes beside it, which leave Ctrl-C to this one."""
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}), no_interrupt():
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        )


def _run(
    distributed: Any, client: Any, setup: CounterSetup, work: Iterator[Work], progress: Progress
) -> Iterator[Done]:
    try:
        client.wait_for_workers(1, timeout=_WAIT_S)
    except TimeoutError:
        raise BloodcellsError("The dask scheduler has no workers; start some and try again.") from None
    sent = _send(distributed, client, _Parcel.pack(setup))
    running: dict[Any, Work] = {}
    manned = time.monotonic()
    while True:
        with _outages(distributed):
            n_workers = len(client.nthreads())
        manned = time.monotonic() if n_workers else manned
        if time.monotonic() - manned > _WAIT_S:
            raise OutageError(f"The dask cluster has had no workers for {_WAIT_S} s; start some: {GO_ON}.")
        busy = AHEAD * max(n_workers, 1)
        while len(running) < busy and (item := next(work, None)) is not None:
            shard, jobs = item
            with _outages(distributed):
                running[client.submit(count_shard, sent, shard, list(jobs), pure=False)] = item
        if not running:
            return
        for future in _finished(distributed, running):
            item = running.pop(future)
            yield _result(distributed, future, item)
        check_cancelled(progress)


def _send(distributed: Any, client: Any, parcel: _Parcel) -> Any:
    """The parcel as what a task returns: scattered, it would be lost with the last worker that has it."""
    import dask

    with _outages(distributed), dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return client.submit(_as_sent, parcel, pure=False)


@contextmanager
def _outages(distributed: Any, *asked: Work) -> Iterator[None]:
    """Say in one line what dask raises, in many ways, where its scheduler is gone, or where the work that was
    ``asked`` for kills every worker."""
    try:
        yield
    except distributed.KilledWorker:
        raise OutageError(
            f"Workers died again and again under the same images ({named_images(asked)}): give workers more memory, or "
            f"leave these images out; {GO_ON}."
        ) from None
    except distributed.CancelledError as error:
        why = " ".join(str(error).split())[:120]
        raise OutageError(f"The dask scheduler is gone, or dropped the work ({why}); {GO_ON}.") from None
    except (OSError, TimeoutError) as error:
        raise OutageError(f"The connection to the dask scheduler was lost ({error}); {GO_ON}.") from None


def _finished(distributed: Any, running: dict[Any, Work]) -> list[Any]:
    with _outages(distributed):
        try:
            done = distributed.wait(list(running), timeout=_POLL_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return []
    return [future for future in running if future in done]


def _result(distributed: Any, future: Any, item: Work) -> Done:
    with _outages(distributed, item):
        shard, records, times = future.result()
    return shard, [FieldRecord.from_json(record) for record in records], times


class _Parcel:
    """What a worker needs: the settings, and the files of the models by their place below a folder of its own."""

    def __init__(self, setup: CounterSetup, files: dict[str, bytes]) -> None:
        self.setup, self.files = setup, files
        self.sha256 = _digest(files)

    @staticmethod
    def pack(setup: CounterSetup) -> _Parcel:
        """Read the bundle here, once, and the localizer where it is one of the user's own."""
        from napari_bloodcells.core.bundle import find_bundle
        from napari_bloodcells.core.localize.home import home

        model, files = _read_models(find_bundle(setup.model), "model")
        boxes = setup.boxes
        if boxes not in BOX_CHOICES:
            boxes, own = _read_models(home(boxes), "localizer")
            files |= own
        return _Parcel(replace(setup, model=model, boxes=boxes), files)

    def open(self) -> FieldCounter:
        """This thread's twin of the counter of this process, which is built from the parcel the first time."""
        key = self.setup, self.sha256
        with _lock:
            if key not in _counters:
                _counters.clear()
                _counters[key] = self._build()
            counter = _counters[key]
        if getattr(_mine, "twin_of", None) is not counter:
            _mine.twin_of, _mine.counter = counter, counter.twin()
        mine: FieldCounter = _mine.counter
        return mine

    def _build(self) -> FieldCounter:
        """The counter, on a device of this machine, which may have others than the one that sent the parcel."""
        from tempfile import TemporaryDirectory

        import torch

        torch.set_num_threads(1)
        with TemporaryDirectory(prefix="bloodcells-") as folder:
            for name, data in self.files.items():
                place = Path(folder) / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            device = str(pick_device(self.setup.device))
            model = str(Path(folder) / self.setup.model)
            setup = replace(self.setup, model=model, device=device, readers=readers_of(device))
            if setup.boxes in BOX_CHOICES:
                return FieldCounter(setup)
            counter = FieldCounter(replace(setup, boxes=str(Path(folder) / setup.boxes)))
            _ = counter.localizer  # now, as its files are gone after this
            return counter


def _read_models(path: Path, kind: str) -> tuple[str, dict[str, bytes]]:
    """The place below ``kind`` of a model's folder or file, and the files to lie there."""
    path = path.resolve()
    place = f"{kind}/{path.name}"
    try:
        if not path.is_dir():
            return place, {place: path.read_bytes()}
        listed = (file for file in sorted(path.iterdir()) if file.suffix in (".json", ".safetensors"))
        return place, {f"{place}/{file.name}": file.read_bytes() for file in listed}
    except OSError as error:
        shown, why = display_name(error.filename or path), (error.strerror or str(error)).lower()
        raise BundleError(f"{shown}: cannot be read: {why}; see to its permissions.") from None


def _as_sent(parcel: _Parcel) -> _Parcel:
    return parcel


def _digest(files: dict[str, bytes]) -> str:
    """SHA-256 of files: names, lengths and bytes, so that no two sets of files read alike."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


def count_shard(parcel: _Parcel, shard: int, jobs: Sequence[FieldJob]) -> tuple[int, list[dict[str, Any]], StageTimes]:
    """Count one shard on a worker; the records come back as plain JSON values."""
    counter = parcel.open()
    counter.times = StageTimes()
    return shard, [record.to_json() for record in counter.count(jobs)], counter.times
