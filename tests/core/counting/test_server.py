"""When the server of worker processes is started; what it does is seen in ``tests/cli/test_count.py``."""

from __future__ import annotations

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
from pathlib import Path

import pytest

from napari_bloodcells.core.counting import server
from napari_bloodcells.core.counting.server import FEW, start_server, start_server_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the server")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """On a machine of four processors and no GPU: one entry for each start."""
    starts: list[bool] = []
    monkeypatch.setattr(server, "start_server", lambda: starts.append(True))
    monkeypatch.setattr(server, "cpu_count", lambda: 4)
    monkeypatch.setattr(server, "surely_cpu", lambda name: name in ("auto", "cpu"))
    return starts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image more than few, and other files."""
    for i in range(FEW + 1):
        (tmp_path / f"{i}.JPG").touch()
        (tmp_path / f"{i}.xml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("device", "workers", "starts"),
    [("auto", 0, True), ("cpu", 2, True), ("cpu", 1, False), ("cuda", 0, False)],
)
def test_many_images_on_a_cpu_start_it(
    started: list[bool], folder: Path, device: str, workers: int, starts: bool
) -> None:
    start_server_for([str(folder)], device, workers)
    assert started == [True] * starts


def test_few_images_and_what_is_not_there_do_not(started: list[bool], folder: Path) -> None:
    (folder / "0.JPG").unlink()
    start_server_for([str(folder), str(folder / "gone"), "nul\0"], "cpu", 0)
    assert not started
    start_server_for([str(folder), str(folder / "gone.png")], "cpu", 0)
    assert started


def test_there_is_none_where_torch_is_imported_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert not start_server()


@linux
def test_it_starts_undisturbed_by_ctrl_c_and_by_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, bool]] = []

    def look() -> None:
        masked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        seen.append((os.environ.get("PYTHONSAFEPATH"), masked))

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", look)
    monkeypatch.setattr(multiprocessing.resource_tracker, "ensure_running", lambda: None)
    for before in (None, "yes"):
        if before is not None:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        assert start_server()
        assert os.environ.get("PYTHONSAFEPATH") == before
    assert seen == [("1", True)] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@linux
def test_a_server_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no room")

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", fail)
    assert not start_server()
