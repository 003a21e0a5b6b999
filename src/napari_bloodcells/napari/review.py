"""The review of a smear: the one place where its cells, their classes and their boxes stand.

The Shapes layer, the gallery, the differential and the journal on disk show this object and change it through its
methods; each follows the ``changed`` signal, so that they cannot come apart.  Every change is an ``Edit`` that can be
taken back.  Without Qt, so that it can be tested without a window.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED
from napari_bloodcells.napari.carried import Carried, carry_over, in_scheme
from napari_bloodcells.napari.cell import Box, Cell, Edit

if TYPE_CHECKING:
    from napari_bloodcells.core.classes import ClassScheme


def utc_now() -> str:
    """The time as it is kept beside a reviewed cell: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def login_name() -> str:
    """The name of the login, or "" where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


class Review:
    """Cells of one field or of a series of fields, with their history.

    Parameters
    ----------
    scheme : ClassScheme
    images : sequence of str
        Names of the fields, in the order of the planes of the image layer; as in the column ``image``.
    cells : iterable of Cell
    reviewer : str
        Who is at the microscope; "" takes the login.
    info : dict
        Where the cells are from: model, hash, box source, file.
    deleted : iterable of Cell
        Cells that a person deleted earlier, so that the next count does not bring them back.

    Examples
    --------
    >>> from napari_bloodcells.core.classes import load_scheme
    >>> review = Review(load_scheme("wbc5"), ["a.jpg"], [Cell(1, 0, 1, (0, 0, 9, 9), "monocyte", "monocyte", 0.6)])
    >>> review.classify([1], "lymphocyte"); review.cell(1).name, review.cell(1).machine
    ('lymphocyte', 'monocyte')
    >>> review.undo(); review.cell(1).name, review.cell(1).reviewed
    ('monocyte', False)
    """

    changed = Signal(Edit)
    """After every change; the edit as it was applied (an undo comes as the reversed edit)."""
    selected = Signal(tuple)
    """After the selection changed: ids in the order of selection."""

    def __init__(
        self,
        scheme: ClassScheme,
        images: Sequence[str],
        cells: Iterable[Cell] = (),
        reviewer: str = "",
        info: dict[str, Any] | None = None,
        deleted: Iterable[Cell] = (),
    ) -> None:
        self.scheme = scheme
        self.images = tuple(images)
        self.reviewer = reviewer or login_name()
        self.info = dict(info or {})
        self.now: Callable[[], str] = utc_now
        self._cells = {cell.id: cell for cell in cells}
        self._deleted = {cell.id: cell for cell in deleted}
        self._next_id = max([0, *self._cells, *self._deleted]) + 1
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        self._selection: tuple[int, ...] = ()

    # what stands

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in the order in which they came."""
        return tuple(self._cells.values())

    @property
    def deleted(self) -> tuple[Cell, ...]:
        """Cells that a person deleted, with the time of that."""
        return tuple(self._deleted.values())

    def cell(self, cell_id: int) -> Cell:
        """One cell; ``KeyError`` where it is gone."""
        return self._cells[cell_id]

    def __contains__(self, cell_id: int) -> bool:
        return cell_id in self._cells

    def is_bystander(self, cell: Cell) -> bool:
        """Whether ``cell`` is outside of the scheme (a red cell of a VOC file): shown, but not reviewed."""
        return cell.name not in self.scheme.names and cell.name not in (UNIDENTIFIED, NOT_A_WBC)

    def reviewable(self) -> list[Cell]:
        """The cells that a reviewer goes through: all but the bystanders."""
        names = {*self.scheme.names, UNIDENTIFIED, NOT_A_WBC}
        return [cell for cell in self._cells.values() if cell.name in names]

    def class_names(self) -> tuple[str, ...]:
        """What a cell can be called: the classes of the scheme, ``unidentified``, ``not a WBC``."""
        return (*self.scheme.names, UNIDENTIFIED, NOT_A_WBC)

    def corrected(self) -> list[Cell]:
        """Cells whose class a person changed, or that a person drew."""
        return [c for c in self._cells.values() if c.reviewed and (c.name != c.machine or c.source == "drawn")]

    # selection

    @property
    def selection(self) -> tuple[int, ...]:
        """Ids of the selected cells."""
        return self._selection

    def select(self, ids: Iterable[int]) -> None:
        """Select these cells and no others."""
        kept = tuple(i for i in dict.fromkeys(ids) if i in self._cells)
        if kept != self._selection:
            self._selection = kept
            self.selected.emit(kept)

    def next_unreviewed(self, step: int = 1, order: Sequence[int] | None = None) -> int | None:
        """The next (``step=1``) or former (-1) unreviewed cell after the selected one, around the end; None if none.

        ``order`` gives the ids as they are shown; without it they go by field and number.
        """
        if order is None:
            by_field = sorted(self.reviewable(), key=lambda c: (c.image, c.number))
            order = [cell.id for cell in by_field]
        if not order:
            return None
        last = self._selection[-1] if self._selection else None
        start = order.index(last) if last in order else (-1 if step > 0 else 0)
        for k in range(1, len(order) + 1):
            cell = self._cells.get(order[(start + step * k) % len(order)])
            if cell is not None and not cell.reviewed:
                return cell.id
        return None

    # changes

    def classify(self, ids: Iterable[int], name: str) -> None:
        """Give the cells ``ids`` the class ``name``; the machine's class is kept beside it.

        Raises
        ------
        ValueError
            ``name`` is neither a class of the scheme nor ``unidentified`` or ``not a WBC``.
        """
        if name not in self.class_names():
            raise ValueError(f"{name!r} is no class here; there are {', '.join(self.class_names())}.")
        self._change(f"class {name}", ids, name=name, meant="")

    def confirm(self, ids: Iterable[int]) -> None:
        """Mark the cells as looked at, with the class that they have."""
        waiting = [i for i in ids if i in self._cells and not self._cells[i].reviewed]
        self._change("confirmed", waiting)

    def move(self, boxes: dict[int, Box]) -> None:
        """Give cells new boxes (pixels); where a box was found is kept beside it."""
        old = [self._cells[i] for i in boxes if i in self._cells and self._cells[i].box != boxes[i]]
        found = {c.id: c.origin or (None if c.source == "drawn" else c.box) for c in old}
        self._apply("box moved", old, [self._touched(c, box=boxes[c.id], origin=found[c.id]) for c in old])

    def add(self, image: int, boxes: Sequence[Box], name: str = UNIDENTIFIED) -> tuple[int, ...]:
        """Add cells drawn by hand on the field ``image``; their ids."""
        if not boxes:
            return ()
        taken = (*self._cells.values(), *self._deleted.values())  # a saved table has the deleted ones too
        number = max((c.number for c in taken if c.image == image), default=0)
        new: list[Cell] = []
        for k, box in enumerate(boxes, start=1):
            cell = Cell(self._next_id, image, number + k, box, name, source="drawn")
            new.append(self._touched(cell))
            self._next_id += 1
        self._apply("cell drawn", [None] * len(new), new)
        return tuple(cell.id for cell in new)

    def remove(self, ids: Iterable[int]) -> None:
        """Delete cells with their boxes."""
        old = [self._cells[i] for i in dict.fromkeys(ids) if i in self._cells]
        self._apply("cell deleted", old, [None] * len(old))

    def settle(self, cells: Iterable[Cell]) -> None:
        """Put what the model said of freshly drawn cells into the edit that drew them, so that undo takes both back.

        Only what is the model's is taken from ``cells``: a box that was moved meanwhile, or a class that was given,
        stays.
        """
        for cell in cells:
            old = self._cells.get(cell.id)
            if old is None:
                continue
            # ``u`` leaves the name as it is drawn with; so it is told by the edit that a person said so
            edits = [edit for edit in self._done if edit.title == f"class {UNIDENTIFIED}"]
            name = UNIDENTIFIED if any(cell.id in edit.ids for edit in edits) else cell.name
            for history in (self._done, self._undone):
                history[:] = [_settled(edit, cell, name) for edit in history]
            new = self._cells[cell.id] = _said_by_model(old, cell, name)
            self.changed.emit(Edit("classified", (old,), (new,)))

    def undo(self) -> None:
        """Take the last change back; nothing happens where there is none."""
        if self._done:
            edit = self._done.pop()
            self._undone.append(edit)
            self._put(edit.reversed())

    def redo(self) -> None:
        """Make the change that was last taken back again."""
        if self._undone:
            edit = self._undone.pop()
            self._done.append(edit)
            self._put(edit)

    @property
    def undo_title(self) -> str:
        """What ``undo`` would take back; "" where there is nothing."""
        return self._done[-1].title if self._done else ""

    @property
    def redo_title(self) -> str:
        """What ``redo`` would make again; "" where there is nothing."""
        return self._undone[-1].title if self._undone else ""

    def carry_over(self, former: Review) -> Carried:
        """Keep what a person decided in ``former`` (before a new run, on disk): see ``carried.py``."""
        cells, deleted, carried = carry_over(self, former)
        self._cells = {cell.id: cell for cell in cells}
        self._deleted = {cell.id: cell for cell in deleted}
        self._next_id = max([0, *self._cells, *self._deleted]) + 1
        return carried

    def use_scheme(self, scheme: ClassScheme) -> None:
        """Bring all cells to the classes of another scheme."""
        self._cells = {c.id: in_scheme(c, self.scheme, scheme) for c in self._cells.values()}
        self.scheme = scheme

    def _touched(self, cell: Cell, **changes: Any) -> Cell:
        return replace(cell, **changes, reviewed=True, reviewer=self.reviewer, time=self.now())

    def _change(self, title: str, ids: Iterable[int], **changes: Any) -> None:
        old = [self._cells[i] for i in dict.fromkeys(ids) if i in self._cells]
        self._apply(title, old, [self._touched(cell, **changes) for cell in old])

    def _apply(self, title: str, before: Sequence[Cell | None], after: Sequence[Cell | None]) -> None:
        if not before:
            return
        edit = Edit(title, tuple(before), tuple(after))
        self._done.append(edit)
        self._undone.clear()
        self._put(edit)

    def _put(self, edit: Edit) -> None:
        for before, after in zip(edit.before, edit.after, strict=True):
            if after is not None:
                self._cells[after.id] = after
                self._deleted.pop(after.id, None)
            elif before is not None:
                self._cells.pop(before.id, None)
                self._deleted[before.id] = replace(before, time=self.now())
        self.changed.emit(edit)
        self.select([i for i in self._selection if i in self._cells])


def _settled(edit: Edit, said: Cell, name: str) -> Edit:
    """``edit`` with what the model said of a cell wherever that stands."""
    if said.id not in edit.ids:
        return edit
    sides = ([c and _said_by_model(c, said, name) for c in side] for side in (edit.before, edit.after))
    before, after = map(tuple, sides)
    return Edit(edit.title, before, after)


def _said_by_model(cell: Cell, said: Cell, name: str) -> Cell:
    """``cell`` with the columns of the model from ``said``, and its class where nobody gave another one."""
    if cell.id != said.id:
        return cell
    return replace(
        cell,
        name=name if cell.name == UNIDENTIFIED else cell.name,
        machine=said.machine,
        confidence=said.confidence,
        probabilities=said.probabilities,
        distance=said.distance,
    )
