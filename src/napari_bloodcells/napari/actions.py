"""What a reviewer's keys do, the same on the canvas and in the gallery.

A letter names the class of the selected cells; ``u`` is unidentified, ``Delete`` not a WBC, arrows and space go to the
next cell that nobody has looked at, ``Enter`` confirms, ``Ctrl+Z`` takes back.  On the cell layer these stand before
napari's own keys, whose digits and letters delete shapes or change the tool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.napari.review import Review

if TYPE_CHECKING:
    from napari.layers import Shapes

DIGITS = tuple("1234567890")


class ReviewActions:
    """The actions on the selected cells of a review.

    Parameters
    ----------
    review : Review
    keys : dict
        Key to class name (``preferences.class_keys``).
    go_to : callable
        Shows a cell, given its id.
    say : callable
        Shows a short line to the reviewer.
    """

    def __init__(
        self, review: Review, keys: dict[str, str], go_to: Callable[[int], None], say: Callable[[str], None]
    ) -> None:
        self.review = review
        self.keys = dict(keys)
        self.go_to = go_to
        self.say = say
        self.order: Callable[[], Sequence[int] | None] = lambda: None
        self._former: Sequence[int] | None = None

    def classify(self, name: str) -> None:
        """Name the selected cells."""
        if not self.review.selection:
            self.say("No cell is selected: click one, or press the space bar for the next one to look at.")
            return
        self._remember_order()
        self.review.classify(self.review.selection, name)

    def confirm(self) -> None:
        """Mark the selected cells as looked at and go on."""
        self._remember_order()
        self.review.confirm(self.review.selection)
        self.next(1)

    def delete_boxes(self) -> None:
        """Delete the selected cells with their boxes."""
        self.review.remove(self.review.selection)

    def next(self, step: int) -> None:
        """Go to the next cell (1) or the former one (-1) that nobody has looked at."""
        found = self.review.next_unreviewed(step, self._former or self.order())
        self._former = None
        if found is None:
            left = sum(not cell.reviewed for cell in self.review.reviewable())  # of those that a filter hides
            self.say(
                f"All cells shown are reviewed; {left} hidden ones are not." if left else "All cells are reviewed."
            )
        else:
            self.go_to(found)

    def _remember_order(self) -> None:
        """A cell that is named goes to its class in the gallery; the next one is the one that followed it before."""
        order = self.order()
        self._former = None if order is None else tuple(order)

    def undo(self) -> None:
        """Take the last change back."""
        title = self.review.undo_title
        self.review.undo()
        self.say(f"Taken back: {title}." if title else "Nothing to take back.")

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        title = self.review.redo_title
        self.review.redo()
        self.say(f"Done again: {title}." if title else "Nothing to do again.")

    def explain_digits(self) -> None:
        """Digits delete shapes or change the tool in napari; on cells they do nothing but say what the keys are."""
        self.say("Keys: " + ", ".join(f"{key} {name}" for key, name in self.keys.items()) + ", Delete not a WBC.")

    def table(self) -> dict[str, Callable[[], None]]:
        """Key (as napari spells it) to action."""
        actions: dict[str, Callable[[], None]] = dict.fromkeys(DIGITS, self.explain_digits)
        for key, name in self.keys.items():
            actions[key.upper()] = lambda name=name: self.classify(name)
        for key in ("Delete", "Backspace"):
            actions[key] = lambda: self.classify(NOT_A_WBC)
        for key, step in (("Space", 1), ("Right", 1), ("Down", 1), ("Left", -1), ("Up", -1)):
            actions[key] = lambda step=step: self.next(step)
        actions["Enter"] = self.confirm
        actions["Shift-Delete"] = self.delete_boxes
        actions["Control-Z"] = self.undo
        actions["Control-Shift-Z"] = self.redo
        actions["Control-Y"] = self.redo
        return actions

    def bind(self, layer: Shapes) -> None:
        """Put the keys on a cell layer, before napari's own."""
        for key, action in self.table().items():
            layer.bind_key(key, lambda _layer, action=action: action(), overwrite=True)

    @staticmethod
    def unbind(layer: Shapes) -> None:
        """Take all keys from a cell layer: they would change a review that nobody keeps, and hold its window alive."""
        layer.keymap.clear()
