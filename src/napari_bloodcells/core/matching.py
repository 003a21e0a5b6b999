"""Which annotation file belongs to which photograph, when names differ as they do in real folders.

Two names fit when they are equal but for case, spaces against underscores, Unicode form and suffix.  Of all pairs that
fit the nearest in the folder tree come first: in one folder, then in an ``Annotations`` folder beside, then others (so
two samples may both hold a ``field 1``); then the more exact name, then what the XML says in its ``filename``.
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
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
    named = {annotation: annotation.stem for annotation in sorted(annotations, key=natural_key)}
    matched = _nearest_pairs(images, named)
    left = set(named) - set(matched.values())
    declared = {annotation: _declared_filename(annotation) for annotation in named if annotation in left}
    matched |= _nearest_pairs(images, {xml: name for xml, name in declared.items() if name}, matched)
    taken = set(matched.values())
    for annotation in named:
        if annotation not in taken:
            text = f"{display_name(annotation)}: its image is not here; the annotation is left out."
            warnings.warn(text, DataWarning, stacklevel=2)
    for image in images if matched else []:
        if image not in matched:
            warnings.warn(f"{display_name(image)}: has no annotation file.", DataWarning, stacklevel=2)
    return {image: matched[image] for image in images if image in matched}


def _nearest_pairs(
    images: Iterable[Path], named: Mapping[Path, str], matched: Container[Path] = ()
) -> dict[Path, Path]:
    """Photographs, those ``matched`` left out, and the annotations that go by their names; the nearest pairs first.

    An annotation that lies among photographs belongs to one of those: it goes to no folder beside its own.
    """
    stems = {xml: _fold(_stem(name)) for xml, name in named.items()}
    wanted = set(stems.values())
    if not wanted:
        return {}
    folders = {file: _folder_parts(file) for file in (*images, *named)}
    among_photos = {folders[image] for image in images}
    photos = {i: stem for i in images if i not in matched and (stem := _fold(_stem(i.name))) in wanted}
    pairs: dict[Path, Path] = {}
    for up_xml, up_photo, beside in _steps(max(map(len, folders.values()))):
        if wanted.isdisjoint(photos.values()):
            break
        groups: dict[tuple[tuple[str, ...], str], tuple[list[Path], list[Path]]] = {}
        for xml, stem in stems.items():
            parts = folders[xml]
            fits = parts[-1] in _ANNOTATION_FOLDERS if beside else not (up_xml and up_photo and parts in among_photos)
            if fits and len(parts) > up_xml:
                groups.setdefault((parts[: len(parts) - up_xml], stem), ([], []))[0].append(xml)
        for photo, stem in photos.items():
            parts = folders[photo]
            if len(parts) > up_photo and (group := groups.get((parts[: len(parts) - up_photo], stem))):
                group[1].append(photo)
        for xmls, candidates in groups.values():
            for photo, xml in _exact_first(xmls, candidates, named).items():
                pairs[photo] = xml
                del photos[photo], stems[xml]
        wanted = set(stems.values())
    return pairs


def _folder_parts(file: Path) -> tuple[str, ...]:
    return Path(os.path.abspath(file)).parent.parts


def _steps(depth: int) -> Iterator[tuple[int, int, bool]]:
    """How many folders up from an annotation and from a photograph they meet, and whether in ``Annotations`` beside."""
    yield 0, 0, False
    yield 1, 1, True
    for distance in range(1, 2 * depth):
        for up_xml in range(max(0, distance - depth), min(distance, depth) + 1):
            yield up_xml, distance - up_xml, False


def _exact_first(xmls: list[Path], photos: list[Path], named: Mapping[Path, str]) -> dict[Path, Path]:
    """Photographs and annotations of one place whose names fit, the more exact pairs first."""
    if not photos:
        return {}
    if len(xmls) == len(photos) == 1:
        return {photos[0]: xmls[0]}

    def rank(xml: Path, photo: Path) -> tuple[object, ...]:
        exact = (named[xml] != photo.name) + (named[xml] not in (photo.name, _stem(photo.name)))
        return exact, declared[xml] != photo.name, natural_key(xml), natural_key(photo)

    declared = {xml: _declared_filename(xml) for xml in xmls}
    pairs: dict[Path, Path] = {}
    for xml, photo in sorted(((x, p) for x in xmls for p in photos), key=lambda pair: rank(*pair)):
        if photo not in pairs and xml not in pairs.values():
            pairs[photo] = xml
    return pairs


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
