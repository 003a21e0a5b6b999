"""The public data sets by name: whose they are, how to get them, and how to know that a copy is whole.

``registry/sources.json`` lists them.  Only BCCD lies open as single files, so only BCCD is downloaded (pooch, each file
checked against its SHA-256 in ``registry/bccd.txt``); the others ask for a login, a form or a click, and the
registry says where.  A local mirror of any of them is copied and checked against one digest: the SHA-256 over the
sorted lines ``sha256  path`` of its files (``python -m benchmarks.data.digest DATA`` gives it again).  The digests of
``kaggle``, ``pbc`` and others are those of smaller re-encoded copies, as ``note`` says: originals are used as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from napari_bloodcells.core.errors import DataSetError, UsageError
from napari_bloodcells.core.files import display_name, make_folder


@dataclass(frozen=True)
class Source:
    """One public data set.

    Attributes
    ----------
    name : str
        Short name, and the folder's.
    title : str
        What it is, and from where.
    license : str
        As its authors state it.
    home : str
        Page of the authors, or their name and year where it has none.
    url : str or None
        Where its files can be downloaded one by one; None where they cannot.
    note : str
        How to get it by hand, or what the known copy is.
    files : int
        Number of files of the known copy.
    digest : str
        SHA-256 over the sorted lines ``sha256  path`` of the known copy.
    """

    name: str
    title: str
    license: str
    home: str
    url: str | None
    note: str
    files: int
    digest: str


@lru_cache(maxsize=1)
def sources() -> tuple[Source, ...]:
    """All public data sets that are known by name."""
    text = (_registry() / "sources.json").read_text("utf-8")
    return tuple(Source(**entry) for entry in json.loads(text)["sources"])


def find_source(name: str) -> Source:
    """The data set of that name; raises ``UsageError`` with the names there are."""
    for source in sources():
        if source.name == name.casefold():
            return source
    raise UsageError(f"{name}: no such data set; there are {', '.join(s.name for s in sources())}.")


def fetch(
    name: str, output: Path, *, mirror: Path | None = None, advance: Callable[[int], None] = lambda n: None
) -> Path:
    """Bring a public data set into the new folder ``output``, checked file by file.

    Parameters
    ----------
    name : str
        Name of the data set.
    output : Path
        The folder that will hold it; it must not exist, except for a download that was broken off.
    mirror : Path, optional
        A folder with a copy of the data set (or with a folder of that name in it); without one it is downloaded.
    advance : callable
        Told the number of files done.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    UsageError
        If there is no data set of that name.
    DataSetError
        If it cannot be downloaded, a file does not have its known SHA-256, or ``output`` is taken.
    """
    source = find_source(name)
    output = Path(output)
    if mirror is not None:
        return _copy(source, Path(mirror), output, advance)
    if source.url is None:
        raise DataSetError(f"{name}: cannot be downloaded by a program. {source.note} From: {source.home}")
    return _download(source, source.url, output, advance)


def known_files(name: str) -> dict[str, str]:
    """Path to SHA-256 of each file that can be downloaded."""
    lines = (_registry() / f"{name}.txt").read_text("utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def folder_digest(folder: Path, advance: Callable[[int], None] = lambda n: None) -> tuple[int, str]:
    """Number of files in ``folder`` and the SHA-256 over the sorted lines ``sha256  path`` of them."""
    lines = []
    for path in sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix()):
        lines.append(f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n")
        advance(1)
    return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(source: Source, url: str, output: Path, advance: Callable[[int], None]) -> Path:
    import pooch

    known = known_files(source.name)
    others = [path for path, digest in known.items() if _is_another(output / path, digest)]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise DataSetError(
            f"{display_name(output)}: {', '.join(others[:3])}{more} are there with other contents than those published "
            "and are not overwritten; choose a new folder, or move them away."
        )
    store = pooch.create(path=output, base_url=url, registry={path: f"sha256:{h}" for path, h in known.items()})
    pooch.get_logger().setLevel("ERROR")
    for path in known:
        try:
            store.fetch(path)
        except (OSError, ValueError) as problem:  # no network, or another content than the known one
            text = " ".join(str(problem).split())[:200]
            raise DataSetError(f"{source.name}: {path} could not be downloaded: {text}") from None
        advance(1)
    return output


def _is_another(path: Path, digest: str) -> bool:
    """Whether something else than the known file stands at ``path``; pooch would replace it."""
    return path.exists() and not (path.is_file() and file_digest(path) == digest)


def _copy(source: Source, mirror: Path, output: Path, advance: Callable[[int], None]) -> Path:
    folder = mirror / source.name if (mirror / source.name).is_dir() else mirror
    if not folder.is_dir():
        raise DataSetError(f"{display_name(mirror)}: no such folder of data.")
    if output.exists():
        raise DataSetError(f"{display_name(output)}: is already there and is not overwritten; choose a new folder.")
    make_folder(output.parent)
    part = Path(tempfile.mkdtemp(prefix=f".part-{source.name}-", dir=output.parent))
    try:
        shutil.copytree(folder, part, dirs_exist_ok=True, copy_function=shutil.copyfile)
        number, digest = folder_digest(part, advance)
        if digest != source.digest:
            raise DataSetError(
                f"{display_name(folder)}: is not the known copy of {source.name} ({number} files of {source.files}, or "
                "other contents); nothing was copied. The authors' original can be used as it is, from its own folder."
            )
        os.chmod(part, 0o755)
        part.rename(output)
    except (OSError, shutil.Error) as problem:
        raise DataSetError(f"{display_name(output)}: cannot be written: {problem}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return output


def _registry() -> Path:
    return Path(str(files("napari_bloodcells.core.datasets") / "registry"))
