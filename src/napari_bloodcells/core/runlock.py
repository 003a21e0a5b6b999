"""One run at a time on one output folder.

The lock is a file in the folder that names the process, its host and when that process started.  A second run refuses
while the first is alive; a lock whose process is gone (killed, power cut), or whose number now belongs to a younger
process, is stale and is taken over.  A process of another host cannot be looked up: its lock holds while it is
renewed, which the owner does whenever a shard is finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from napari_bloodcells.core.errors import OutputError

LOCK_NAME = ".bloodcells.lock"
FOREIGN_LEASE_S = 600.0
"""A lock of another host that was not renewed for this long is stale."""


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

    def __enter__(self) -> RunLock:
        for _ in range(2):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._take_over_or_refuse()
                continue
            except OSError as error:
                raise OutputError(f"{self.path.parent}: cannot be written to ({error.strerror or error}).") from error
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(_this_process(), stream)
            return self
        raise OutputError(f"{self.path.parent}: another run took this folder at the same moment; give another one.")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()

    def renew(self) -> None:
        """Tell runs on other hosts that this one is alive."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def _take_over_or_refuse(self) -> None:
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
            age = time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            owner, age = {}, FOREIGN_LEASE_S + 1
        if isinstance(owner, dict) and _is_alive(owner, age):
            raise OutputError(
                f"{self.path.parent}: in use by another run (process {owner.get('pid')} on {owner.get('host')}); "
                "wait for it, stop it, or give another output folder."
            )
        with contextlib.suppress(OSError):
            self.path.unlink()


def _this_process() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": process_start(os.getpid())}


def _is_alive(owner: dict[str, object], age: float) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return age < FOREIGN_LEASE_S
    started = process_start(pid)
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
