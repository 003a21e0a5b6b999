"""The command ``bloodcells-batch``: thin over the core, one module per command, imported when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; every error that a user can cause is one line and an exit code, never a traceback."""
    from napari_bloodcells.cli.app import run

    code = run(guarded_main=True)
    if not sys.modules.keys().isdisjoint({"torch", "pandas"}):
        _end_at_once(code)
    raise SystemExit(code)


def _end_at_once(code: int) -> None:
    """End this process as the interpreter would, but leave its memory to the system: taking torch apart object by
    object takes half a second, pandas a tenth of one.

    Where other threads still run, this returns, and the usual end waits for them.
    """
    import atexit
    import os
    import threading

    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the reader of our output has gone, or it is closed
        return
    os._exit(code)
