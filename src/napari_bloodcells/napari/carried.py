"""What a person decided in a former review, brought into a new one: after a new count, on opening a table again.

A cell of the former review is known in the new one by where its box was *found*, so that a box that a person moved or
enlarged stays as it was drawn, and one that a person deleted stays away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.classes import UNIDENTIFIED
from napari_bloodcells.napari.cell import Cell

if TYPE_CHECKING:
    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.napari.review import Review

LEAST = 0.5
"""Intersection over union from which two boxes are of one cell."""


@dataclass(frozen=True)
class Carried:
    """What was carried over: reviewed cells, those of them whose class the new scheme lacks, deleted boxes."""

    cells: int = 0
    unnamed: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        """In one line for the reviewer; "" where there is nothing to say.

        >>> str(Carried(17, unnamed=1, deleted=2))
        'Kept from before: 17 reviewed cells (1 unidentified, because this model lacks the class), 2 deleted boxes.'
        """
        said = []
        if self.cells:
            lacks = f" ({self.unnamed} unidentified, because this model lacks the class)" if self.unnamed else ""
            said.append(f"{self.cells} reviewed cell{'s' if self.cells > 1 else ''}{lacks}")
        if self.deleted:
            said.append(f"{self.deleted} deleted box{'es' if self.deleted > 1 else ''}")
        return f"Kept from before: {', '.join(said)}." if said else ""


def in_scheme(cell: Cell, former: ClassScheme, scheme: ClassScheme) -> Cell:
    """``cell`` of a review under ``former`` as it stands under ``scheme``.

    Probabilities are of the former classes only, so they go.  A class that ``scheme`` lacks becomes ``unidentified``;
    what was meant is kept, for a scheme that has it again.
    """
    if former.names == scheme.names:
        return cell
    machine = scheme.canonical(cell.machine) or ""
    confidence = cell.confidence if machine else float("nan")
    changes: dict[str, Any] = {"machine": machine, "probabilities": (), "confidence": confidence}
    meant = cell.meant or cell.name
    if meant in former.names or cell.meant:
        name = scheme.canonical(meant) or UNIDENTIFIED
        changes |= {"name": name, "meant": "" if name == meant else meant}
    return replace(cell, **changes)


def carry_over(review: Review, former: Review) -> tuple[list[Cell], list[Cell], Carried]:
    """The cells of ``review`` with what ``former`` says of them, its deleted ones, and what was carried over.

    A reviewed cell goes to the cell that its box overlaps by half or more, where it was found or where it lies; one
    that overlaps none comes along with its box.  Of two decisions on one cell the later one holds.
    """
    cells, deleted, lost = {c.id: c for c in review.cells}, {c.id: c for c in review.deleted}, 0
    position = {name: i for i, name in enumerate(review.images)}
    place = {i: position[name] for i, name in enumerate(former.images) if name in position}
    number = _numbers(review.cells)
    new_id = max([0, *cells, *deleted]) + 1
    said = [replace(c, image=place[c.image]) for c in former.cells if c.image in place]
    reviewed = [in_scheme(c, former.scheme, review.scheme) for c in said if c.reviewed]
    gone = [replace(c, image=place[c.image]) for c in former.deleted if c.image in place and c.source != "drawn"]

    matches = _matches(reviewed, list(cells.values()))
    for k, old in enumerate(reviewed):
        match = cells.get(matches.get(k, 0))
        if match is None:
            number[old.image] = number.get(old.image, 0) + 1
            cells[new_id] = replace(old, id=new_id, number=number[old.image])
            matches[k], new_id = new_id, new_id + 1
        elif not (match.reviewed and match.time > old.time):
            cells[match.id] = _decided(match, old)
        lost += old.name == UNIDENTIFIED and bool(old.meant)

    # A box that nobody looked at holds its new cell against a deleted neighbor, and against one that was moved there.
    taken = set(matches.values())
    free = [c for c in cells.values() if c.id not in taken]
    moved = [c for c in reviewed if c.origin is not None]
    waiting = [c for c in said if not c.reviewed]
    away = _matches([*gone, *moved, *waiting], free)
    for k, old in enumerate([*gone, *moved]):
        match = cells.get(away.get(k, 0))
        if match is not None and not (match.reviewed and match.time > old.time):
            del cells[match.id]
        if k < len(gone) and (match is None or match.id not in cells):
            deleted[new_id] = replace(old, id=new_id)
            new_id += 1
    return list(cells.values()), list(deleted.values()), Carried(len(reviewed), lost, len(gone))


def _decided(match: Cell, old: Cell) -> Cell:
    """The new cell ``match`` with what a person decided of it when it was ``old``."""
    new = replace(match, name=old.name, meant=old.meant, reviewed=True, reviewer=old.reviewer, time=old.time)
    if old.source == "drawn" or old.origin is not None:
        return replace(new, box=old.box, origin=old.origin or (match.box if match.box != old.box else None))
    return new


def content(review: Review) -> list[str]:
    """All that a review says of its cells, whatever their ids; as text, in which NaN is like NaN."""
    kept = [repr(replace(cell, id=0)) for cell in review.cells]
    return [*kept, *(f"deleted {replace(cell, id=0)!r}" for cell in review.deleted)]


def _numbers(cells: Iterable[Cell]) -> dict[int, int]:
    """The highest number on each field."""
    found: dict[int, int] = {}
    for cell in cells:
        found[cell.image] = max(found.get(cell.image, 0), cell.number)
    return found


def _matches(old: Sequence[Cell], new: Sequence[Cell]) -> dict[int, int]:
    """Position in ``old`` to id in ``new``: pairs of most overlap first, each cell once, field by field."""
    found: dict[int, int] = {}
    for image in sorted({c.image for c in old}):
        rows = [k for k, c in enumerate(old) if c.image == image]
        here = [c for c in new if c.image == image]
        if not here:
            continue
        sides = [(a, b) for a in _places([old[k] for k in rows]) for b in _places(here)]
        shared = np.max([iou(a, b) for a, b in sides], axis=0)
        pairs = np.argwhere(shared >= LEAST)
        order = np.argsort(-shared[pairs[:, 0], pairs[:, 1]], kind="stable")
        used: set[int] = set()
        for row, column in pairs[order].tolist():
            if rows[row] not in found and column not in used:
                found[rows[row]] = here[column].id
                used.add(column)
    return found


def _places(cells: Sequence[Cell]) -> list[NDArray[np.float32]]:
    """Where the cells lie, and where they were found: (N, 4) each; one where none was moved."""
    lie = np.array([c.box for c in cells], np.float32)
    if all(c.origin is None for c in cells):
        return [lie]
    return [lie, np.array([c.origin or c.box for c in cells], np.float32)]
