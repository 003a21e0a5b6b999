"""One small protocol for progress and cancellation.

The core reports to a ``Progress`` and asks it whether to stop; the command implements it with rich, the plugin with
napari's activity dock, the cluster with dask.  The core never prints.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from napari_bloodcells.core.errors import Cancelled


@runtime_checkable
class Progress(Protocol):
    """Receives what the core has done, and says whether it shall go on."""

    def start(self, task: str, total: int | None) -> None:
        """Begin a task (``"counting"``, ``"epoch 3"``) of ``total`` steps, or of unknown length."""

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """``n`` more steps of ``task`` are done; ``values`` are figures to show beside it (``loss=0.31``)."""

    def cancelled(self) -> bool:
        """Whether the user asked to stop.  Asked at least once per batch."""


class Silent:
    """Shows nothing and never cancels: the default when ``progress=None``."""

    def start(self, task: str, total: int | None) -> None:
        """Ignore the start of a task."""

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Ignore the step."""

    def cancelled(self) -> bool:
        """Never cancel."""
        return False


def check_cancelled(progress: Progress) -> None:
    """Raise ``Cancelled`` when the user asked to stop."""
    if progress.cancelled():
        raise Cancelled("Stopped on request; what was finished is kept.")
