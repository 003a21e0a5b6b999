"""One run at a time on one output folder.

The lock is a file in the folder that names the process, its host and when that process started.  A second run refuses
while the first is alive; a lock whose process is gone (killed, power cut), or whose number now belongs to a younger
process, is stale and is taken over.  A process of another host cannot be looked up: its lock holds while it is
renewed, which the owner does with every step and while it waits; where the clock went backwards, it holds the longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from napari_bloodcells.core.errors import DiskError, OutputError
from napari_bloodcells.core.files import PART, claim, remove_parts
from napari_bloodcells.core.progress import Progress

LOCK_NAME = ".bloodcells.lock"
FOREIGN_LEASE_S = 600.0
"""A lock of another host that was not renewed for this long is stale."""
RENEW_S = 60.0
"""So long at most the lock of a run that is asked whether to stop goes without."""
_held: set[object] = set()
"""The locks that this process holds: one of its own that it could not remove (a disk gone read-only) is stale."""


class RunLock:
    """Holds ``folder`` for this process from ``with`` to its end.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with RunLock(folder):
    ...     (folder / LOCK_NAME).exists()
    True
    >>> (folder / LOCK_NAME).exists()
    False
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self.run = uuid.uuid4().hex
        self.mark = json.dumps({**_this_process(), "run": self.run})

    def __enter__(self) -> RunLock:
        _held.add(self.run)
        for _ in range(3):
            if self._claim():
                remove_parts(self.path.parent, PART, f"{LOCK_NAME}-")  # of a run that was killed here
                return self
            self._take_over_or_refuse()
        raise OutputError(f"{self.path.parent}: another run took this folder at the same moment; give another one.")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _held.discard(self.run)
        if self._text() == self.mark:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def renew(self) -> None:
        """Tell runs on other hosts that this one is alive.

        Raises
        ------
        OutputError
            Another run has taken the folder over, as this one stood still for too long.
        """
        if self._text() not in (self.mark, None):
            raise OutputError(
                f"{self.path.parent}: was taken over by another run while this one stood still; wait for that one."
            )
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def _claim(self) -> bool:
        """Put the lock in place with all it says, in one step; False where there is one."""
        try:
            handle, half = tempfile.mkstemp(prefix=f"{LOCK_NAME}-", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(self.mark)
                os.chmod(half, 0o644)  # whoever may write there may see who holds it
                claim(half, self.path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(half)
        except FileExistsError:
            return False
        except OSError as error:
            raise DiskError(
                f"{self.path.parent}: cannot be written to ({error.strerror or error}); see to that, or give another "
                "output folder."
            ) from None
        return True

    def _text(self) -> str | None:
        """What the lock says; None where there is none that can be read."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def _take_over_or_refuse(self) -> None:
        with _alone_with(self.path.parent):
            self._judge()

    def _judge(self) -> None:
        """Remove a stale lock, or refuse."""
        text = ""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            age = time.time() - self.path.stat().st_mtime
            owner = json.loads(text)
        except FileNotFoundError:
            return  # gone meanwhile: what comes next is another's
        except (OSError, ValueError):
            owner, age = {}, FOREIGN_LEASE_S + 1
        if isinstance(owner, dict) and _is_alive(owner, age):
            raise OutputError(
                f"{self.path.parent}: in use by another run (process {owner.get('pid')} on {owner.get('host')}); "
                f"wait for it, stop it, or give another output folder (if it is long dead, remove {LOCK_NAME} there)."
            )
        aside = self.path.with_name(f"{LOCK_NAME}-{os.getpid()}-stale")
        with contextlib.suppress(OSError):
            self.path.rename(aside)
            if aside.read_text(encoding="utf-8", errors="replace") != text:  # a third run was quicker: this is its lock
                claim(str(aside), self.path)
        with contextlib.suppress(OSError):
            aside.unlink()


class Renewing:
    """Passes progress on, and with every step (an image, a field of a slide) renews the lock of the run.

    Also while no step is told, every now and then: a slide in another process may take hours.
    """

    def __init__(self, progress: Progress, lock: RunLock) -> None:
        self._progress, self._lock = progress, lock
        self._renewed = time.monotonic()
        self.start = progress.start

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Renew and tell."""
        self._renew()
        self._progress.advance(task, n, **values)

    def cancelled(self) -> bool:
        """Ask, and renew where that is due."""
        if time.monotonic() - self._renewed > RENEW_S:
            self._renew()
        return self._progress.cancelled()

    def _renew(self) -> None:
        self._lock.renew()
        self._renewed = time.monotonic()


@contextlib.contextmanager
def _alone_with(folder: Path) -> Iterator[None]:
    """One process or thread of this host at a time: of two that find a stale lock, the slower one would otherwise put
    aside the new lock of the quicker one, and a third find none there.  Kept by the system on the folder itself, so
    that nothing is left of it; where it knows no such lock (Windows, some network disks) it is not kept."""
    handle = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _this_process() -> dict[str, object]:
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "started": process_start(pid)}


def _is_alive(owner: dict[str, object], age: float) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return age < FOREIGN_LEASE_S
    started = process_start(pid)
    if pid == os.getpid():
        return owner.get("run") in _held
    return process_exists(pid) and (started is None or owner.get("started") in (None, started))


def process_exists(pid: int) -> bool:
    """Whether a process ``pid`` runs on this machine."""
    if os.name == "nt":
        import ctypes

        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
        handle = kernel.OpenProcess(0x1000, False, pid)
        if handle:
            kernel.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def process_start(pid: int) -> str | None:
    """When process ``pid`` began, in ticks since the machine started; None where the system does not tell.

    The clock on the wall may go backwards between two runs, these ticks may not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]
