"""Files that lie elsewhere: ``s3://``, ``gs://``, ``https://`` and whatever else fsspec opens (extra ``remote``).

A file is read whole by the worker that counts it, and nothing is kept on this disk; ``remotefolder.py`` lists.  What
fails for a reason that may pass (a lost connection, a server that is too busy) is tried again a few times.  Nothing
goes out to a network unless the user gave an address.  Passwords and queries that stand in an address are left out of
every name and message.
"""

from __future__ import annotations

import errno
import posixpath
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, TypeVar
from urllib.parse import unquote

from napari_bloodcells.core.errors import GO_ON, BloodcellsError, ImageError, OutageError, UsageError
from napari_bloodcells.core.files import display_name

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"(?<=://)([^?\s]*)\?[^\s'\")]*")

_T = TypeVar("_T")

NOT_NOW = "cannot be fetched now"
"""Says of a file, in an error and in the status of an image, that it may be there another time."""
WAITS = (0.5, 2.0, 8.0)
"""Seconds to wait before what failed for a reason that may pass is tried again."""
_BUSY = (408, 429)
"""Answers of a server, beside all from 500 on, that may be another the next time."""
_GONE = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED)
_PASSING = (*_GONE, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE)
_UNREACHED = frozenset({"ClientConnectorError", "ConnectionTimeoutError", "EndpointConnectionError", "gaierror"})
_LOST = _UNREACHED | {"ClientConnectionError", "ClientPayloadError", "HTTPClientError"}
"""Errors of aiohttp and botocore, neither of which is imported here."""


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


def links(address: str) -> list[str]:
    """The links of a chained address as ``shown`` has it: first the one that has the path of the file.

    >>> links("zip://a/1.jpg::s3://bucket/all.zip"), links("simplecache://::s3://bucket/1.jpg")
    (['zip://a/1.jpg', 's3://bucket/all.zip'], ['s3://bucket/1.jpg', 'simplecache://'])
    """
    parts = shown(address).split("::")
    return sorted(parts, key=lambda part: part.endswith("://"))


def file_name(address: str) -> str:
    """The name of the file at an address, fit for a message.

    >>> file_name("https://host/smears/field%201.jpg?token=x"), file_name("s3://bucket/50%20.jpg")
    ('field 1.jpg', '50%20.jpg')
    >>> file_name("zip://smears/2.jpg::file:///data/all.zip")
    '2.jpg'
    """
    name = posixpath.basename(links(address)[0].rstrip("/"))
    return display_name(unquote(name) if is_web(address) else name)


def read_remote(address: str, limit: int, error: type[BloodcellsError] = ImageError) -> bytes:
    """The bytes of one file, at most ``limit`` of them.

    Raises
    ------
    BloodcellsError
        ``error`` where it cannot be read; ``OutageError`` where its host is not even reached any more.
    """
    name = file_name(address)
    system, path = opened(address)

    def fetched() -> bytes:
        with system.open(path, "rb") as stream:
            data: bytes = stream.read(limit + 1)
        return data

    try:
        data = patiently(fetched)
    except Exception as problem:  # each file system raises errors of its own
        why = short(problem, address, path)
        if any(_is_one(cause, _UNREACHED, _GONE) for cause in _causes(problem)):
            raise OutageError(f"{name}: its host cannot be reached ({why}): {GO_ON}.") from None
        told = NOT_NOW if may_pass(problem) else "cannot be fetched"
        raise error(f"{name}: {told} ({why}).") from None
    if len(data) > limit:
        raise error(f"{name}: has more than the limit of {limit / 1e6:.0f} MB.")
    return data


def read_heads(addresses: Iterable[str], length: int) -> dict[str, bytes | Exception]:
    """The first ``length`` bytes or more of many files, many at a time; the error of each that cannot be read."""

    def fetched(system: Any, paths: list[str]) -> list[bytes | Exception]:
        try:
            found: list[bytes | Exception] = system.cat_ranges(paths, 0, length, on_error="return")
        except Exception as problem:
            found = [problem] * len(paths)
        return found

    by_system: dict[int, tuple[Any, list[str], list[str]]] = {}
    for address in addresses:
        system, path = opened(address)
        group = by_system.setdefault(id(system), (system, [], []))
        group[1].append(address)
        group[2].append(path)
    heads: dict[str, bytes | Exception] = {}
    for system, given, paths in by_system.values():
        found = fetched(system, paths)
        for wait in WAITS:
            again = [i for i, head in enumerate(found) if isinstance(head, Exception) and may_pass(head)]
            if not again:
                break
            time.sleep(wait)
            for i, head in zip(again, fetched(system, [paths[i] for i in again]), strict=True):
                found[i] = head
        heads.update(zip(given, found, strict=True))
    return heads


def patiently(fetch: Callable[[], _T]) -> _T:
    """What ``fetch`` returns; it is called again, after ever longer ``WAITS``, while it fails for what may pass."""
    for wait in WAITS:
        try:
            return fetch()
        except Exception as problem:
            if not may_pass(problem):
                raise
        time.sleep(wait)
    return fetch()


def may_pass(error: Exception) -> bool:
    """Whether it may go well the next time: a lost connection, a time-out, a server that is too busy or broken.

    >>> may_pass(TimeoutError()), may_pass(PermissionError()), may_pass(FileNotFoundError())
    (True, False, False)
    """
    causes = _causes(error)
    answers = [answer for cause in causes if (answer := _answer(cause)) is not None]
    if answers:
        return answers[-1] in _BUSY or answers[-1] >= 500
    lost = any(isinstance(cause, (ConnectionError, TimeoutError)) for cause in causes)
    return lost or any(_is_one(cause, _LOST, _PASSING) for cause in causes)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from: fsspec says of any answer of a web server that there is no such file."""
    causes = [error]
    while len(causes) < 8 and (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def _is_one(error: BaseException, names: frozenset[str], numbers: tuple[int, ...]) -> bool:
    named = any(kind.__name__ in names for kind in type(error).__mro__)
    return named or (isinstance(error, OSError) and error.errno in numbers)


def _tells_more(cause: BaseException) -> TypeGuard[Exception]:
    """Whether a cause says why there is no such file: the host was not reached, or has another reason."""
    return _is_one(cause, _LOST, _PASSING) or _answer(cause) not in (None, 404, 410)


def _answer(error: BaseException) -> int | None:
    """The status of HTTP that an error tells of, as aiohttp, requests, botocore, gcsfs or Azure have it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata")
    answer = response.get("HTTPStatusCode") if isinstance(response, dict) else getattr(response, "status_code", None)
    for name in ("status", "status_code", "code"):
        answer = getattr(error, name, None) if answer is None else answer
    return answer if isinstance(answer, int) and 100 <= answer < 600 else None


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
    if isinstance(error, FileNotFoundError):  # fsspec says so of a host that is not reached, too
        error = next((cause for cause in _causes(error)[1:] if _tells_more(cause)), error)
    text = " ".join(str(error).split())
    for name in names:
        text = text.replace(name, file_name(name)) if name else text
    text = _QUERY.sub(r"\1", _SECRET.sub("", text)) or type(error).__name__
    if isinstance(error, FileNotFoundError) and text in {file_name(name) for name in names if name}:
        return "it is not there"
    return text if len(text) <= 120 else text[:117] + "..."
