"""How folders of photographs and of annotations lie to each other: which may belong together, the nearest first.

Folders beside each other are samples, perhaps of two patients, and boxes never go from one to another: only an
``Annotations`` (or ``xml``) folder beside the photographs, or any beside one called ``JPEGImages`` or ``images``,
belongs to its neighbor.  An annotation that lies among photographs is of one of those.

A step of the search says for a folder of annotations and for one of photographs in which places they meet; two belong
together where a place of the one is a place of the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from napari_bloodcells.core.find import PHOTO_FOLDERS

Parts: TypeAlias = tuple[str, ...]
Place: TypeAlias = tuple[object, ...]
Places: TypeAlias = Callable[[Parts], list[Place]]

ANNOTATION_FOLDERS = ("Annotations", "annotations", "xml")
"""Looked for beside the folders of photographs."""
_ANNOTATION_NAMES = frozenset(name.casefold() for name in ANNOTATION_FOLDERS)


def folders_of(files: Iterable[Path]) -> dict[Path, Parts]:
    """The folder of each file, as the names from the root to it."""
    known: dict[str, Parts] = {}
    found: dict[Path, Parts] = {}
    for file in files:
        folder = os.path.dirname(file)
        if folder not in known:
            known[folder] = Path(os.path.abspath(folder)).parts
        found[file] = known[folder]
    return found


def is_photo_folder(folder: Parts) -> bool:
    """Whether a folder is called as only one of photographs is."""
    return folder[-1].casefold() in PHOTO_FOLDERS


class Layout:
    """The folders of a search.

    Parameters
    ----------
    folders : iterable of Parts
        Those in which photographs lie.
    """

    def __init__(self, folders: Iterable[Parts]) -> None:
        self._holding = set(folders)
        self._occupied = {folder[:n] for folder in self._holding for n in range(len(folder) + 1)}

    def holds(self, folder: Parts) -> bool:
        """Whether photographs lie in a folder."""
        return folder in self._holding

    def steps(self, depth: int) -> Iterator[tuple[Places, Places]]:
        """Where annotations and photographs meet, the nearest first; ``depth`` is that of the deepest folder."""
        yield _itself, _itself
        yield _out_of(_ANNOTATION_NAMES), _out_of_any  # Annotations/1 and JPEGImages/1, Annotations/a and JPEGImages/a
        yield self._out_of_xml_only, _out_of(PHOTO_FOLDERS)  # labels/1 and images/1
        yield _without_annotations, _itself  # Annotations/1 and 1, Annotations/a/1 and a/1
        yield _above_annotations, lambda folder: [folder[:-1]] if is_photo_folder(folder) else []
        for up in range(1, depth + 1):
            yield self._of_all_below, _up(up)
            yield self._up_from_xml_only(up), _itself
            yield _beside_annotations, _up(up)

    def _of_all_below(self, folder: Parts) -> list[Place]:
        return [] if folder in self._holding else [folder]

    def _out_of_xml_only(self, folder: Parts) -> list[Place]:
        return [] if folder in self._occupied else _out_of_any(folder)

    def _up_from_xml_only(self, up: int) -> Places:
        """The folder so far above, unless photographs lie on the way or it is beyond the home of ``Annotations``."""

        def places(folder: Parts) -> list[Place]:
            top = len(folder) - up
            home = _last_index(folder, _ANNOTATION_NAMES)
            return [folder[:top]] if top >= max(home, 1) and folder[: top + 1] not in self._occupied else []

        return places


def _itself(folder: Parts) -> list[Place]:
    return [folder]


def _last_index(folder: Parts, names: frozenset[str]) -> int:
    """Where in a path the last folder of these names stands; -1 without one."""
    return next((i for i in range(len(folder) - 1, 0, -1) if folder[i].casefold() in names), -1)


def _out_of_any(folder: Parts) -> list[Place]:
    """The folder with one of its parts left open, wherever that is."""
    return [(i, folder[:i], folder[i + 1 :]) for i in range(1, len(folder))]


def _out_of(names: frozenset[str]) -> Places:
    """The folder with the last part of these names left open."""

    def places(folder: Parts) -> list[Place]:
        i = _last_index(folder, names)
        return [(i, folder[:i], folder[i + 1 :])] if i > 0 else []

    return places


def _without_annotations(folder: Parts) -> list[Place]:
    i = _last_index(folder, _ANNOTATION_NAMES)
    return [folder[:i] + folder[i + 1 :]] if i > 0 else []


def _above_annotations(folder: Parts) -> list[Place]:
    i = _last_index(folder, _ANNOTATION_NAMES)
    return [folder[:i]] if i > 0 else []


def _beside_annotations(folder: Parts) -> list[Place]:
    return [folder[:-1]] if folder[-1].casefold() in _ANNOTATION_NAMES else []


def _up(up: int) -> Places:
    return lambda folder: [folder[:-up]] if len(folder) > up else []
