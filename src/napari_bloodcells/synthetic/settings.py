"""What a drawn field shall look like, as frozen settings.

Lengths are in micrometers, so that the same cells come out at any magnification; ``um_per_pixel`` alone says how
many pixels that is.  ``Stain``, ``Optics`` and ``Ground`` group what belongs together and have quiet defaults: the
default field is clean, in focus, and has three white cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

CELL_TYPES: tuple[str, ...] = (
    "neutrophil",
    "lymphocyte",
    "monocyte",
    "eosinophil",
    "basophil",
    "erythroblast",
    "immature granulocyte",
    "smudge cell",
)
"""The cells that can be drawn; the first five are the classes of ``wbc5``."""

NORMAL_ADULT: Mapping[str, float] = MappingProxyType(
    {"neutrophil": 0.60, "lymphocyte": 0.28, "monocyte": 0.07, "eosinophil": 0.04, "basophil": 0.01}
)
"""A differential in the middle of the adult reference ranges, as fractions."""


@dataclass(frozen=True)
class Stain:
    """How the smear was stained.

    Attributes
    ----------
    strength : float
        Factor on every optical density; 1 is a Giemsa stain as an analyzer takes it, 0.6 is pale, 1.4 is dark.
    shift : float
        Standard deviation of the random change of each color channel's density from field to field, 0 to about 0.4.
    ground : tuple of 3 float, 0 to 255
        RGB of the empty ground.
    tint : float, 0 to 255
        Standard deviation of the random change of ``ground`` from field to field.
    """

    strength: float = 1.0
    shift: float = 0.06
    ground: tuple[float, float, float] = (246.0, 232.0, 217.0)
    tint: float = 3.0


@dataclass(frozen=True)
class Optics:
    """Lens and camera.

    Attributes
    ----------
    uneven_light : float
        How much darker the darkest corner is, 0 to 1.
    blur_um : float
        Standard deviation of the blur in um; 0.1 is an oil lens in focus, 0.5 is plainly out of focus.
    noise : float
        Standard deviation of the camera noise on a white pixel, in grey levels of 255.
    jpeg : int or None
        JPEG quality (1 to 95) that the field is pressed through once; None leaves it alone.
    eyepiece : float or None
        Diameter of the round field of an eyepiece, as a fraction of the image's diagonal; black outside.
    """

    uneven_light: float = 0.08
    blur_um: float = 0.10
    noise: float = 2.0
    jpeg: int | None = None
    eyepiece: float | None = None


@dataclass(frozen=True)
class Ground:
    """What lies on the slide besides blood.

    Attributes
    ----------
    dirt : int
        Specks, stain precipitate and fibers, this many in the field.
    platelet_clumps : int
        Clumps of 8 to 20 platelets, this many in the field (not in the truth: no reader boxes them).
    writing : str
        Text written across a corner as with a blue-black marker; empty for none.
    """

    dirt: int = 0
    platelet_clumps: int = 0
    writing: str = ""


@dataclass(frozen=True)
class SmearSettings:
    """What a field holds and how it is seen.

    Attributes
    ----------
    width, height : int
        Size of the image in pixels.
    um_per_pixel : float
        Micrometers per pixel; 0.1 is an oil lens with a common camera (a red cell is 75 pixels across).
    cells : tuple of str or int
        The white cells of the field: exactly these types, or this many drawn from ``differential``.
    differential : mapping of str to float
        Share of each cell type; need not add up to 1.
    rbc_coverage : float
        Share of the ground that red cells cover, 0 to about 0.6.
    platelets : int
        Platelets in the field.
    touching : float
        Probability that a white cell touches the one before it, 0 to 1.
    border : float
        Probability that a white cell is cut by the image's border (more than half of it stays inside), 0 to 1.
    stain, optics, ground
        See there.

    Raises
    ------
    ValueError
        For an unknown cell type or a size that cannot be drawn.

    Examples
    --------
    >>> SmearSettings(cells=("neutrophil", "basophil")).um_per_pixel
    0.1
    >>> SmearSettings(cells=("neutrofil",))
    Traceback (most recent call last):
    ValueError: 'neutrofil' cannot be drawn; known are neutrophil, lymphocyte, monocyte, eosinophil, basophil, ...
    """

    width: int = 640
    height: int = 480
    um_per_pixel: float = 0.1
    cells: tuple[str, ...] | int = 3
    differential: Mapping[str, float] = field(default_factory=lambda: NORMAL_ADULT)
    rbc_coverage: float = 0.35
    platelets: int = 4
    touching: float = 0.0
    border: float = 0.0
    stain: Stain = Stain()
    optics: Optics = Optics()
    ground: Ground = Ground()

    def __post_init__(self) -> None:
        asked = self.cells if isinstance(self.cells, tuple) else ()
        for name in (*asked, *self.differential):
            if name not in CELL_TYPES:
                raise ValueError(f"{name!r} cannot be drawn; known are {', '.join(CELL_TYPES)}")
        if self.width < 1 or self.height < 1 or not 0.01 <= self.um_per_pixel <= 2:
            raise ValueError(
                f"a field of {self.width} x {self.height} pixels at {self.um_per_pixel} um cannot be drawn: "
                "take at least one pixel and 0.01 to 2 um per pixel"
            )
        if isinstance(self.cells, int) and self.cells and sum(self.differential.values()) <= 0:
            raise ValueError("the differential is empty: give at least one cell type a share above 0")
