"""Processes that count: how many, on which devices, and what becomes of work when a pool dies at once."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from napari_bloodcells.core import devices
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import cluster, workers
from napari_bloodcells.core.counting.jobs import FieldJob, collect_jobs
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.errors import BloodcellsError, Cancelled, UsageError
from napari_bloodcells.core.progress import Silent


def test_processors_are_counted_where_the_system_does_not_tell_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert devices.cpu_count() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.cpu_count() == 1


@pytest.mark.parametrize(("n", "devices"), [(2, ("cuda:0", "cuda:1")), (0, ())])
def test_all_devices_are_those_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, n: int, devices: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    assert workers.all_devices(" ALL ") == devices


def test_a_process_without_a_parent_is_not_watched() -> None:
    before = threading.active_count()
    workers._end_with(None)
    assert threading.active_count() == before


def test_a_worker_that_was_not_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_counter", None)
    monkeypatch.setattr(workers, "_setup", None)
    with pytest.raises(RuntimeError, match="not started"):
        workers._count_shard(0, [])


@pytest.mark.parametrize("death", [BrokenProcessPool, EOFError, ConnectionRefusedError])
def test_work_that_meets_a_dead_pool_or_server_is_not_lost(death: type[Exception]) -> None:
    class Dead(ProcessPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise death

    lost: list[Any] = []
    with pytest.raises(BrokenProcessPool):
        workers._submit(Dead(1), (3, []), lost)
    assert lost == [(3, [])]


def test_nothing_is_lost_when_pools_die_before_all_was_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = iter([(2, 3), (0, 1), (0, 2)])  # shards finished, and under way when the pool dies

    def run_pool(setups: Any, work: Any, progress: Any, lost: list[Any], shelf: Any) -> Any:
        finished, under_way = next(deaths, (99, 0))
        for item in islice(work, finished):
            yield item[0], [], None
        lost.extend(islice(work, under_way))

    monkeypatch.setattr(workers, "_run_pool", run_pool)
    work = ((shard, []) for shard in range(9))  # drawn as it is needed, as a count does
    done = workers.run_processes([CounterSetup()], work, Silent())
    assert sorted(shard for shard, _, _ in done) == list(range(9))


def test_when_the_workers_die_again_and_again_the_images_that_they_had_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_pool(setups: Any, work: Any, progress: Any, lost: list[Any], shelf: Any) -> Any:
        yield from ()
        lost.extend(islice(work, 2))

    monkeypatch.setattr(workers, "_run_pool", run_pool)
    work = [(shard, [FieldJob(f"{shard}-{i}.jpg", "") for i in range(2)]) for shard in range(9)]
    with pytest.raises(BloodcellsError, match=r"the last time with 0-0.jpg, 0-1.jpg, 1-0.jpg and 1 more: try fewer"):
        list(workers.run_processes([CounterSetup()], work, Silent()))


@pytest.mark.parametrize(("used", "method"), [(False, "fork"), (True, "spawn")])
def test_a_process_that_used_a_gpu_is_not_forked(monkeypatch: pytest.MonkeyPatch, used: bool, method: str) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    assert workers._start_method([CounterSetup(device="cpu")]) == method


STOPPED = """
from napari_bloodcells.core.counting import workers
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.progress import Silent

class Stopped:
    def fill(self, enough):
        raise KeyboardInterrupt

    def close(self):
        pass

if __name__ == "__main__":
    try:
        next(workers.run_processes([CounterSetup()] * 2, iter([(0, []), (1, [])]), Silent(), Stopped()))
    except KeyboardInterrupt:
        print("stopped")
"""


def test_what_stops_a_run_before_its_workers_have_started_ends_it(tmp_path: Path) -> None:
    """They wait for their setups where they start, and the pool waits for them: in a process that can be ended."""
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED, "utf-8")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout == "stopped\n", run.stderr


def test_two_devices_are_two_workers_with_the_same_cells(smears: Path, tiny_model: Path) -> None:
    one = count(smears / "a", str(tiny_model), "xml", "cpu")
    two = count(smears / "a", str(tiny_model), "xml", "cpu", options=CountOptions(devices=("cpu", "cpu")))
    assert two.cells.equals(one.cells)
    assert two.run["device"] == "cpu, cpu"


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_one_device_of_several_is_not_passed_over(smears: Path, tiny_model: Path, device: str) -> None:
    options = CountOptions(devices=("cuda:63",))
    with pytest.raises(UsageError, match=r"cuda:63|no CUDA device"):
        count(smears / "a", str(tiny_model), "xml", device, options=options)
    alone = count(smears / "a", str(tiny_model), "xml", device, options=CountOptions(devices=("cpu",)))
    assert (alone.run["device"], alone.run["workers"]) == ("cpu", 1)


@pytest.fixture
def cluster_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a worker that has built no counter yet; the threads that it takes are given back."""
    monkeypatch.setattr(cluster, "_counters", {})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("cluster_worker")
def test_a_cluster_worker_builds_its_counter_from_what_was_sent(smears: Path, tiny_model: Path) -> None:
    jobs = collect_jobs(smears / "a").jobs[:2]
    setup = CounterSetup(model=str(tiny_model), device="cpu", boxes="xml")
    parcel = pickle.loads(pickle.dumps(cluster._Parcel.pack(setup)))
    shard, records, times = cluster.count_shard(parcel, 5, jobs)
    again = cluster.count_shard(parcel, 6, jobs)
    assert (shard, again[0], len(cluster._counters)) == (5, 6, 1)
    assert records == again[1] == [record.to_json() for record in FieldCounter(setup).count(jobs)]
    assert times.images == again[2].images == 2


@pytest.mark.usefixtures("cluster_worker")
def test_a_cluster_worker_opens_a_bundle_in_one_file(tiny_model: Path, tmp_path: Path) -> None:
    from napari_bloodcells.core.bundle import load_model, save_bundle

    model = load_model(tiny_model, "cpu")
    single = save_bundle(tmp_path / "one.safetensors", model.module, model.info)
    parcel = cluster._Parcel.pack(CounterSetup(model=str(single), device="cpu"))
    assert (list(parcel.files), parcel.setup.model) == (["model/one.safetensors"], "model/one.safetensors")
    assert parcel._build().model.info.name == "tiny"


@pytest.mark.usefixtures("cluster_worker")
def test_a_cluster_worker_counts_with_the_model_that_was_sent_last(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Same settings, another bundle under another path; then the same path, trained anew: never the former counter."""
    from napari_bloodcells.core.bundle import load_model, save_bundle

    jobs = collect_jobs(smears / "a").jobs[:2]
    model, place = load_model(tiny_model, "cpu"), tmp_path / tiny_model.name
    setup = CounterSetup(model=str(place), device="cpu", boxes="xml")
    cluster.count_shard(cluster._Parcel.pack(CounterSetup(str(tiny_model), "cpu", "xml")), 0, jobs)
    for _ in range(2):
        model.module.head.weight *= -0.5
        save_bundle(place, model.module, model.info, overwrite=True)
        _, records, _ = cluster.count_shard(cluster._Parcel.pack(setup), 0, jobs)
        assert records == [record.to_json() for record in FieldCounter(setup).count(jobs)]


@pytest.mark.usefixtures("cluster_worker")
def test_a_cluster_worker_is_sent_the_localizer_of_ones_own(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    from napari_bloodcells.core.localize.store import home

    jobs = collect_jobs(smears / "a", annotations=False).jobs[:1]
    own = tmp_path / "own"
    shutil.copytree(home(), own)
    setup = CounterSetup(model=str(tiny_model), device="cpu", boxes=str(own))
    expected = [record.to_json() for record in FieldCounter(setup).count(jobs)]
    parcel = cluster._Parcel.pack(setup)
    shutil.rmtree(own)  # as the worker's machine does not have it
    assert cluster.count_shard(parcel, 0, jobs)[1] == expected


class Gone(Exception):
    """As dask calls a worker that died, or a connection."""


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Gone("tcp://a"), r"Workers died again and again under the same images \(1.jpg\)"),
        (ConnectionError("closed"), "connection to the dask scheduler was lost"),
    ],
)
def test_what_a_cluster_loses_is_said(problem: Exception, words: str) -> None:
    def result() -> None:
        raise problem

    distributed = SimpleNamespace(KilledWorker=Gone, CancelledError=type("Other", (Exception,), {}))
    with pytest.raises(BloodcellsError, match=words):
        cluster._result(distributed, SimpleNamespace(result=result), (0, [FieldJob("1.jpg", "1.jpg")]))


def test_a_cluster_without_workers_says_so(tiny_model: Path) -> None:
    def wait_for_workers(n: int, timeout: float) -> None:
        raise TimeoutError

    client = SimpleNamespace(wait_for_workers=wait_for_workers)
    setup = CounterSetup(model=str(tiny_model))
    with pytest.raises(BloodcellsError, match="has no workers; start some"):
        next(cluster._run(SimpleNamespace(), client, setup, iter([]), Silent()))


def test_an_address_that_is_none_is_told(tiny_model: Path) -> None:
    def client(address: str, timeout: float) -> None:
        raise ValueError("unknown scheme")

    with (
        pytest.raises(BloodcellsError, match=r"ftp://a: no dask scheduler answers there \(unknown scheme\)"),
        cluster._client(SimpleNamespace(Client=client), "ftp://a"),
    ):
        pass


def test_nothing_done_yet_is_asked_for_again() -> None:
    def wait(futures: list[Any], **_: Any) -> None:
        raise TimeoutError

    assert cluster._finished(SimpleNamespace(wait=wait), {"a": 1}) == []


class Stop(Silent):
    def cancelled(self) -> bool:
        return True


def test_reading_ahead_holds_only_so_many_pictures_and_can_be_stopped(smears: Path, tiny_model: Path) -> None:
    jobs = collect_jobs(smears).jobs
    setup = CounterSetup(model=str(tiny_model), device="cpu", boxes="xml", readers=1)
    ahead = FieldCounter(setup).count(jobs)
    assert ahead == FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="xml")).count(jobs)
    assert len(ahead) == 12
    with pytest.raises(Cancelled):
        count(smears, str(tiny_model), "xml", "cpu", progress=Stop())
