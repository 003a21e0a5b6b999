"""What a worker needs to count, checked before anything heavy is loaded, and how long each stage took."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from napari_bloodcells.core.devices import cpu_count
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.images import DEFAULT_MAX_PIXELS
from napari_bloodcells.core.localize.base import check_find_threshold

BOX_CHOICES = ("auto", "xml", "find", "classical", "whole")
STAGES = ("read", "localize", "crop", "classify")


@dataclass(frozen=True)
class CounterSetup:
    """All that a worker needs to build its ``FieldCounter``; small, so it can be sent anywhere.

    Attributes
    ----------
    model, device : str
        As ``load_model`` takes them.
    boxes : str
        ``auto`` (XML where there is one, else found), ``xml``, ``find``, ``classical``, ``whole``, or the folder of
        a localizer.
    threshold : float or None
        Least confidence of a class; None for the bundle's.
    find_threshold : float or None
        Least confidence of a found box; None for the localizer's.
    um_per_pixel : float or None
        Overrules the measured scale.
    max_pixels : int
        Larger images are refused.
    cells_wanted : int or None
        A whole slide is counted until so many white cells are found; None counts its whole monolayer.
    readers : int
        Threads that read ahead; 0 reads in line.
    """

    model: str = "default"
    device: str = "auto"
    boxes: str = "auto"
    threshold: float | None = None
    find_threshold: float | None = None
    um_per_pixel: float | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    cells_wanted: int | None = None
    readers: int = 0

    @property
    def localizer(self) -> str:
        """The localizer that the boxes ask for."""
        return "default" if self.boxes in ("auto", "xml", "find", "whole") else self.boxes


@dataclass
class StageTimes:
    """Seconds spent in each stage, and images and cells that went through."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    images: int = 0
    cells: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def add(self, other: StageTimes) -> None:
        """Add the figures of another worker."""
        for name, seconds in other.seconds.items():
            self.seconds[name] += seconds
        self.images += other.images
        self.cells += other.cells


def readers_of(device: str, processes: int = 1) -> int:
    """Threads that read ahead in each of so many processes: on a CPU none, as the processes themselves read."""
    return 0 if device == "cpu" else max(1, min(16, cpu_count() // processes))


def check_setup(setup: CounterSetup) -> None:
    """Refuse values that cannot be meant, before anything heavy is loaded."""
    if setup.boxes not in BOX_CHOICES and not os.path.isdir(setup.boxes):
        raise UsageError(f"boxes must be {', '.join(BOX_CHOICES)} or the folder of a localizer, not {setup.boxes!r}.")
    if setup.threshold is not None and not 0 <= setup.threshold <= 1:
        raise UsageError(f"threshold must lie between 0 and 1, not at {setup.threshold:g}.")
    check_find_threshold(setup.localizer, setup.find_threshold)
    if setup.um_per_pixel is not None and not 0.005 <= setup.um_per_pixel <= 5:
        raise UsageError(f"um_per_pixel must lie between 0.005 and 5 um, not at {setup.um_per_pixel:g}.")
    if setup.max_pixels < 1:
        raise UsageError(f"max_pixels must be above zero, not {setup.max_pixels}.")
    if setup.cells_wanted is not None and setup.cells_wanted < 1:
        raise UsageError(f"cells_wanted must be above zero, not {setup.cells_wanted}.")
