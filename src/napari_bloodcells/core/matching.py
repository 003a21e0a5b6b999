"""Which annotation file belongs to which photograph, when names differ as they do in real folders.

Two names fit when they are equal but for case, spaces against underscores, Unicode form and suffix.  Of all pairs that
fit the nearest in the folder tree come first: in one folder, then in an ``Annotations`` folder beside, then others (so
two samples may both hold a ``field 1``); then the more exact name, then what the XML says in its ``filename``.
Boxes never go from the folder of one sample to that of another (``layouts.py``).
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.files import display_name, natural_key
from napari_bloodcells.core.find import IMAGE_SUFFIXES, folders_in, is_output_folder
from napari_bloodcells.core.layouts import ANNOTATION_FOLDERS, Layout, Place, folders_of, is_photo_folder

Declared: TypeAlias = Callable[[Sequence[Path]], Mapping[Path, str]]
HEAD = 4096
"""Bytes of an XML file in which its ``filename`` stands."""
_FILENAME = re.compile(rb"<filename>\s*([^<]{1,1000}?)\s*</filename>", re.IGNORECASE)


def find_annotations(paths: Iterable[Path | str], recursive: bool = True) -> list[Path]:
    """XML files for the photographs among files and folders, in natural order.

    Looked through are the folders of ``paths`` (and those inside of them), the folders of files, and an
    ``Annotations`` folder beside any of these, as VOC lays data sets out.

    Warns
    -----
    DataWarning
        For a folder that may not be read: boxes may lie there.
    """
    folders: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for given in (Path(p) for p in paths):
        is_dir = os.path.isdir(given)
        start = given if is_dir else given.parent
        deep = recursive and is_dir
        for folder in [start, *(start.parent / name for name in ANNOTATION_FOLDERS)]:
            for found in _folders(folder, deep, seen):
                folders.setdefault(os.path.abspath(found), found)
    files: dict[str, Path] = {}
    for folder in folders.values():
        try:
            names = os.listdir(folder)
        except OSError:
            told = f"{display_name(folder)}: is a folder that may not be read"
            warnings.warn(f"{told}; XML files there are not used.", DataWarning, stacklevel=2)
            continue
        for name in names:
            if name.casefold().endswith(".xml") and not name.startswith("."):
                files.setdefault(os.path.abspath(folder / name), folder / name)
    return sorted(files.values(), key=natural_key)


def match_annotations(
    images: Iterable[Path], annotations: Iterable[Path], declared: Declared | None = None
) -> dict[Path, Path]:
    """The annotation file of each photograph that has one.

    Parameters
    ----------
    images : iterable of Path
        Photographs (``find_images``).
    annotations : iterable of Path
        XML files (``find_annotations``).
    declared : callable, optional
        From XML files to the ``filename`` that each declares, empty where it has none; read from the files where None.

    Returns
    -------
    dict of Path to Path
        Photograph to XML file, in the order of ``images``; each XML file at most once.

    Warns
    -----
    DataWarning
        For an XML file without a photograph, or whose name fits only photographs that may be of another sample, and
        for a photograph without an XML file where others have one.
    """
    images = list(images)
    pairing = _Pairing(images, sorted(annotations, key=natural_key), declared or _declared_filenames)
    pairing.run()
    for text in pairing.left_out():
        warnings.warn(text, DataWarning, stacklevel=2)
    for image in images if pairing.pairs else []:
        if image not in pairing.pairs:
            warnings.warn(f"{display_name(image)}: has no annotation file.", DataWarning, stacklevel=2)
    return {image: pairing.pairs[image] for image in images if image in pairing.pairs}


def declared_filename(head: bytes) -> str:
    """The ``filename`` in the first ``HEAD`` bytes of an XML file, without parsing it; empty where there is none."""
    found = _FILENAME.search(head)
    return re.split(r"[\\/]", found.group(1).decode("utf-8", "replace"))[-1] if found else ""


class _Pairing:
    """Photographs and XML files while they are being paired."""

    def __init__(self, images: Sequence[Path], annotations: Sequence[Path], declared: Declared) -> None:
        self.images, self.annotations, self.declared = images, annotations, declared
        self.pairs: dict[Path, Path] = {}
        self._folders = folders_of((*images, *annotations))
        self._layout = Layout(self._folders[image] for image in images)
        self._stems: dict[Path, set[str]] = {}
        self._doubtful: dict[Path, list[str]] = {}

    def run(self) -> None:
        """Pair by the names of the files, then what is left by the names that the XML files declare."""
        self._pair({xml: xml.stem for xml in self.annotations})
        if len(self.pairs) < len(self.images):
            taken = set(self.pairs.values())
            left = [xml for xml in self.annotations if xml not in taken and xml not in self._doubtful]
            self._pair({xml: name for xml, name in self.declared(left).items() if name} if left else {})

    def left_out(self) -> Iterator[str]:
        """In words, each XML file that belongs to no photograph."""
        taken = set(self.pairs.values())
        alone: dict[str, Path] = {}
        for image in self.images if len(taken) < len(self.annotations) else ():
            if image not in self.pairs:
                alone.setdefault(_fold(_stem(image.name)), image)
        for xml in self.annotations:
            if xml in taken:
                continue
            name = display_name(xml)
            other = next((alone[stem] for stem in sorted(self._stems.get(xml, ())) if stem in alone), None)
            if xml in self._doubtful:
                yield f"{name}: fits several images ({', '.join(self._doubtful[xml])}); the annotation is left out."
            elif other is not None:
                hint = (
                    ""
                    if self._layout.holds(self._folders[xml])
                    else " A folder of XML alone must be called Annotations."
                )
                yield (
                    f"{name}: its image is not here, and {display_name(other)} in {display_name(other.parent)} may be "
                    f"of another sample; the annotation is left out.{hint}"
                )
            else:
                yield f"{name}: its image is not here; the annotation is left out."

    def _pair(self, named: Mapping[Path, str]) -> None:
        """Pair the photographs that are left with the annotations that go by these names, the nearest first."""
        stems = {xml: _fold(_stem(name)) for xml, name in named.items()}
        for xml, stem in stems.items():
            self._stems.setdefault(xml, set()).add(stem)
        wanted = set(stems.values())
        photos = {
            image: stem
            for image in self.images
            if image not in self.pairs and (stem := _fold(_stem(image.name))) in wanted
        }
        depth = max((len(self._folders[file]) for file in (*stems, *photos)), default=0)
        for places_of_xml, places_of_photo in self._layout.steps(depth):
            if wanted.isdisjoint(photos.values()):
                return
            groups: dict[tuple[Place, str], tuple[list[Path], list[Path]]] = {}
            for xml, stem in stems.items():
                for place in places_of_xml(self._folders[xml]):
                    groups.setdefault((place, stem), ([], []))[0].append(xml)
            for photo, stem in photos.items():
                for place in places_of_photo(self._folders[photo]):
                    if group := groups.get((place, stem)):
                        group[1].append(photo)
            for xmls, candidates in groups.values():
                self._settle([x for x in xmls if x in stems], [p for p in candidates if p in photos], named)
                for photo in candidates:
                    if photo in self.pairs and photo in photos:
                        del photos[photo], stems[self.pairs[photo]]
                for xml in xmls:
                    if xml in self._doubtful:
                        stems.pop(xml, None)
            wanted = set(stems.values())

    def _settle(self, xmls: list[Path], photos: list[Path], named: Mapping[Path, str]) -> None:
        """Pair what meets in one place; photographs of several folders leave it open whose the annotation is."""
        if not xmls or not photos:
            return
        if len({self._folders[photo] for photo in photos}) > 1:
            plain = [photo for photo in photos if is_photo_folder(self._folders[photo])]
            if len({self._folders[photo] for photo in plain}) != 1:
                shown = [f"{display_name(photo.parent)}/{display_name(photo)}" for photo in photos[:3]]
                self._doubtful.update((xml, shown) for xml in xmls)
                return
            photos = plain
        self.pairs.update(_exact_first(xmls, photos, named, self.declared))


def _exact_first(
    xmls: list[Path], photos: list[Path], named: Mapping[Path, str], declared: Declared
) -> dict[Path, Path]:
    """Photographs and annotations of one place whose names fit, the more exact pairs first."""
    if len(xmls) == len(photos) == 1:
        return {photos[0]: xmls[0]}

    def rank(xml: Path, photo: Path) -> tuple[object, ...]:
        exact = (named[xml] != photo.name) + (named[xml] not in (photo.name, _stem(photo.name)))
        return exact, said[xml] != photo.name, natural_key(xml), natural_key(photo)

    said = declared(xmls)
    pairs: dict[Path, Path] = {}
    for xml, photo in sorted(((x, p) for x in xmls for p in photos), key=lambda pair: rank(*pair)):
        if photo not in pairs and xml not in pairs.values():
            pairs[photo] = xml
    return pairs


def _declared_filenames(annotations: Sequence[Path]) -> dict[Path, str]:
    return {annotation: _declared_filename(annotation) for annotation in annotations}


def _declared_filename(annotation: Path) -> str:
    try:
        with open(annotation, "rb") as file:
            return declared_filename(file.read(HEAD))
    except OSError:
        return ""


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
    except OSError:
        return []
    key = (status.st_dev, status.st_ino)
    if key in seen or not stat.S_ISDIR(status.st_mode):
        return []
    seen.add(key)
    found = [folder]
    for name in folders_in(folder) if deep else ():
        if not name.startswith(".") and not is_output_folder(folder / name):
            found += _folders(folder / name, deep, seen)
    return found
