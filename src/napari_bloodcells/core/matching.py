"""Which annotation file belongs to which photograph, when names differ as they do in real folders.

Two names fit when they are equal but for case, spaces against underscores, Unicode form and suffix; among several that
fit, the file nearest in the folder tree is taken (so two samples may both hold a ``field 1``), then the more exact
name, then what the XML says in its ``filename``.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.files import display_name, natural_key
from napari_bloodcells.core.find import IMAGE_SUFFIXES, is_output_folder

_ANNOTATION_FOLDERS = ("Annotations", "annotations", "xml")
_FILENAME = re.compile(rb"<filename>\s*([^<]{1,1000}?)\s*</filename>", re.IGNORECASE)


def find_annotations(paths: Iterable[Path | str], recursive: bool = True) -> list[Path]:
    """XML files for the photographs among files and folders, in natural order.

    Looked through are the folders of ``paths`` (and those inside of them), the folders of files, and an
    ``Annotations`` folder beside any of these, as VOC lays data sets out.
    """
    folders: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for given in (Path(p) for p in paths):
        start = given if given.is_dir() else given.parent
        deep = recursive and given.is_dir()
        for folder in [start, *(start.parent / name for name in _ANNOTATION_FOLDERS)]:
            for found in _folders(folder, deep, seen):
                folders.setdefault(os.path.abspath(found), found)
    files: dict[str, Path] = {}
    for folder in folders.values():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.casefold().endswith(".xml") and not name.startswith("."):
                files.setdefault(os.path.abspath(folder / name), folder / name)
    return sorted(files.values(), key=natural_key)


def match_annotations(images: Iterable[Path], annotations: Iterable[Path]) -> dict[Path, Path]:
    """The annotation file of each photograph that has one.

    Parameters
    ----------
    images : iterable of Path
        Photographs (``find_images``).
    annotations : iterable of Path
        XML files (``find_annotations``).

    Returns
    -------
    dict of Path to Path
        Photograph to XML file, in the order of ``images``; each XML file at most once.

    Warns
    -----
    DataWarning
        For an XML file without a photograph, and for a photograph without an XML file where others have one.
    """
    images = list(images)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[_fold(_stem(image.name))].append(image)
    matched: dict[Path, Path] = {}
    unmatched: list[Path] = []
    for annotation in sorted(annotations, key=natural_key):
        candidates = [i for i in by_stem.get(_fold(_stem(annotation.name)), []) if i not in matched]
        if candidates:
            matched[_nearest(annotation, annotation.stem, candidates)] = annotation
        else:
            unmatched.append(annotation)
    for annotation in unmatched:
        name = _declared_filename(annotation)
        candidates = [i for i in by_stem.get(_fold(_stem(name)), []) if i not in matched] if name else []
        if candidates:
            matched[_nearest(annotation, _stem(name), candidates)] = annotation
        else:
            text = f"{display_name(annotation)}: its image is not here; the annotation is left out."
            warnings.warn(text, DataWarning, stacklevel=2)
    for image in images if matched else []:
        if image not in matched:
            warnings.warn(f"{display_name(image)}: has no annotation file.", DataWarning, stacklevel=2)
    return {image: matched[image] for image in images if image in matched}


def _nearest(annotation: Path, stem: str, candidates: list[Path]) -> Path:
    if len(candidates) == 1:
        return candidates[0]

    def rank(image: Path) -> tuple[int, bool, bool]:
        return _distance(annotation, image), _stem(image.name) != stem, image.name != declared

    declared = _declared_filename(annotation)
    return min(candidates, key=lambda image: (rank(image), natural_key(image)))


def _distance(a: Path, b: Path) -> int:
    """Steps through the folder tree from the folder of ``a`` to that of ``b``."""
    folders_a, folders_b = Path(os.path.abspath(a)).parent.parts, Path(os.path.abspath(b)).parent.parts
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(folders_a, folders_b, strict=False))
    common = len(list(shared))
    return len(folders_a) + len(folders_b) - 2 * common


def _declared_filename(annotation: Path) -> str:
    """The ``filename`` in the head of an XML file, without parsing it; empty where there is none."""
    try:
        with open(annotation, "rb") as file:
            found = _FILENAME.search(file.read(4096))
    except OSError:
        return ""
    return re.split(r"[\\/]", found.group(1).decode("utf-8", "replace"))[-1] if found else ""


def _stem(name: str) -> str:
    """``name`` without an image's or annotation's suffix; other dots belong to the name."""
    if name.casefold().endswith(".xml"):
        name = name[:-4]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.casefold() in IMAGE_SUFFIXES else name


def _fold(stem: str) -> str:
    return re.sub(r"[\s_]+", "_", unicodedata.normalize("NFC", stem).strip().casefold())


def _folders(folder: Path, deep: bool, seen: set[tuple[int, int]]) -> list[Path]:
    """``folder`` and, if ``deep``, all inside of it that are neither hidden nor results; each once."""
    try:
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in seen or not folder.is_dir():
            return []
        seen.add(key)
        inside = sorted((e.name for e in os.scandir(folder) if e.is_dir()), key=natural_key) if deep else []
    except OSError:
        return []
    found = [folder]
    for name in inside:
        if not name.startswith(".") and not is_output_folder(folder / name):
            found += _folders(folder / name, deep, seen)
    return found
