"""The command ``bloodcells-batch``: thin over the core, one module per command, imported when it is called."""

from __future__ import annotations


def main() -> None:
    """Run the command; every error that a user can cause is one line and an exit code, never a traceback."""
    from napari_bloodcells.cli.app import run

    raise SystemExit(run())
