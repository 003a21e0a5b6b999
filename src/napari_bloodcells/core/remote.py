"""Images that lie elsewhere: ``s3://``, ``gs://``, ``https://`` and whatever else fsspec opens (extra ``remote``).

A folder's listing and the files come through fsspec; each file is read whole by the worker that counts it, and nothing
is kept on this disk.  Nothing goes out to a network unless the user gave an address.  Passwords that stand in an
address are left out of every name and message.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from napari_bloodcells.core.errors import BloodcellsError, ImageError, UsageError
from napari_bloodcells.core.files import natural_key
from napari_bloodcells.core.find import IMAGE_SUFFIXES

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/@]*@")


def is_address(text: object) -> bool:
    r"""Whether ``text`` is the address of something remote.

    >>> is_address("s3://bucket/smears"), is_address("C:\\smears"), is_address("/data/a://b")
    (True, False, False)
    """
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def shown(address: str) -> str:
    """The address without user, password and query.

    >>> shown("https://me:secret@host/a.jpg?token=x")
    'https://host/a.jpg'
    """
    return _SECRET.sub("", address).split("?")[0]


def list_images(address: str, recursive: bool = True) -> dict[str, str]:
    """The images below an address: name in the tables to address, in natural order; a file is its own listing.

    Raises
    ------
    UsageError
        The extra or a part of it is missing, or there is nothing at this address.
    """
    system, path = _opened(address)
    try:
        if system.isfile(path) and not _is_listing(system, path):
            return {posixpath.basename(shown(address)): address}
        found = system.find(path) if recursive else list(system.ls(path, detail=False))
    except Exception as error:  # each file system raises errors of its own
        raise UsageError(f"{shown(address)}: cannot be listed ({_short(error)}).") from None
    images = [name for name in found if posixpath.splitext(name)[1].casefold() in IMAGE_SUFFIXES]
    root = path.rstrip("/")
    listed = {name[len(root) :].lstrip("/") if name.startswith(root) else name: name for name in images}
    return {
        name: system.unstrip_protocol(listed[name])
        for name in sorted(listed, key=natural_key)
        if not any(part.startswith(".") for part in name.split("/"))
    }


def read_remote(address: str, limit: int) -> bytes:
    """The bytes of one file, at most ``limit`` of them; raises ``ImageError`` where it cannot be read."""
    name = posixpath.basename(shown(address))
    system, path = _opened(address)
    try:
        with system.open(path, "rb") as stream:
            data: bytes = stream.read(limit + 1)
    except Exception as error:  # each file system raises errors of its own
        raise ImageError(f"{name}: cannot be fetched ({_short(error)}).") from None
    if len(data) > limit:
        raise ImageError(f"{name}: has more than the limit of {limit / 1e6:.0f} MB.")
    return data


def _opened(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(f"{shown(address)}: addresses need fsspec: pip install 'napari-bloodcells[remote]'.") from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs, aiohttp: one package for each kind of address
        kind = address.partition(":")[0]
        raise UsageError(f"{shown(address)}: {kind} addresses need one more package ({_short(error)}).") from None
    except ValueError as error:
        raise UsageError(f"{shown(address)}: is no address that fsspec knows ({_short(error)}).") from None
    except Exception as error:
        raise BloodcellsError(f"{shown(address)}: cannot be opened ({_short(error)}).") from None
    return system, path


def _is_listing(system: Any, path: str) -> bool:
    """Over HTTP every folder is a file too: the page that lists it."""
    return "http" in str(system.protocol) and posixpath.splitext(path)[1].casefold() not in IMAGE_SUFFIXES


def _short(error: Exception) -> str:
    text = _SECRET.sub("", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
