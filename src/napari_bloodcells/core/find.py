"""Which files of a folder are photographs to count: natural order, hidden files and own results left out.

A thing that calls itself an image but is none (a pipe, a dangling link, an empty folder ``a.jpg``, a folder that may
not be opened) is listed too, so that the reader names it and the user learns that it was not counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import display_name, natural_key

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"}
)
SCANNER_SUFFIXES: frozenset[str] = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu"})
SLIDE_SUFFIXES: frozenset[str] = SCANNER_SUFFIXES | {".btf", ".tf8"}
"""Whole slides, also where they are small: scanners' formats, and the suffixes of BigTIFF."""

OUTPUT_SUFFIX = "-differential"
# A folder that holds one of these was written by this package (a count, a training) and holds drawn images only.
_OUTPUT_MARKS = ("run.json", "model.json", "history.csv")
# Pictures that annotate the photographs beside them.
_MASK_FOLDERS = frozenset({"masks", "mask", "segmentationclass", "segmentationobject"})
_PHOTO_FOLDERS = frozenset({"images", "jpegimages"})


def find_images(paths: Iterable[Path | str], recursive: bool = True, *, slides: bool = False) -> list[Path]:
    """The photographs among files and folders.

    Parameters
    ----------
    paths : iterable of path
        Files are taken whatever they are called; of folders those files whose name ends as an image's does.
    recursive : bool
        Whether folders inside of folders are looked into.
    slides : bool
        Whether whole slides of folders are taken too (``SLIDE_SUFFIXES``).

    Returns
    -------
    list of Path
        Each once, in natural order (``field 9`` before ``field 10``) whatever order ``paths`` had.  Left out are
        hidden files, results of this package, and mask folders beside an image folder; a folder that is reached
        twice through links is read once.

    Raises
    ------
    ImageError
        If one of ``paths`` does not exist.
    """
    suffixes = IMAGE_SUFFIXES | SLIDE_SUFFIXES if slides else IMAGE_SUFFIXES
    found: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for given in sorted((Path(p) for p in paths), key=natural_key):
        if not os.path.lexists(given):
            raise ImageError(f"{display_name(given)}: no such file or folder.")
        for path in _walk(given, recursive, suffixes, seen) if given.is_dir() else (given,):
            found.setdefault(os.path.abspath(path), path)
    return sorted(found.values(), key=natural_key)


def is_output_folder(folder: Path | str) -> bool:
    """Whether this package wrote the folder (the results of a count or of a training)."""
    folder = Path(folder)
    return folder.name.endswith(OUTPUT_SUFFIX) or any((folder / mark).is_file() for mark in _OUTPUT_MARKS)


def _walk(folder: Path, recursive: bool, suffixes: frozenset[str], seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: natural_key(entry.name))
    except OSError:
        yield folder  # the reader says that it may not be opened
        return
    names = {entry.name.casefold() for entry in entries}
    for entry in entries:
        if entry.name.startswith(".") or entry.name in ("__MACOSX", "Thumbs.db"):
            continue
        image_name = os.path.splitext(entry.name)[1].casefold() in suffixes
        if not _is_folder(entry):
            if image_name:
                yield folder / entry.name
            continue
        if image_name and _is_empty(entry.path):
            yield folder / entry.name
        masks = entry.name.casefold() in _MASK_FOLDERS and bool(names & _PHOTO_FOLDERS)
        if recursive and not masks and not is_output_folder(entry.path):
            yield from _walk(folder / entry.name, recursive, suffixes, seen)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False
