"""A report page as a file: told by its mark from a file of somebody else, and what it was made with.

A page with pictures, or with a reviewer's classes, is worth more than one without.  So each says in its first tag how
many it has, which ``page.py`` reads before it replaces one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INDEX = "index.html"
_MARK = b"<!-- napari-bloodcells report -->"
_MADE_WITH = re.compile(rb'<html [^>]*data-pictures="(\d{1,9})" data-reviewed="(\d{1,9})"')
_HEAD_BYTES = 200
"""In these stand the mark and the figures: before all that a file or sample name could make longer."""


@dataclass(frozen=True)
class MadeWith:
    """How many photographs a page shows, and how many of its cells a person reviewed."""

    pictures: int = 0
    reviewed: int = 0


def is_page(path: Path) -> bool:
    """Whether a file is a report page or an index of ours; ``OSError`` where it is there and cannot be read."""
    return _MARK in _head(path)


def made_with(path: Path) -> MadeWith:
    """What the page in ``path`` was made with; nothing where there is none, and of an index."""
    found = _MADE_WITH.search(_head(path))
    return MadeWith() if found is None else MadeWith(int(found[1]), int(found[2]))


def pages_in(folder: Path) -> Iterator[Path]:
    """The report pages of a folder and their index, as ``write_reports`` names them; no file of somebody else."""
    for pattern in ("report.html", "report-*.html", INDEX):
        for path in sorted(folder.glob(pattern)):
            try:
                ours = is_page(path)
            except OSError:
                continue
            if ours:
                yield path


def _head(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
