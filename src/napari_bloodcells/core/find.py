"""Which files of a folder are photographs to count: natural order, hidden files and own results left out.

A thing that calls itself an image but is none (a pipe, a dangling link, an empty folder ``a.jpg``, a folder that may
not be opened) is listed too, so that the reader names it and the user learns that it was not counted.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from napari_bloodcells.core.errors import DataWarning, ImageError
from napari_bloodcells.core.files import display_name, natural_key, read_regular

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"}
)
SCANNER_SUFFIXES: frozenset[str] = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu"})
SLIDE_SUFFIXES: frozenset[str] = SCANNER_SUFFIXES | {".btf", ".tf8"}
"""Whole slides, also where they are small: scanners' formats, and the suffixes of BigTIFF."""

NO_FILES = ("__MACOSX", "Thumbs.db")
"""What systems leave behind in folders and archives."""
_HISTORY = b"epoch,train_loss,train_accuracy,val_loss,val_accuracy,val_balanced_accuracy,"
"""How the ``history.csv`` of this package begins (``training/history.py``)."""
MARKS = ("run.json", "model.json", "history.csv")
"""Files that say whether this package wrote the folder they are in."""
LARGEST_MARK = 2**28
# Pictures that annotate the photographs beside them.
_MASK_FOLDERS = frozenset({"masks", "mask", "segmentationclass", "segmentationobject"})
PHOTO_FOLDERS = frozenset({"images", "jpegimages"})


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
        hidden files, results of this package, mask folders beside an image folder, and with ``slides`` the JPEG files
        that are parts of a slide; a folder that is reached twice through links is read once.

    Warns
    -----
    DataWarning
        For a folder that is left out because it holds results of this package.

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
        for path in _walk(given, recursive, suffixes, seen) if os.path.isdir(given) else (given,):
            found.setdefault(os.path.abspath(path), path)
    return sorted(found.values(), key=natural_key)


def is_output_folder(folder: Path | str) -> bool:
    """Whether this package wrote the folder (the results of a count or of a training): by what its files say.

    A name is no mark: other programs write a ``run.json``, a ``model.json`` or a ``history.csv`` too.
    """
    folder = Path(folder)
    return any(is_mark(name, _read_mark(folder / name)) for name in MARKS)


def is_mark(name: str, data: bytes) -> bool:
    """Whether this package wrote the file ``name`` (one of ``MARKS``), by what is in it.

    >>> is_mark("run.json", b'{"fingerprint": {}}'), is_mark("run.json", b'{"speed": 3}'), is_mark("run.json", b"")
    (True, False, False)
    """
    if name == "history.csv":
        return data.startswith(_HISTORY)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    if name == "model.json":
        return {"format", "arch", "scheme", "crop"} <= found.keys()
    versions = found.get("versions")
    return "fingerprint" in found or (isinstance(versions, dict) and "napari-bloodcells" in versions)


def _read_mark(path: Path) -> bytes:
    """What is in a file that may say who wrote its folder; nothing where there is none."""
    try:
        if not path.is_file():
            return b""
        if path.name == "history.csv":
            with path.open("rb") as file:
                return file.read(len(_HISTORY))
        return read_regular(path, LARGEST_MARK, ImageError)
    except (ImageError, OSError):
        return b""


def is_mask_folder(name: str, beside: Collection[str]) -> bool:
    """Whether a folder holds pictures that annotate the photographs of another one, by the names of those beside it.

    >>> is_mask_folder("masks", {"images", "masks"}), is_mask_folder("Masks", {"masks", "a"})
    (True, False)
    """
    return name.casefold() in _MASK_FOLDERS and any(other.casefold() in PHOTO_FOLDERS for other in beside)


def results_left_out(folder: str) -> str:
    """What is told of a folder that is passed over because this package wrote it."""
    return f"{folder}: holds results of this program, not images; the folder is left out."


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
    names = {entry.name for entry in entries}
    parts = _parts_of_slides(folder, entries) if suffixes >= SLIDE_SUFFIXES else frozenset()
    for entry in entries:
        if entry.name.startswith(".") or entry.name in NO_FILES or entry.name in parts:
            continue
        image_name = os.path.splitext(entry.name)[1].casefold() in suffixes
        if not is_folder(entry):
            if image_name:
                yield folder / entry.name
            continue
        if image_name and _is_empty(entry.path):
            yield folder / entry.name
        if not recursive or is_mask_folder(entry.name, names):
            continue
        if is_output_folder(entry.path):
            warnings.warn(results_left_out(display_name(entry.path)), DataWarning, stacklevel=2)
        else:
            yield from _walk(folder / entry.name, recursive, suffixes, seen)


def _parts_of_slides(folder: Path, entries: list[os.DirEntry[str]]) -> frozenset[str]:
    """Names of files that hold the pixels of a slide in the same folder, as those of a ``.vms`` do."""
    from napari_bloodcells.core.slides.companions import companions

    slides = [entry.name for entry in entries if os.path.splitext(entry.name)[1].casefold() in SCANNER_SUFFIXES]
    files = (file for name in slides for file in companions(folder / name))
    return frozenset(file.name for file in files if file.parent == folder)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a listing is a folder; a link in a loop, or into a folder that is closed to us, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, in natural order; none where it may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name for entry in entries if is_folder(entry)), key=natural_key)
    except OSError:
        return []


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False
