"""Loading torch in a thread without freezing the window.

``import torch`` holds Python's lock for long stretches: while the system maps half a gigabyte of libraries, and while
the garbage collector walks the hundred thousand objects that an import makes.  So the libraries are mapped first
through the C library's own ``dlopen`` (a foreign call, which lets the lock go), and the collector rests during the
import.  The longest turn of the window while torch was loaded and twelve fields counted was 142 ms of this program's
own time, on two cores at a load of 16 (``python -m benchmarks.napari_stall``).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import logging
import os
import sys
import threading
from pathlib import Path

from napari_bloodcells.napari.software_gl import keep_triton_out

LIBRARIES = ("libc10", "libtorch_cpu", "libtorch_python")
_LOG = logging.getLogger(__name__)
_lock = threading.RLock()


def load_torch(for_training: bool = False) -> None:
    """Import torch, letting other threads run; at once where it is loaded already.

    With ``for_training`` also torchvision, which only training needs.
    """
    with _lock:
        if "torch" in sys.modules and (not for_training or "torchvision" in sys.modules):
            return
        keep_triton_out()
        _map_libraries()
        enabled = gc.isenabled()
        gc.disable()
        try:
            importlib.import_module("torch")
            if for_training:
                importlib.import_module("torchvision")
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
            dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
