"""A real dask scheduler and workers as processes of their own, one of them killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask
import psutil
import pytest

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import cluster
from napari_bloodcells.core.counting.cluster import _Parcel
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.errors import BloodcellsError, OutageError, UsageError
from napari_bloodcells.core.progress import Silent


@contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        started = subprocess.Popen([sys.executable, "-m", *arguments], stdout=stream, stderr=stream)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def address_in(log: Path) -> str:
    for _ in range(300):
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.1)
    raise AssertionError(log.read_text())


class KillAfter(Silent):
    """Kills a process with SIGKILL as soon as ``n`` images are done."""

    def __init__(self, victim: subprocess.Popen[bytes], n: int) -> None:
        self.victim, self.left, self.lock = victim, n, threading.Lock()

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.left -= n
        if self.left <= 0 and self.victim.poll() is None:
            os.kill(self.victim.pid, signal.SIGKILL)
            self.victim.wait()


def test_a_worker_that_is_killed_has_its_shards_run_again_to_the_same_bytes(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "alone"))
    worker = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with process(*scheduler, log=tmp_path / "scheduler.log"):
        address = address_in(tmp_path / "scheduler.log")
        with (
            process(*worker, address, log=tmp_path / "1.log") as victim,
            process(*worker, address, log=tmp_path / "2.log"),
        ):
            options = CountOptions(output=tmp_path / "cluster", cluster=address, batch_size=1)
            progress = KillAfter(victim, 2)
            result = count(smears, str(tiny_model), "xml", "cpu", progress, options)
            assert victim.returncode == -signal.SIGKILL
    assert len(result.images) == 12
    for name in ("cells.csv", "images.csv", "differential.csv"):
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize("lost", ["scheduler", "worker"])
def test_losing_the_scheduler_or_all_workers_is_one_line(
    smears: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(cluster, "_WAIT_S", 5)
    worker = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    options = CountOptions(output=tmp_path / "out", batch_size=1)
    with process(*scheduler, log=tmp_path / "scheduler.log") as first:
        address = address_in(tmp_path / "scheduler.log")
        with process(*worker, address, log=tmp_path / "1.log") as second:
            victim = first if lost == "scheduler" else second
            patience = dask.config.set({"distributed.comm.timeouts.connect": "3s"})
            with patience, pytest.raises(OutageError, match="--resume goes on") as told:
                count(
                    smears,
                    str(tiny_model),
                    "xml",
                    "cpu",
                    KillAfter(victim, 2),
                    replace(options, cluster=address),
                )
    assert "\n" not in str(told.value)
    assert len(list((tmp_path / "out" / ".partial").glob("*.jsonl"))) >= 2
    result = count(smears, str(tiny_model), "xml", "cpu", options=replace(options, resume=True))
    assert (result.images["status"] == "ok").all()


def dies(parcel: _Parcel, shard: int, jobs: list[FieldJob]) -> None:
    """In place of ``count_shard``: notes that it was called, and kills its worker."""
    with open(str(jobs[0].source), "a", encoding="utf-8") as calls:
        calls.write("called\n")
    os._exit(1)


def fails(parcel: _Parcel, shard: int, jobs: list[FieldJob]) -> None:
    with open(str(jobs[0].source), "a", encoding="utf-8") as calls:
        calls.write("called\n")
    raise OutageError("field.jpg: its host cannot be reached.")


@pytest.mark.parametrize(
    ("run", "calls", "words"), [(dies, 2, r"same images \(a, b, c and 1 more\)"), (fails, 1, "host")]
)
def test_a_shard_is_tried_again_after_a_death_so_often_as_is_said_and_never_after_an_error(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: object, calls: int, words: str
) -> None:
    monkeypatch.setattr(cluster, "DEATHS", 1)
    monkeypatch.setattr(cluster, "count_shard", run)
    work = [(0, [FieldJob(name, str(tmp_path / "calls")) for name in "abcd"])]
    with pytest.raises(OutageError, match=words):
        list(cluster.run_cluster("local:1", CounterSetup(str(tiny_model), "cpu", "xml"), work, Silent()))
    assert (tmp_path / "calls").read_text("utf-8").count("called") == calls


def listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no process groups as a terminal has them")
def test_ctrl_c_in_a_terminal_stops_a_cluster_of_this_machine_like_any_count(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A terminal sends it to the whole group: to the command, and to the workers too."""
    arguments = ["count", smears, "-o", tmp_path, "--model", tiny_model, "--boxes", "xml", "--device", "cpu"]
    command = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()", *map(str, arguments)]
    started = subprocess.Popen(
        [*command, "--cluster", "local:2", "--batch-size", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )
    while started.poll() is None and not list((tmp_path / ".partial").glob("*.jsonl")):
        time.sleep(0.005)
    workers = psutil.Process(started.pid).children(recursive=True)
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.endswith("Go on with the same command and --resume.\n")
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_a_worker_takes_a_device_of_its_own_machine(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is sent as it is: the machine that sends it may have a GPU, or none, where the workers do not."""
    made: list[CounterSetup] = []
    monkeypatch.setattr(cluster, "FieldCounter", made.append)
    monkeypatch.setattr("napari_bloodcells.core.counting.setup.cpu_count", lambda: 40)
    for device in ("cpu", "cuda:1"):
        monkeypatch.setattr(cluster, "pick_device", lambda name, found=device: {"auto": found}[name])
        _Parcel.pack(CounterSetup(model=str(tiny_model), device="auto", boxes="xml", readers=3))._build()
    assert [(setup.device, setup.readers) for setup in made] == [("cpu", 0), ("cuda:1", 16)]


def test_each_thread_of_a_worker_has_a_counter_of_its_own_with_the_same_model(tiny_model: Path) -> None:
    parcel = _Parcel.pack(CounterSetup(model=str(tiny_model), device="cpu", boxes="xml"))
    start = threading.Barrier(3)

    def opened(_: int) -> FieldCounter:
        start.wait()
        assert parcel.open() is parcel.open()
        return parcel.open()

    with ThreadPoolExecutor(3) as pool:
        counters = list(pool.map(opened, range(3)))
    assert len({id(counter) for counter in counters}) == len({id(counter.times) for counter in counters}) == 3
    assert len({id(counter.model) for counter in counters}) == 1


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [("local:many", UsageError, "local:N"), ("tcp://127.0.0.1:1", BloodcellsError, "no dask scheduler")],
)
def test_a_wrong_address_is_one_line(
    smears: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    error: type[BloodcellsError],
    words: str,
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.counting.cluster._WAIT_S", 1)
    with pytest.raises(error, match=words):
        count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(cluster=address))


def test_without_the_extra_the_error_says_what_to_install(
    smears: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"napari-bloodcells\[cluster\]"):
        count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(cluster="local:2"))
