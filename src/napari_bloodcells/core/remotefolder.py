"""What lies below an address: photographs by the rules of ``find.py``, their annotations by those of ``matching.py``.

An object store lists everything at once; elsewhere folder after folder is listed, and one that cannot be is named: no
photograph and no annotation is passed over without a word.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote

from napari_bloodcells.core.errors import ImageError, UsageError
from napari_bloodcells.core.files import natural_key
from napari_bloodcells.core.find import (
    IMAGE_SUFFIXES,
    LARGEST_MARK,
    MARKS,
    NO_FILES,
    SLIDE_SUFFIXES,
    is_mark,
    is_mask_folder,
    results_left_out,
)
from napari_bloodcells.core.layouts import ANNOTATION_FOLDERS
from napari_bloodcells.core.matching import HEAD, Declared, declared_filename
from napari_bloodcells.core.remote import (
    file_name,
    is_web,
    links,
    opened,
    patiently,
    read_heads,
    read_remote,
    short,
    shown,
)

_LISTED = IMAGE_SUFFIXES | SLIDE_SUFFIXES
"""Slides are not read from addresses; each is listed all the same, to be refused by its name."""
_ARCHIVES = ("zip", "tar", "libarchive", "iso")
"""Links of a chain whose empty path is the top of the archive; that of others (caches) is the path of the next link."""
_DEEPEST = 32
"""Folders in folders; a page that links to itself would have no end."""


_VERSION = ("size", "etag", "md5hash", "content_md5", "lastmodified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True)
class RemoteFile:
    """One file elsewhere.

    Attributes
    ----------
    address : str
        Where it is read, with all that this needs.
    name : str
        Its path below what was given, with ``/`` and as a person reads it.
    place : Path
        The same from the root of its file system: to tell which files lie in one folder, not to be opened.
    size : int or None
        Bytes, where the listing says so.
    version : str
        What the listing says of its size, its time or its digest, to see whether it changed; empty where it says none.
    """

    address: str
    name: str
    place: Path
    size: int | None = None
    version: str = ""


@dataclass(frozen=True)
class RemoteFolder:
    """Photographs and XML files below an address in natural order, and in words what could not be listed.

    ``single`` is true where the address is that of one file.
    """

    images: tuple[RemoteFile, ...]
    annotations: tuple[RemoteFile, ...] = ()
    problems: tuple[str, ...] = ()
    single: bool = False


def list_remote(address: str, recursive: bool = True) -> RemoteFolder:
    """The photographs and XML files below an address; a file is its own listing.

    Raises
    ------
    UsageError
        The extra or a part of it is missing, or there is nothing at this address.
    """
    system, path = opened(address)
    try:
        if system.isfile(path) and not _is_listing(address):
            info = system.info(path)
            single = RemoteFile(address, file_name(address), _place(address), _size(info), _version(info))
            return RemoteFolder((single,), single=True)
        return _listed(system, path, address, recursive)
    except Exception as error:  # each file system raises errors of its own
        raise UsageError(f"{shown(address)}: cannot be listed ({short(error, address, path)}).") from None


def annotations_beside(address: str, recursive: bool = True) -> RemoteFolder:
    """The XML files of an ``Annotations`` folder beside the folder at ``address``, as VOC lays data sets out."""
    system, path = opened(address)
    parent = posixpath.dirname(path.rstrip("/"))
    found: list[RemoteFile] = []
    problems: list[str] = []
    for name in ANNOTATION_FOLDERS if parent and not parent.endswith(":") else ():  # a bucket and a host have no parent
        folder = f"{parent.rstrip('/')}/{name}"
        there = _address_of(system, folder, path, address)
        try:
            listed = _listed(system, folder, there, recursive)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as error:
            problems.append(f"{shown(there)}: cannot be listed ({short(error, folder)}); XML in it is not used.")
            continue
        found += listed.annotations
        problems += listed.problems
    return RemoteFolder((), tuple(found), tuple(problems))


def annotation_of_single(images: Sequence[RemoteFile]) -> tuple[dict[str, RemoteFile], tuple[str, ...]]:
    """The XML beside single photographs, by their addresses: asked for by name, as a folder may not be listed.

    Returns
    -------
    dict
        Address of a photograph to its XML: beside it, or in an ``Annotations`` folder beside its folder.
    tuple of str
        Photographs of which nobody could tell whether they have one, in words.
    """
    asked = {image.address: _xml_names(image.address) for image in images}
    heads = read_heads([place for places in asked.values() for place in places], HEAD)
    found: dict[str, RemoteFile] = {}
    problems: list[str] = []
    for image in images:
        there = [(place, head) for place in asked[image.address] if _is_file(head := heads[place])]
        unknown = [e for p in asked[image.address] if isinstance(e := heads[p], Exception) and not _is_absent(e)]
        if there:
            address, head = there[0]
            version = hashlib.sha256(head).hexdigest()
            found[image.address] = RemoteFile(address, file_name(address), _place(address), version=version)
        elif unknown:
            why = short(unknown[0], *asked[image.address])
            problems.append(f"{file_name(image.address)}: an XML beside it cannot be asked for ({why}); none is used.")
    return found, tuple(problems)


def declared_names(annotations: dict[Path, str], problems: list[str]) -> Declared:
    """What ``match_annotations`` reads the heads of remote XML files with: from places to the ``filename`` in each.

    ``annotations`` gives the address of each place; files that cannot be read are added to ``problems``.
    """

    def names(places: Sequence[Path]) -> dict[Path, str]:
        heads = read_heads([annotations[place] for place in places], HEAD)
        declared: dict[Path, str] = {}
        for place in places:
            head = heads[annotations[place]]
            if isinstance(head, Exception):
                why = short(head, annotations[place])
                problems.append(f"{file_name(annotations[place])}: cannot be fetched ({why}).")
            declared[place] = "" if isinstance(head, Exception) else declared_filename(head)
        return declared

    return names


def _listed(system: Any, path: str, given: str, recursive: bool) -> RemoteFolder:
    """What lies below ``path`` in a file system, which ``given`` is the address of."""
    files, problems = _files_below(system, path, given, recursive)
    root = path.rstrip("/")
    found: list[RemoteFile] = []
    marks: list[RemoteFile] = []
    for raw, info in files.items():
        address = _address_of(system, raw, path, given)
        below = raw[len(root) :].lstrip("/") if raw.startswith(root) else raw
        name = unquote(below) if is_web(address) else below
        if any(part.startswith(".") or part in NO_FILES for part in name.split("/")):
            continue
        file = RemoteFile(address, name, _place(address), _size(info), _version(info))
        if posixpath.basename(name) in MARKS:
            marks.append(file)
        elif posixpath.splitext(name)[1].casefold() in (*_LISTED, ".xml"):
            found.append(file)
    holding = {folder for file in found for folder in _folders_of(file.name)}
    results = _results(marks, holding)
    left_out = {*results, *_mask_folders(holding)}
    place = shown(_address_of(system, path, path, given)).rstrip("/")
    told = [results_left_out(f"{place}/{folder}".rstrip("/")) for folder in results]
    found = [file for file in found if left_out.isdisjoint(_folders_of(file.name))] if left_out else found
    found.sort(key=lambda file: natural_key(file.name))
    xml = tuple(file for file in found if file.name.casefold().endswith(".xml"))
    images = tuple(file for file in found if not file.name.casefold().endswith(".xml"))
    return RemoteFolder(images, xml, (*problems, *told))


def _results(marks: Sequence[RemoteFile], holding: Collection[str]) -> list[str]:
    """Folders that hold results of this package, of those that hold images as well; a mark is fetched to be read."""
    folders: list[str] = []
    for mark in sorted(marks, key=lambda file: natural_key(file.name)):
        folder, _, name = mark.name.rpartition("/")
        if folder not in holding or not set(folders).isdisjoint(_folders_of(mark.name)):
            continue
        try:
            data = read_remote(mark.address, LARGEST_MARK)
        except ImageError:  # then it says nothing
            continue
        if is_mark(name, data):
            folders.append(folder)
    return folders


def _folders_of(name: str) -> list[str]:
    """The folders that a file lies in, from what was given (empty) to its own.

    >>> _folders_of("a/b/1.png")
    ['', 'a', 'a/b']
    """
    parts = name.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(len(parts) + 1)]


def _mask_folders(holding: Collection[str]) -> set[str]:
    """Of folders that hold images, those whose pictures annotate the photographs beside them."""
    beside: dict[str, set[str]] = {}
    for folder in holding:
        parent, _, name = folder.rpartition("/")
        beside.setdefault(parent, set()).add(name)
    return {
        f"{parent}/{name}".lstrip("/")
        for parent, names in beside.items()
        for name in names
        if is_mask_folder(name, names)
    }


def _address_of(system: Any, place: str, path: str, given: str) -> str:
    """The address of ``place``, which lies below ``path`` or beside it, where ``given`` is the address of ``path``.

    fsspec itself makes it of the place alone, and loses the host of an FTP server and the archive around a file.
    """
    if "::" not in given and not type(system)._get_kwargs_from_urls(given):
        address: str = system.unstrip_protocol(place)
        return address
    before, here, after = _split_chain(given)
    kind, _, own = here.partition("://")
    root = path.rstrip("/")
    if place.rstrip("/") != root and not place.startswith(f"{root}/" if root else ""):
        own, root = posixpath.dirname(own.rstrip("/")), posixpath.dirname(root)
    below = place[len(root) :].strip("/")
    joint = "/" if below and own and not own.endswith("/") else ""
    return f"{before}{kind}://{own}{joint}{below}{after}"


def _split_chain(address: str) -> tuple[str, str, str]:
    """A chained address in three: what comes before the link that has the path, this link, what comes after.

    >>> _split_chain("zip://a::file:///b.zip"), _split_chain("simplecache://::s3://bucket/a")
    (('', 'zip://a', '::file:///b.zip'), ('simplecache://::', 's3://bucket/a', ''))
    >>> _split_chain("zip://::file:///b.zip")
    ('', 'zip://', '::file:///b.zip')
    """
    here, _, rest = address.partition("::")
    if here.partition("://")[2] or not rest or here.partition("://")[0] in _ARCHIVES:
        return "", here, address[len(here) :]
    before, here, after = _split_chain(rest)
    return f"{address[: -len(rest)]}{before}", here, after


def _files_below(system: Any, path: str, given: str, recursive: bool) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Files of a folder with what is listed of them, and in words the folders inside that could not be listed."""
    if recursive and _lists_at_once(system):
        listed: dict[str, Mapping[str, Any]] = system.find(path, detail=True)
        return listed, []
    files: dict[str, Mapping[str, Any]] = {}
    problems: list[str] = []
    waiting = [(path, 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            entries = system.ls(path, detail=True) if folder == path else patiently(partial(system.ls, folder, True))
        except Exception as error:  # fsspec's own find passes over such a folder without a word
            if folder == path:
                raise
            place = shown(_address_of(system, folder, path, given))
            problems.append(f"{place}: cannot be listed ({short(error, folder)}); what lies in it is left out.")
            continue
        for entry in entries:
            name = entry["name"].rstrip("/")
            last = posixpath.basename(name)
            if name == folder.rstrip("/") or last.startswith("."):
                continue
            if entry["type"] != "directory":
                files[entry["name"]] = entry
            elif recursive and depth < _DEEPEST:
                waiting.append((name, depth + 1))
    return files, problems


def _lists_at_once(system: Any) -> bool:
    """Whether the file system has a way of its own to list all that lies below a folder, as object stores do."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(system)
    if isinstance(system, AsyncFileSystem):
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find


def _size(info: Mapping[str, Any]) -> int | None:
    size = info.get("size")
    return size if isinstance(size, int) else None


def _version(info: Mapping[str, Any]) -> str:
    """Size, time and digest of a file as far as its listing tells: each kind of store has names of its own for them."""
    said = {key.casefold(): value for key, value in info.items()}
    return " ".join(str(said[key]) for key in _VERSION if said.get(key) is not None)


def _place(address: str) -> Path:
    here, *others = links(address)
    kind, _, path = here.partition("://")
    around = (other.replace("://", "/").strip("/") for other in others)
    return Path("/", *around, kind, (unquote(path) if is_web(here) else path).lstrip("/"))


def _is_listing(address: str) -> bool:
    """Over HTTP every folder is a file too: the page that lists it."""
    return is_web(address) and posixpath.splitext(shown(address))[1].casefold() not in _LISTED


def _xml_names(address: str) -> list[str]:
    """Where the XML of a single photograph would be: beside it, and as VOC lays data sets out."""
    before, here, after = _split_chain(address)
    path, mark, query = here.partition("?") if is_web(here) else (here, "", "")
    folder, _, name = path.rpartition("/")
    stem = posixpath.splitext(name)[0]
    places = [f"{folder}/{stem}.xml", f"{folder}/{name}.xml"]
    if "/" in folder.partition("://")[2].strip("/"):  # the folder above is neither a bucket's nor a host's
        places.append(f"{folder.rpartition('/')[0]}/{ANNOTATION_FOLDERS[0]}/{stem}.xml")
    return [f"{before}{place}{mark}{query}{after}" for place in places]


def _is_file(head: bytes | Exception) -> TypeGuard[bytes]:
    """Whether that is the head of a file: some servers answer every address, with a page that says it is not there."""
    if isinstance(head, Exception):
        return False
    return not head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def _is_absent(error: Exception) -> bool:
    return isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError))
