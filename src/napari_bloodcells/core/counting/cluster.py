"""Counting on a cluster: shards of jobs to dask workers, records back, the same bytes as on one machine.

Every worker process builds one ``FieldCounter`` and keeps it; what it needs to build it (a few lines of settings, and
the bundle's files where the worker does not have them) is sent once to each worker, not with each shard.  dask runs
the shards of a worker that dies on another one.  Workers read the images themselves, so these must lie where all
machines see them under the same path.  Extra ``cluster``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup, StageTimes
from napari_bloodcells.core.counting.workers import Done, Work
from napari_bloodcells.core.errors import BloodcellsError, UsageError
from napari_bloodcells.core.progress import Progress, check_cancelled

AHEAD = 3
"""Shards that wait at the scheduler, per worker: enough to keep it busy, few enough for the scheduler's memory."""
DEATHS = 10
"""So many workers may die under one shard before it is given up."""
_WAIT_S = 60
_POLL_S = "200ms"

_lock = threading.Lock()
_counters: dict[CounterSetup, FieldCounter] = {}


def run_cluster(address: str, setup: CounterSetup, work: Iterable[Work], progress: Progress) -> Iterator[Done]:
    """Count shards on the dask cluster at ``address`` (``tcp://host:8786``), or on one started here (``local:4``).

    Raises
    ------
    UsageError
        The extra is missing, or the address cannot be meant.
    BloodcellsError
        The scheduler cannot be reached, has no workers, or a shard kills every worker that takes it.
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
        with (
            distributed.LocalCluster(
                n_workers=max(int(number or 2), 1), threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(address, timeout=_WAIT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise BloodcellsError(f"{address}: no dask scheduler answers there ({error}).") from None
    with client:
        yield client


def _run(
    distributed: Any, client: Any, setup: CounterSetup, work: Iterator[Work], progress: Progress
) -> Iterator[Done]:
    try:
        client.wait_for_workers(1, timeout=_WAIT_S)
    except TimeoutError:
        raise BloodcellsError("The dask scheduler has no workers; start some and try again.") from None
    sent = client.scatter(_Parcel.pack(setup), broadcast=True, hash=False)
    running: dict[Any, Work] = {}
    while True:
        busy = AHEAD * max(len(client.nthreads()), 1)
        while len(running) < busy and (item := next(work, None)) is not None:
            shard, jobs = item
            running[client.submit(count_shard, sent, shard, list(jobs), pure=False, retries=DEATHS)] = item
        if not running:
            return
        for future in _finished(distributed, running):
            item = running.pop(future)
            yield _result(distributed, future)
        check_cancelled(progress)


def _finished(distributed: Any, running: dict[Any, Work]) -> list[Any]:
    try:
        done = distributed.wait(list(running), timeout=_POLL_S, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return []
    return [future for future in running if future in done]


def _result(distributed: Any, future: Any) -> Done:
    try:
        shard, records, times = future.result()
    except distributed.KilledWorker as error:
        raise BloodcellsError(f"Workers died again and again under the same images ({error}).") from None
    except (distributed.CancelledError, OSError) as error:
        raise BloodcellsError(f"The connection to the dask scheduler was lost ({error}).") from None
    return shard, [FieldRecord.from_json(record) for record in records], times


class _Parcel:
    """What a worker needs: the settings, and the files of the bundle where it is one of the user's own."""

    def __init__(self, setup: CounterSetup, files: dict[str, bytes]) -> None:
        self.setup, self.files = setup, files

    @staticmethod
    def pack(setup: CounterSetup) -> _Parcel:
        """Read the bundle here, once."""
        from napari_bloodcells.core.bundle import find_bundle

        path = find_bundle(setup.model)
        listed = sorted(path.iterdir()) if path.is_dir() else [path]
        files = {file.name: file.read_bytes() for file in listed if file.suffix in (".json", ".safetensors")}
        return _Parcel(replace(setup, model="" if path.is_dir() else path.name), files)

    def open(self) -> FieldCounter:
        """The counter of this process, built from the parcel the first time."""
        with _lock:
            if self.setup not in _counters:
                _counters.clear()
                _counters[self.setup] = self._build()
            return _counters[self.setup]

    def _build(self) -> FieldCounter:
        from tempfile import TemporaryDirectory

        import torch

        torch.set_num_threads(1)
        with TemporaryDirectory(prefix="bloodcells-") as folder:
            for name, data in self.files.items():
                (Path(folder) / name).write_bytes(data)
            place = Path(folder) / self.setup.model if self.setup.model else Path(folder)
            return FieldCounter(replace(self.setup, model=str(place)))


def count_shard(parcel: _Parcel, shard: int, jobs: Sequence[FieldJob]) -> tuple[int, list[dict[str, Any]], StageTimes]:
    """Count one shard on a worker; the records come back as plain JSON values."""
    counter = parcel.open()
    counter.times = StageTimes()
    return shard, [record.to_json() for record in counter.count(jobs)], counter.times
