"""Which processor will compute, in words, found out without loading torch into this process.

The core knows it (``core/devices.py``) but needs torch, which takes a second to load and is loaded here only on Run.
So another Python is asked, and the line is written when it answers.
"""

from __future__ import annotations

import sys

from qtpy.QtCore import QObject, QProcess, Signal

CODE = (
    "import sys; from napari_bloodcells.core.devices import describe_device, pick_device; "
    "print(describe_device(pick_device(sys.argv[1])))"
)
UNKNOWN = "The processor is chosen on Run."
_known: dict[str, str] = {}


class DeviceLine(QObject):
    """Asks once per device and session; ``said`` carries the line."""

    said = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None
        self._device = ""

    def ask(self, device: str) -> None:
        """Have the line of ``device`` (``auto``, ``cpu``, ``cuda``, ``mps``) said."""
        if device in _known:
            self.said.emit(_known[device])
            return
        self.stop()
        self._device = device
        self.said.emit("Looking at the processors \u2026")
        self._process = QProcess(self)
        self._process.finished.connect(self._answered)
        self._process.errorOccurred.connect(self._not_started)
        self._process.start(sys.executable, ["-c", CODE, device])

    def stop(self) -> None:
        """Ask no longer."""
        process, self._process = self._process, None
        if process is not None and process.state() != QProcess.ProcessState.NotRunning:
            process.finished.disconnect()
            process.errorOccurred.disconnect()
            process.kill()
            process.waitForFinished(1000)

    def _not_started(self, *_: object) -> None:
        self.said.emit(UNKNOWN)

    def _answered(self, code: int, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        text = bytes(process.readAllStandardOutput().data()).decode(errors="replace").strip()
        error = bytes(process.readAllStandardError().data()).decode(errors="replace").strip()
        if code == 0 and text:
            _known[self._device] = text.splitlines()[-1]
            self.said.emit(_known[self._device])
        else:
            said = error.splitlines()[-1] if error else ""
            self.said.emit(said.rpartition("Error: ")[2] or UNKNOWN)
