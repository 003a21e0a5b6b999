"""The lock of an output folder: refuses while its owner lives, and knows a stale one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napari_bloodcells.core.counting import runlock
from napari_bloodcells.core.counting.runlock import (
    FOREIGN_LEASE_S,
    LOCK_NAME,
    Renewing,
    RunLock,
    process_exists,
    process_start,
)
from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.progress import Silent

HOLD = """
import sys, time
from pathlib import Path
from napari_bloodcells.core.counting import runlock
from napari_bloodcells.core.counting.runlock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def enter_together(folder: Path, begin: threading.Barrier, end: threading.Barrier, inside: list[int]) -> None:
    """Try for the folder when all others do; who gets it keeps it until all have tried."""
    begin.wait()
    with contextlib.suppress(OutputError), RunLock(folder):
        inside.append(1)
        end.wait()
        return
    end.wait()


def write_lock(folder: Path, **owner: object) -> Path:
    path = folder / LOCK_NAME
    path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": None, **owner}))
    return path


def test_a_process_is_asked_after_and_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """First of all: a mutant that sends a signal here must meet no real process."""
    asked = []

    def kill(pid: int, signal: int) -> None:
        asked.append((pid, signal))
        raise PermissionError  # of another user

    monkeypatch.setattr(os, "kill", kill)
    assert process_exists(77) is True
    assert asked == [(77, 0)]


def test_a_second_run_refuses_while_the_first_lives_and_takes_over_when_it_was_killed(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "held"
        with pytest.raises(OutputError, match=f"process {first.pid}"), RunLock(tmp_path):
            pass
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="this system does not tell when a process began")
def test_a_lock_of_a_process_number_that_was_given_anew_is_stale(tmp_path: Path) -> None:
    write_lock(tmp_path, started="1")
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"pid": "7"}', '{"pid": -1}'])
def test_a_damaged_lock_is_stale(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    with RunLock(tmp_path):
        pass


def test_a_lock_of_another_host_holds_while_it_is_renewed(tmp_path: Path) -> None:
    path = write_lock(tmp_path, host="elsewhere")
    with pytest.raises(OutputError, match="on elsewhere"), RunLock(tmp_path):
        pass
    old = time.time() - FOREIGN_LEASE_S - 5
    os.utime(path, (old, old))
    with RunLock(tmp_path) as lock:
        os.utime(path, (old, old))
        lock.renew()
        assert time.time() - path.stat().st_mtime < 60


def test_a_clock_that_went_backwards_never_frees_the_lock_of_a_living_run(tmp_path: Path) -> None:
    path = write_lock(tmp_path, host="elsewhere")
    later = time.time() + 10 * FOREIGN_LEASE_S  # renewed before the clock was set back
    os.utime(path, (later, later))
    with pytest.raises(OutputError, match=f"on elsewhere.*remove {LOCK_NAME}"), RunLock(tmp_path):
        pass


def test_a_clock_that_went_backwards_does_not_keep_the_lock_of_a_dead_run(tmp_path: Path) -> None:
    path = write_lock(tmp_path, pid=2**22 + 1)  # above the largest number of a process
    later = time.time() + 10 * FOREIGN_LEASE_S
    os.utime(path, (later, later))
    with RunLock(tmp_path):
        pass


def test_of_many_runs_that_find_a_stale_lock_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    for _ in range(20):
        write_lock(tmp_path, pid=2**22 + 1)
        inside: list[int] = []
        begin, end = threading.Barrier(6), threading.Barrier(6)
        runs = [threading.Thread(target=enter_together, args=(tmp_path, begin, end, inside)) for _ in range(6)]
        for one in runs:
            one.start()
        for one in runs:
            one.join()
        assert len(inside) == 1
        assert not list(tmp_path.iterdir())


def test_a_run_that_stood_still_too_long_learns_that_another_has_its_folder(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        lock.renew()
        other = write_lock(tmp_path, host="elsewhere")
        with pytest.raises(OutputError, match="taken over"):
            lock.renew()
    assert other.exists(), "the lock of the other run was removed"


def test_whoever_holds_the_folder_clears_what_a_killed_run_left_half_written(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / ".part-abc").write_text("half")
        (tmp_path / f"{LOCK_NAME}-abc").write_text("half")
        with pytest.raises(OutputError, match="in use"), RunLock(tmp_path):
            pass
        assert (tmp_path / ".part-abc").exists(), "the half-written file of a living run was removed"
    with RunLock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_a_lock_of_this_process_that_could_not_be_removed_is_stale(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        left = (tmp_path / LOCK_NAME).read_text()
    (tmp_path / LOCK_NAME).write_text(left)  # the disk was read-only when the run ended
    with RunLock(tmp_path):
        pass


def test_the_lock_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), RunLock(tmp_path / "gone"):
        pass


def test_a_lock_can_be_read_by_whoever_may_look_into_the_folder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("data", [b"\xff\xfe no text", b"[]", b"{", b'{"pid": -1}'])
def test_a_lock_that_names_no_process_is_stale(tmp_path: Path, data: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(data)
    with RunLock(tmp_path) as lock:
        assert (tmp_path / LOCK_NAME).read_text() == lock.mark
        (tmp_path / LOCK_NAME).write_bytes(data)
        with pytest.raises(OutputError, match="was taken over by another run"):
            lock.renew()
    assert (tmp_path / LOCK_NAME).read_bytes() == data  # what is another's is left
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_a_number_that_a_younger_process_has_now_is_stale(tmp_path: Path) -> None:
    other = os.getppid()
    for started in (None, process_start(other)):
        write_lock(tmp_path, pid=other, started=started)
        with pytest.raises(OutputError, match=f"process {other}"), RunLock(tmp_path):
            pass
    write_lock(tmp_path, pid=other, started="1")
    with RunLock(tmp_path):
        pass


def test_where_the_system_tells_no_start_the_number_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.counting.runlock.process_start", lambda pid: None)
    write_lock(tmp_path, pid=os.getppid(), started="1")
    with pytest.raises(OutputError, match="in use by another run"), RunLock(tmp_path):
        pass


def test_a_process_that_is_gone_has_no_start() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert process_start(gone.pid) is None
    assert process_exists(gone.pid) is False
    assert process_start(os.getpid()) == process_start(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        assert process_start(os.getpid()) != process_start(later.pid)
        later.communicate(b"\n")


def test_a_folder_that_is_taken_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunLock, "_claim", lambda self: False)
    monkeypatch.setattr(RunLock, "_take_over_or_refuse", lambda self: None)
    with pytest.raises(OutputError, match="another run took this folder at the same moment"), RunLock(tmp_path):
        pass


def test_the_lock_of_a_quicker_run_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / LOCK_NAME
    place.write_text('{"pid": 0}')

    def judged(owner: dict[str, object], age: float) -> bool:
        place.write_text("of a third run")  # which was quicker, after this one had read what was stale
        return False

    monkeypatch.setattr(runlock, "_is_alive", judged)
    RunLock(tmp_path)._judge()
    assert place.read_text() == "of a third run"
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        said = json.loads((tmp_path / LOCK_NAME).read_text())
    own = {"pid": os.getpid(), "host": socket.gethostname(), "started": process_start(os.getpid())}
    assert said == {**own, "run": lock.run}


def test_the_first_process_of_a_machine_can_hold_a_lock_and_no_group_of_processes(tmp_path: Path) -> None:
    write_lock(tmp_path, pid=1, started=process_start(1))
    with pytest.raises(OutputError, match="process 1"), RunLock(tmp_path):
        pass
    write_lock(tmp_path, pid=0)
    with RunLock(tmp_path):
        pass


def test_a_lock_is_renewed_with_every_step_and_now_and_then_while_a_run_only_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker process tells of no step of its slide for hours; a run on another host must not take the folder over."""

    def renewed(step: object) -> bool:
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        assert callable(step)
        step()
        return (tmp_path / LOCK_NAME).stat().st_mtime > 0

    with RunLock(tmp_path) as lock:
        progress = Renewing(Silent(), lock)
        assert renewed(lambda: progress.advance("counting"))
        assert not renewed(progress.cancelled)
        monkeypatch.setattr(runlock, "RENEW_S", -1.0)
        assert renewed(progress.cancelled)
        (tmp_path / LOCK_NAME).write_text("of another run")
        with pytest.raises(OutputError, match="taken over by another run"):
            progress.cancelled()
