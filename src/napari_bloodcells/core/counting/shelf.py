"""Pictures that are read while the worker processes are not there yet, in memory that these can read.

The memory belongs to no name and no folder, so nothing is left of it whatever ends the program.  What does not lie on
the shelf (no room, no time, an error, a slide) a worker reads itself, and the result is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.remote import is_address
from napari_bloodcells.core.slides import is_slide

SHELF_BYTES = 2**28
"""Room for 1,165 photographs of 640 x 480 pixels, which are read at half size: more than there is time for."""
LARGEST = 2**24
"""Pictures of more pixels are left to the workers."""


@dataclass(frozen=True)
class Lent:
    """What a worker is told of a shelf: where its memory is opened, where in it the list of pictures begins, and its
    bytes."""

    path: str
    start: int
    size: int


class LentShelf:
    """A shelf as a worker finds it; where its memory cannot be opened, nothing lies there."""

    def __init__(self, lent: Lent) -> None:
        self._places: dict[str, Any] = {}
        with suppress(OSError):
            self._file = os.open(lent.path, os.O_RDONLY)
            self._places = json.loads(os.pread(self._file, lent.size, lent.start))

    def take(self, image: str) -> Picture | None:
        """The picture of that name, where it lies here; once."""
        if (place := self._places.pop(image, None)) is None:
            return None
        start, shape, rest = place
        pixels = np.empty(shape, np.uint8)
        if os.preadv(self._file, [pixels.data], start) != pixels.nbytes:
            return None
        return Picture(pixels, **{**rest, "remarks": tuple(rest["remarks"])})


class Shelf:
    """Pictures of ``jobs`` in their order, as a ``FieldCounter`` would read them.

    Parameters
    ----------
    jobs : iterable of FieldJob
    max_pixels : int
    halve : bool
        As ``Picture.of_file`` takes them.
    """

    def __init__(self, jobs: Iterable[FieldJob], max_pixels: int, halve: bool) -> None:
        self._jobs, self._max_pixels, self._halve = jobs, max_pixels, halve
        self._places: dict[str, Any] = {}
        self._used = 0
        self._file = os.memfd_create("pictures") if hasattr(os, "memfd_create") else -1

    def fill(self, enough: Callable[[], bool]) -> None:
        """Read pictures until ``enough`` or the shelf is full."""
        for job in self._jobs if self._file >= 0 else ():
            if enough():
                return
            picture = self._read(job)
            if picture is None:
                continue
            if self._used + picture.pixels.nbytes > SHELF_BYTES:
                return
            try:
                if os.pwrite(self._file, picture.pixels.data, self._used) != picture.pixels.nbytes:
                    return
            except OSError:  # no memory
                return
            rest = {**vars(picture), "max_pixels": self._max_pixels}
            pixels = rest.pop("pixels")
            self._places[job.image] = (self._used, pixels.shape, rest)
            self._used += pixels.nbytes

    def _read(self, job: FieldJob) -> Picture | None:
        if not isinstance(job.source, str) or is_address(job.source):
            return None
        with suppress(Exception):  # the worker will meet it too, and tell
            if is_slide(job.source):
                return None
            return Picture.of_file(job.source, min(self._max_pixels, LARGEST), self._halve, job.maybe_copy)
        return None

    def lend(self) -> Lent | None:
        """What is sent to the workers, after ``fill``; None where nothing lies here."""
        places = json.dumps(self._places).encode()
        try:
            if not self._places or os.pwrite(self._file, places, self._used) != len(places):
                return None
        except OSError:
            return None
        return Lent(f"/proc/{os.getpid()}/fd/{self._file}", self._used, len(places))

    def close(self) -> None:
        """Give the memory back, when the workers have ended."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
