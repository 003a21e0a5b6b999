"""Names on the canvas a few letters at a time.

vispy draws each letter that it meets for the first time as a picture of distances (5 to 10 ms in software OpenGL), and
all that it meets in one turn of the window: thirty letters of the first names would hold it for a third of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

AT_ONCE = 8


class Lettering:
    """The letters that a canvas has drawn already.

    Examples
    --------
    >>> lettering = Lettering(at_once=4)
    >>> lettering.allow(["cell", "band"])
    ['cell', '']
    >>> lettering.allow(["cell", "band"])
    ['cell', 'band']
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.at_once = at_once
        self._drawn: set[str] = set()

    def allow(self, texts: Sequence[str]) -> list[str]:
        """The texts that can be drawn now, "" for those whose turn comes later; what is allowed counts as drawn."""
        fresh = [letter for letter in dict.fromkeys("".join(texts)) if letter not in self._drawn]
        self._drawn.update(fresh[: self.at_once])
        return [text if self._drawn.issuperset(text) else "" for text in texts]
