"""Which localizer a name means; each is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.localize.base import Localizer, check_find_threshold

NAMES = ("default", "find", "classical")


def load_localizer(name: str | Path = "default", device: str = "cpu", threshold: float | None = None) -> Localizer:
    """The localizer called ``name``: ``default`` (learned; also ``find``), ``classical``, or the folder of your own.

    Parameters
    ----------
    name
        ``default`` or ``find``, ``classical``, or a folder that ``bloodcells-batch train --task find`` wrote.
    device
        Where the network runs (``cpu``, ``cuda``, ``mps``); the classical one always runs on the CPU.
    threshold
        Score from which a white cell is reported, above 0 and below 1; None takes the one chosen on validation data for
        a recall of 0.99.  The classical localizer takes no threshold but its own.

    Raises
    ------
    UsageError
        For a threshold that is not above 0 and below 1, or for the classical localizer; for an unknown name.
    BundleError
        For a folder that holds no localizer, or a damaged one.

    Examples
    --------
    >>> load_localizer("classical").name
    'classical'
    """
    check_find_threshold(str(name), threshold)
    if str(name) == "classical":
        from napari_bloodcells.core.localize.classical import ClassicalLocalizer

        return ClassicalLocalizer()
    if str(name) not in NAMES and not Path(name).is_dir():
        raise UsageError(
            f"No localizer is called {name}; take one of {', '.join(NAMES)}, or a folder of a trained one."
        )
    from napari_bloodcells.core.localize.learned import load_learned

    return load_learned(name, device=device, threshold=threshold)
