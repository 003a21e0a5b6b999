"""What a localizer takes and gives: one image in, one ``Field`` out.

A localizer finds the white cells of a photograph with no annotation, and as far as it can the red cells and the
platelets.  The red cells are also the ruler: a human red cell measures 7.5 um across on a dried smear, so their median
diameter in pixels gives the scale of the image.  Everything downstream knows only ``Localizer`` and ``Field``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, touches_border
from napari_bloodcells.core.errors import UsageError

RED_CELL_UM = 7.5
"""Diameter of a human red cell on a dried, stained smear, in um (6.7 to 7.7 in the textbooks)."""


def found(xyxy: NDArray[np.float32] | None = None, label: str = "WBC", scores: object = ()) -> Boxes:
    """Boxes (N, 4) that a localizer found, all of one ``label``, with their ``scores`` (N,)."""
    boxes = np.zeros((0, 4), np.float32) if xyxy is None else np.asarray(xyxy, np.float32).reshape(-1, 4)
    return Boxes(boxes, (label,) * len(boxes), np.asarray(scores, np.float32), "found")


@dataclass(frozen=True)
class Field:
    """What was found on one image.

    Attributes
    ----------
    wbc, rbc, platelets : Boxes
        Pixels of the image as given (continuous edges, see ``core.boxes``), source ``found``; the surest first, by what
        the net alone says of them.
    um_per_pixel : float or None
        Scale, measured from the red cells or given by the caller; None where there is no red cell to measure.
    border : (N,) bool
        Which white cells touch the border of the image, so that a differential can leave them out.
    problems : tuple of str
        What a person should know about this field (``no red cells: ...``), without the file's name.
    """

    wbc: Boxes = field(default_factory=found)
    rbc: Boxes = field(default_factory=found)
    platelets: Boxes = field(default_factory=found)
    um_per_pixel: float | None = None
    border: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    problems: tuple[str, ...] = ()

    @staticmethod
    def of(
        image_shape: tuple[int, ...],
        wbc: Boxes,
        rbc: Boxes | None = None,
        platelets: Boxes | None = None,
        um_per_pixel: float | None = None,
        problems: tuple[str, ...] = (),
    ) -> Field:
        """A field with its ``border`` worked out from ``image_shape`` (H, W, ...)."""
        height, width = image_shape[:2]
        border = touches_border(wbc.xyxy, height, width)
        return Field(
            wbc, rbc or found(label="RBC"), platelets or found(label="Platelets"), um_per_pixel, border, problems
        )


def weighted_median(values: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]]) -> float:
    """The first of ``values`` (N,), smallest first, by which half of the ``weights`` (N,) are reached; N is not 0.

    >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0]))
    2.0
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


@runtime_checkable
class Localizer(Protocol):
    """Finds the cells of one image.  The result depends on that image alone."""

    name: str

    def find(self, image: NDArray[np.uint8], *, um_per_pixel: float | None = None) -> Field:
        """Find the cells of ``image`` (H, W, 3) uint8 RGB; ``um_per_pixel`` overrules the measured scale."""


def check_find_threshold(localizer: str, threshold: float | None) -> None:
    """Raise ``UsageError`` for a threshold that ``localizer`` cannot take: 0, 1 or beyond, or any by the classical."""
    if threshold is None:
        return
    if not 0 < threshold < 1:
        raise UsageError(f"find_threshold must lie between 0 and 1 (neither of them), not at {threshold:g}.")
    if localizer == "classical":
        raise UsageError("find_threshold is for a trained localizer; the classical one has none: leave it out.")


def check_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``image`` if it is (H, W, 3) uint8 RGB, else raise ``UsageError``."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError(
            f"An image for a localizer is (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}; "
            "convert it with napari_bloodcells.core.images.to_rgb8."
        )
    return image
