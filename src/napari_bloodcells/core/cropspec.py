"""How the crops of a model are cut, as its bundle says: told without loading torch, which ``crops.py`` cuts with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CropSpec:
    """How the crops of one model are cut.

    Attributes
    ----------
    size : int
        Side of the crop in pixels.
    side_um : float
        Side of the crop in micrometers (``scale="um"``).
    context : float
        Side of the crop in longest sides of the box (``scale="box"``).
    scale : {"um", "box", "image"}
        ``um``: every crop covers ``side_um``, by ``um_per_pixel`` or, where that is unknown, by the box taken as
        14 um.  ``box``: every crop covers ``context`` boxes.  ``image``: the box itself, stretched to the square
        (the published networks, which read whole images).
    white : bool
        Divide by the local white of the ground.

    Examples
    --------
    >>> CropSpec().side_um / CropSpec().size      # um per pixel of the crop
    0.25
    """

    size: int = 80
    side_um: float = 20.0
    context: float = 1.43
    scale: Literal["um", "box", "image"] = "um"
    white: bool = True

    def __post_init__(self) -> None:
        if self.scale not in ("um", "box", "image"):
            raise ValueError(f"scale must be um, box or image, not {self.scale!r}")
        if self.size < 1 or self.side_um <= 0 or self.context <= 0:
            raise ValueError("size, side_um and context of a crop must be above zero")
