"""Loading torch in a thread without freezing the window.

``import torch`` holds Python's lock for long stretches: while the system maps half a gigabyte of libraries, and while
the garbage collector walks the hundred thousand objects that an import makes.  So the libraries are mapped first
through the C library's own ``dlopen`` (a foreign call, which lets the lock go), and the collector rests during the
import.  On two busy cores the longest stop fell from 730 to 110 ms (``benchmarks/napari_stall.py``).
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import logging
import os
import sys
import threading
from pathlib import Path

LIBRARIES = ("libc10", "libtorch_cpu", "libtorch_python")
_LOG = logging.getLogger(__name__)
_lock = threading.Lock()


def load_torch() -> None:
    """Import torch and torchvision, letting other threads run; at once where they are loaded already."""
    with _lock:
        if "torch" in sys.modules and "torchvision" in sys.modules:
            return
        _map_libraries()
        enabled = gc.isenabled()
        gc.disable()
        try:
            import torch  # noqa: F401 (loaded for those who come after)
            import torchvision  # noqa: F401
        finally:
            gc.freeze()  # what was imported stays for good: no later collection need walk it
            if enabled:
                gc.enable()


def _map_libraries() -> None:
    found = importlib.util.find_spec("torch")
    suffix = {"linux": ".so", "darwin": ".dylib"}.get(sys.platform)
    if found is None or found.origin is None or suffix is None:
        return
    try:
        dlopen = ctypes.CDLL(None).dlopen
    except (OSError, AttributeError) as error:
        _LOG.debug("no dlopen: %s", error)
        return
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    for name in LIBRARIES:
        path = Path(found.origin).parent / "lib" / f"{name}{suffix}"
        if path.is_file():
            dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_GLOBAL)
