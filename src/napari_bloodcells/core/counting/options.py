"""The settings of a count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.images import DEFAULT_MAX_PIXELS

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
"""How an address begins, also one that went through ``Path``, which makes one of two slashes; no drive of Windows."""


@dataclass(frozen=True)
class CountOptions:
    """Settings of a count; every one has a meaning by itself, and the defaults suit a folder of photographs.

    Attributes
    ----------
    output : path or None
        Folder for the tables; None writes nothing and keeps nothing for ``resume``.
    resume, overwrite : bool
        Go on with the unfinished run that lies in ``output``; replace the finished results there, with their report
        pages and overlays (``former.py``).
    format : {"csv", "parquet", "json"}
    recursive : bool
        Look into the folders of folders.
    batch_size : int or None
        1 or more: images that are counted together and kept as one shard; results do not depend on it.
    workers : int
        Processes on a CPU: 1 counts in this process, 0 takes one per processor.
    devices : tuple of str
        Several devices (``cuda:0``, ``cuda:1``) with one process each, instead of ``device``.
    cluster : str or None
        Address of a dask scheduler, or ``local:N``.
    threshold, find_threshold : float or None, 0 to 1 (the second above 0 and below 1)
        Least confidence of a class and of a found box; None takes those of the models.
    um_per_pixel : float or None
        Scale of the images, where it is known better than it can be measured.
    max_pixels : int
        Larger images are refused.
    cells_wanted : int or None
        Count each whole slide until so many white cells are found; None counts its whole monolayer.
    anonymous : bool
        Numbers instead of file names in all results.
    guarded_main : bool
        The main module of this program does nothing when it is imported once more (``if __name__ == "__main__"``), so
        worker processes may be started sooner (``server.py``); results do not depend on it.
    """

    output: Path | str | None = None
    resume: bool = False
    overwrite: bool = False
    format: str = "csv"
    recursive: bool = True
    batch_size: int | None = None
    workers: int = 1
    devices: tuple[str, ...] = ()
    cluster: str | None = None
    threshold: float | None = None
    find_threshold: float | None = None
    um_per_pixel: float | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    cells_wanted: int | None = None
    anonymous: bool = False
    guarded_main: bool = False


def check_options(options: CountOptions) -> None:
    """Refuse numbers and an output folder that cannot be meant, with ``UsageError``."""
    if options.output is not None and (address := _ADDRESS.match(Path(options.output).as_posix())):
        raise UsageError(
            f"{address[1]}://...: is an address, and results are written to a folder of this machine; give one with -o."
        )
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"batch_size must be above zero, not {options.batch_size}.")
    if options.workers < 0:
        raise UsageError(f"workers must be 0 (one per processor) or more, not {options.workers}.")


def max_pixels_of(run: Mapping[str, Any]) -> int:
    """The ``max_pixels`` that a run was counted with, as its ``run.json`` says; else the default.

    >>> max_pixels_of({"options": {"max_pixels": 7}}), max_pixels_of({}) == DEFAULT_MAX_PIXELS
    (7, True)
    """
    options = run.get("options")
    found = options.get("max_pixels") if isinstance(options, Mapping) else None
    return found if isinstance(found, int) and found > 0 else DEFAULT_MAX_PIXELS
