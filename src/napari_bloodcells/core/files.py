"""Reading and writing files that nobody checked: no hang on a pipe, no endless file, no half-written result.

``read_regular`` is the one door through which annotation and image files come in; ``write_atomic`` is the one through
which annotation files go out; ``natural_key`` is the one order of file names (``field 9`` before ``field 10``).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from napari_bloodcells.core.errors import BloodcellsError, DiskError, OutputError

PART = ".part-"
"""How the names of half-written files begin; ``runlock.py`` removes those that a killed run left."""
_F = TypeVar("_F", bound=Callable[..., Any])
_DIGITS = re.compile(r"(\d{1,1000})")


def display_name(path: Path | str) -> str:
    r"""The last part of ``path`` fit for a one-line message: control characters and broken Unicode are escaped.

    >>> display_name("folder/two\nlines.jpg")
    'two\\nlines.jpg'
    """
    return printable(os.path.basename(os.fspath(path)) or os.fspath(path))


def printable(text: str) -> str:
    r"""``text`` fit for a one-line message: control characters and broken Unicode are escaped.

    >>> printable("folder/two\nlines.jpg")
    'folder/two\\nlines.jpg'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def keeps_path(function: _F) -> _F:
    """Decorator: an error of ``function``, whose first argument is a path, knows it (``BloodcellsError.path``)."""

    @functools.wraps(function)
    def told(path: Path | str, *more: Any, **named: Any) -> Any:
        try:
            return function(path, *more, **named)
        except BloodcellsError as error:
            error.path = error.path or Path(path)
            raise

    return cast(_F, told)


def whole_text(error: BloodcellsError, root: Path | None = None) -> str:
    """The text of ``error`` with the path of its file instead of the name alone: of many folders, which ``1.jpg``.

    Below ``root`` the path is told from there.

    >>> error = BloodcellsError("1.jpg: is empty (0 bytes).")
    >>> error.path = Path("smears/patient 7/1.jpg")
    >>> whole_text(error)
    'smears/patient 7/1.jpg: is empty (0 bytes).'
    >>> whole_text(error, Path("smears"))
    'patient 7/1.jpg: is empty (0 bytes).'
    """
    text, place = str(error), error.path
    if place is None:
        return text
    name = f"{' '.join(display_name(place).split())}:"  # as an error joins the words of its text
    if root is not None and place.is_relative_to(root):
        place = place.relative_to(root)
    return f"{printable(str(place))}:{text.removeprefix(name)}" if text.startswith(name) else text


def natural_key(path: Path | str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sort key of a path in the order a person expects, the same for both Unicode normal forms.

    >>> sorted(["b10.jpg", "b9.jpg", "B1.jpg"], key=natural_key)
    ['B1.jpg', 'b9.jpg', 'b10.jpg']
    """

    def part_key(part: str) -> tuple[tuple[int, int, str], ...]:
        text = unicodedata.normalize("NFC", part)
        pieces = [(0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in _DIGITS.split(text)]
        return (*pieces, (2, 0, part))  # the name itself last: two names never have the same key

    return tuple(part_key(part) for part in Path(path).parts)


@keeps_path
def check_regular(path: Path | str, error: type[BloodcellsError]) -> int:
    """Size in bytes of the regular file ``path``; raises ``error`` for a folder, pipe, device or dangling link."""
    name = display_name(path)
    try:
        status = os.stat(path)
    except OSError as problem:
        if os.path.islink(path):
            loop = problem.errno == errno.ELOOP
            raise error(f"{name}: is a link {'in a loop' if loop else 'to a file that is not there'}.") from None
        raise error(f"{name}: cannot be opened: {_reason(problem)}.") from None
    except ValueError:  # a null byte in the name
        raise error(f"{name}: is no possible file name.") from None
    if stat.S_ISDIR(status.st_mode):
        readable = os.access(path, os.R_OK | os.X_OK)
        raise error(f"{name}: is a folder{'' if readable else ' that may not be read'}, not a file.")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{name}: is a pipe or device, not a file.")
    return status.st_size


@keeps_path
def read_regular(path: Path | str, limit: int, error: type[BloodcellsError]) -> bytes:
    """The bytes of ``path``; raises ``error`` if it is no file, is empty, unreadable or over ``limit`` bytes."""
    name = display_name(path)
    size = check_regular(path, error)
    if size > limit:
        raise error(f"{name}: has {size / 1e6:.0f} MB, more than the limit of {limit / 1e6:.0f} MB.")
    if size == 0:
        raise error(f"{name}: is empty (0 bytes).")
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as problem:
        raise error(f"{name}: cannot be read: {_reason(problem)}.") from None


def make_folder(folder: Path | str) -> Path:
    """Make ``folder`` and those above it where they are missing, and return it; every output begins here.

    Raises
    ------
    OutputError
        If it cannot be made; the text names it and says why.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(
            f"{os.fspath(folder)}: no folder can be made there ({_reason(problem)}); choose another one."
        ) from None
    return folder


def check_new_folder(folder: Path | str) -> None:
    """``OutputError`` where ``folder`` is a file or holds something: nothing of the user's is written over."""
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise OutputError(f"{display_name(place)}: is already there and is not overwritten; give a new folder with -o.")


@keeps_path
def write_atomic(path: Path | str, data: bytes, *, overwrite: bool = False) -> Path:
    """Write ``data`` to ``path`` so that the file is there whole or not at all, and return the path.

    Raises
    ------
    OutputError
        If the file exists and ``overwrite`` is false.
    DiskError
        If it cannot be written; what was there before is untouched.
    """
    path = Path(path)
    name = display_name(path)
    if not overwrite and os.path.lexists(path):
        raise OutputError(
            f"{name}: is already there and is not overwritten; choose another name or allow overwriting (--overwrite)."
        )
    try:
        handle, temporary = tempfile.mkstemp(prefix=PART, dir=path.parent)
    except OSError as problem:
        raise DiskError(f"{name}: cannot be written: {_reason(problem)}.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        if overwrite:
            os.replace(temporary, path)
        else:
            claim(temporary, path)
    except FileExistsError:
        raise OutputError(f"{name}: appeared while it was being written; it is not overwritten.") from None
    except OSError as problem:
        raise DiskError(f"{name}: cannot be written: {_reason(problem)}.") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return path


@contextlib.contextmanager
def kept_for_resume() -> Iterator[None]:
    """Say in every ``DiskError`` of the block how to go on, for a run that ``--resume`` takes up again."""
    try:
        yield
    except DiskError as error:
        raise DiskError(f"{error} What was finished is kept: make room and go on with --resume.") from None


def remove_parts(folder: Path, *prefixes: str) -> None:
    """Remove the half-written files that a killed process left in ``folder``; only for who has it for himself."""
    for half in folder.iterdir():
        if half.name.startswith(prefixes):
            with contextlib.suppress(OSError):
                half.unlink()


def claim(temporary: str, path: Path) -> None:
    """Give the finished file ``temporary`` the name ``path``; ``FileExistsError`` where that name is taken.

    A link does both in one step where links exist.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (FAT, some network drives)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _reason(problem: OSError) -> str:
    return (problem.strerror or str(problem)).lower()
