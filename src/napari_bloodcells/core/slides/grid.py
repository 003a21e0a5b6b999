"""The fields of a slide: a grid fixed to the slide, counted field by field as photographs are.

A field is about a quarter of a millimeter wide and is looked at with a margin of more than one large cell on every
side.  What is computed is the field with its margin, whatever else is read with it: so a result cannot depend on the
tiles in which the slide is stored or read.  Tiles are runs of neighboring fields of a row that are read together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.slides.slide import Region
from napari_bloodcells.core.slides.survey import BLOCK, Survey

EMPTY = 0.005
"""A field none of whose blocks has more than this stained is empty: one red cell covers 0.01 of a block at 0.25 um."""


@dataclass(frozen=True)
class GridSettings:
    """How a slide is cut.

    Attributes
    ----------
    field_um : float
        Side of a field, rounded to whole blocks of 256 pixels.
    margin_um : float
        What is seen around it: a crop's surroundings (30 um) and the largest cell lie within.
    tile_pixels : int
        Pixels that are read at once, at most (but one field at least); results do not depend on it.
    """

    field_um: float = 256.0
    margin_um: float = 32.0
    tile_pixels: int = 16_000_000


@dataclass(frozen=True)
class SlideField:
    """One field: its place in the grid, its own part, and the region that is looked at, in pixels of the slide."""

    row: int
    column: int
    own: Region
    region: Region

    @property
    def area(self) -> int:
        """Pixels of its own part."""
        return (self.own[2] - self.own[0]) * (self.own[3] - self.own[1])


@dataclass(frozen=True)
class Tile:
    """Fields that are read together, and the region that holds all of theirs."""

    fields: tuple[SlideField, ...]
    region: Region


@dataclass(frozen=True)
class FieldGrid:
    """The fields of one slide.

    Attributes
    ----------
    width, height : int
        Of the slide, pixels.
    side, margin : int
        Of a field, pixels; the last fields of a row and of a column are up to one and a half times as large.
    """

    width: int
    height: int
    side: int
    margin: int

    @staticmethod
    def of(size: tuple[int, int], um_per_pixel: float, settings: GridSettings) -> FieldGrid:
        """The grid of a slide of ``size`` (width, height)."""
        side = max(1, round(settings.field_um / um_per_pixel / BLOCK)) * BLOCK
        return FieldGrid(*size, side, int(np.ceil(settings.margin_um / um_per_pixel)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns.

        >>> FieldGrid(2600, 900, 1024, 128).shape
        (1, 3)
        """
        return max(1, round(self.height / self.side)), max(1, round(self.width / self.side))

    def field(self, row: int, column: int) -> SlideField:
        """The field at a place."""
        rows, columns = self.shape
        left, top = column * self.side, row * self.side
        right = self.width if column == columns - 1 else left + self.side
        bottom = self.height if row == rows - 1 else top + self.side
        region = (
            max(left - self.margin, 0),
            max(top - self.margin, 0),
            min(right + self.margin, self.width),
            min(bottom + self.margin, self.height),
        )
        return SlideField(row, column, (left, top, right, bottom), region)

    def stained_fields(self, survey: Survey) -> tuple[SlideField, ...]:
        """The fields that are not empty, row by row."""
        rows, columns = self.shape
        fields = (self.field(row, column) for row in range(rows) for column in range(columns))
        return tuple(field for field in fields if survey.part(*field.own).max() > EMPTY)

    def hold(self, centers: NDArray[np.float64], fields: Iterable[SlideField]) -> NDArray[np.bool_]:
        """Which points (N, 2), x and y, lie in the own part of one of ``fields``."""
        rows, columns = self.shape
        chosen = np.zeros((rows, columns), np.bool_)
        for field in fields:
            chosen[field.row, field.column] = True
        at = np.clip(centers // self.side, 0, [columns - 1, rows - 1]).astype(int)
        inside: NDArray[np.bool_] = chosen[at[:, 1], at[:, 0]]
        return inside

    def tiles(self, fields: Iterable[SlideField], settings: GridSettings) -> list[Tile]:
        """``fields`` (row by row) in runs that are read at once."""
        tiles: list[Tile] = []
        for field in fields:
            if tiles and (joined := self._joined(tiles[-1], field, settings)) is not None:
                tiles[-1] = joined
            else:
                tiles.append(Tile((field,), field.region))
        return tiles

    def _joined(self, tile: Tile, field: SlideField, settings: GridSettings) -> Tile | None:
        last = tile.fields[-1]
        if (last.row, last.column + 1) != (field.row, field.column):
            return None
        left, top, _, bottom = tile.region
        region = (left, top, field.region[2], bottom)
        if (region[2] - left) * (bottom - top) > settings.tile_pixels:
            return None
        return Tile((*tile.fields, field), region)
