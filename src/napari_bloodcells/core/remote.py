"""Files that lie elsewhere: ``s3://``, ``gs://``, ``https://`` and whatever else fsspec opens (extra ``remote``).

A file is read whole by the worker that counts it, and nothing is kept on this disk; ``remotefolder.py`` lists.  Nothing
goes out to a network unless the user gave an address.  Passwords and queries that stand in an address are left out of
every name and message.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from napari_bloodcells.core.errors import BloodcellsError, ImageError, UsageError
from napari_bloodcells.core.files import display_name

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"(?<=://)([^?\s]*)\?[^\s'\")]*")


def is_address(text: object) -> bool:
    r"""Whether ``text`` is the address of something remote.

    >>> is_address("s3://bucket/smears"), is_address("C:\\smears"), is_address("/data/a://b")
    (True, False, False)
    """
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def is_web(address: str) -> bool:
    """Whether an address is one of the web, where names are percent-encoded and may end with a query."""
    return address.partition("://")[0].casefold() in ("http", "https")


def shown(address: str) -> str:
    """The address without user, password and query.

    >>> shown("https://me:secret@host/a.jpg?token=x")
    'https://host/a.jpg'
    """
    return _SECRET.sub("", address).split("?")[0]


def file_name(address: str) -> str:
    """The name of the file at an address, fit for a message.

    >>> file_name("https://host/smears/field%201.jpg?token=x"), file_name("s3://bucket/50%20.jpg")
    ('field 1.jpg', '50%20.jpg')
    """
    name = posixpath.basename(shown(address).rstrip("/"))
    return display_name(unquote(name) if is_web(address) else name)


def read_remote(address: str, limit: int, error: type[BloodcellsError] = ImageError) -> bytes:
    """The bytes of one file, at most ``limit`` of them; raises ``error`` where it cannot be read."""
    name = file_name(address)
    system, path = opened(address)
    try:
        with system.open(path, "rb") as stream:
            data: bytes = stream.read(limit + 1)
    except Exception as problem:  # each file system raises errors of its own
        raise error(f"{name}: cannot be fetched ({short(problem, address, path)}).") from None
    if len(data) > limit:
        raise error(f"{name}: has more than the limit of {limit / 1e6:.0f} MB.")
    return data


def read_heads(addresses: Iterable[str], length: int) -> dict[str, bytes | Exception]:
    """The first ``length`` bytes or more of many files, many at a time; the error of each that cannot be read."""
    by_system: dict[int, tuple[Any, list[str], list[str]]] = {}
    for address in addresses:
        system, path = opened(address)
        group = by_system.setdefault(id(system), (system, [], []))
        group[1].append(address)
        group[2].append(path)
    heads: dict[str, bytes | Exception] = {}
    for system, given, paths in by_system.values():
        try:
            found = system.cat_ranges(paths, 0, length, on_error="return")
        except Exception as problem:
            found = [problem] * len(paths)
        heads.update(zip(given, found, strict=True))
    return heads


def opened(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises
    ------
    UsageError
        The extra or a part of it is missing, or this is no address.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(f"{shown(address)}: addresses need fsspec: pip install 'napari-bloodcells[remote]'.") from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs, aiohttp: one package for each kind of address
        kind = address.partition(":")[0]
        raise UsageError(f"{shown(address)}: {kind} addresses need one more package ({short(error)}).") from None
    except ValueError as error:
        raise UsageError(f"{shown(address)}: is no address that fsspec knows ({short(error)}).") from None
    except Exception as error:
        raise BloodcellsError(f"{shown(address)}: cannot be opened ({short(error)}).") from None
    return system, path


def short(error: Exception, *names: str) -> str:
    """An error of a file system in a few words: no secrets of an address, and none of ``names``, which may be long."""
    text = " ".join(str(error).split())
    for name in names:
        text = text.replace(name, file_name(name)) if name else text
    text = _QUERY.sub(r"\1", _SECRET.sub("", text)) or type(error).__name__
    if isinstance(error, FileNotFoundError) and text in {file_name(name) for name in names if name}:
        return "it is not there"
    return text if len(text) <= 120 else text[:117] + "..."
