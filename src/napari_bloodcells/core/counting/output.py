"""The output folder of a count: checked before anything is done, written at the end, never over a former result.

``cells``, ``images`` and ``differential`` as CSV, Parquet or JSON, and ``run.json``; each file appears under its name
whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.counting.cellstable import (
    REVIEW_COLUMNS,
    cell_columns,
    cells_csv,
    header_names,
    neutralize_frame,
    read_cells,
    restore,
)
from napari_bloodcells.core.counting.former import remove_former
from napari_bloodcells.core.counting.jobs import given
from napari_bloodcells.core.counting.shards import PARTIAL, PLAN, check_same_run, write_or_tell
from napari_bloodcells.core.differential import slides_in
from napari_bloodcells.core.errors import BloodcellsError, OutputError, UsageError
from napari_bloodcells.core.files import make_folder
from napari_bloodcells.core.remote import is_address, opened, shown

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.counting.jobs import Sources
    from napari_bloodcells.core.counting.options import CountOptions
    from napari_bloodcells.core.counting.result import CountResult

FORMATS = ("csv", "parquet", "json")
RUN = "run.json"
TABLES = ("cells", "images", "differential")
DEFAULT_SUFFIX = "-differential"


def default_output(paths: Sequence[str]) -> Path:
    """``FOLDER-differential`` beside the folder that is counted, or that holds the first file; here for an address.

    >>> default_output(["/data/smears"]).as_posix(), default_output(["s3://bucket/smears"]).as_posix()
    ('/data/smears-differential', 'smears-differential')
    """
    if is_address(paths[0]):
        return Path(f"{shown(paths[0]).rstrip('/').rpartition('/')[2] or 'images'}{DEFAULT_SUFFIX}")
    first = Path(os.path.abspath(paths[0]))
    folder = first if first.is_dir() or not first.suffix else first.parent
    return folder.with_name(f"{folder.name or 'images'}{DEFAULT_SUFFIX}")


def check_output(output: Path, sources: Sources, options: CountOptions, images: Collection[str] = ()) -> None:
    """Make the output folder, or refuse it.

    Parameters
    ----------
    output : Path
    sources : path, array, iterable of these (no iterator), or mapping
        What is counted, as it was given.
    options : CountOptions
    images : collection of str
        The files that were found there; through links they may lie elsewhere.

    Raises
    ------
    UsageError
        It lies inside of the input or is the folder of a given file, the format is unknown, or it holds results: those
        of a run, where neither ``overwrite`` nor ``resume`` was said, with ``resume`` tables of no run, or cells that
        a person reviewed and that would be written over.
    OutputError
        It cannot be made or written.
    """
    if options.format not in FORMATS:
        raise UsageError(f"format must be {', '.join(FORMATS)}, not {options.format!r}.")
    try:
        _check_output(output, sources, options, images)
    except OSError as error:
        raise OutputError(f"{output}: cannot be looked into ({error.strerror}); give another one with -o.") from None
    make_folder(output)


def _check_output(output: Path, sources: Sources, options: CountOptions, images: Collection[str]) -> None:
    place = Path(os.path.realpath(output))
    folders, beside = _folders(sources, images)
    for folder in folders | beside:
        if place == folder or (folder in folders and folder in place.parents):
            raise UsageError(
                f"{output}: lies inside of the images' folder, where nothing is written; give another one with -o."
            )
    if place.exists() and not place.is_dir():
        raise UsageError(f"{output}: is a file; give a folder with -o.")
    finished = [name for name in (RUN, *_table_names()) if (place / name).exists()]
    if finished and not options.overwrite and not options.resume:
        raise UsageError(
            f"{output}: holds the results of a run ({finished[0]}), which are not overwritten; "
            "give another folder with -o, or say --overwrite."
        )
    if finished and not options.overwrite and RUN not in finished and not (place / PARTIAL / PLAN).exists():
        raise UsageError(
            f"{output}: holds {finished[0]}, but no run to go on with; give another folder with -o, or say --overwrite."
        )
    rewritten = options.overwrite or (place / PARTIAL / PLAN).exists()
    if rewritten and (reviewed := _reviewed_table(place)) is not None:
        raise UsageError(f"{output}: {_kept(reviewed)} with -o.")


def _reviewed_table(folder: Path) -> Path | None:
    """The table of cells in an output folder that has a column of a review, which no count writes."""
    tables = (folder / f"cells.{suffix}" for suffix in FORMATS)
    return next((path for path in tables if path.is_file() and _is_reviewed(_columns(path))), None)


def _is_reviewed(columns: Iterable[str]) -> bool:
    return not set(REVIEW_COLUMNS).isdisjoint(columns)


def _columns(path: Path) -> set[str]:
    """The columns of a table of cells, also where another program saved it; none where it cannot be read."""
    try:
        if path.suffix != ".csv":
            return {str(name) for name in read_table(path)}
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return header_names(file.readline().replace("\0", ""))  # "Unicode text" of Excel is UTF-16
    except (OSError, BloodcellsError, ImportError):  # no pyarrow
        return set()


def _kept(reviewed: Path) -> str:
    """Why a reviewed table stays, and what to do."""
    held = f"{reviewed.name} holds the classes of a reviewer, which are not overwritten"
    return f"{held}; move it away, or give another folder"


def _table_names() -> list[str]:
    return [f"{table}.{suffix}" for table in TABLES for suffix in FORMATS]


def _folders(sources: Sources, images: Collection[str]) -> tuple[set[Path], set[Path]]:
    """The folders that are counted, also those behind links, and those in which single files lie."""
    paths = [path for e in given(sources) if isinstance(e, (str, Path)) and (path := _here(e)) is not None]
    folders = {path for path in paths if path.is_dir()}
    beside = {path.parent for path in paths if not path.is_dir()}
    beside |= {Path(os.path.realpath(image)).parent for image in images if os.path.islink(image)}
    for folder in {Path(image).parent for image in images}:
        above = [folder, *folder.parents]
        top = next((n for n, each in enumerate(above) if each in folders), 0)
        folders.update(above[:top])
    return {Path(os.path.realpath(each)) for each in folders}, {Path(os.path.realpath(each)) for each in beside}


def _here(source: str | Path) -> Path | None:
    """The place of a source on this machine, None where it is remote."""
    if not is_address(source):
        return Path(source)
    local = str(source).partition("://")[0] in ("file", "local")
    return Path(opened(str(source))[1]) if local else None


def write_tables(result: CountResult, folder: Path, format: str = "csv", *, overwrite: bool = False) -> Path:
    """Write the tables and ``run.json`` into ``folder``, which is made where it is missing; return it.

    With ``overwrite`` the tables of a former run in another format are removed: its ``run.json`` tells which.  So are
    its report pages and overlays (``former.py``).  A reviewer's cells are written over by a result with a review of
    its own (``apply_corrections``), and by no other.

    Raises
    ------
    OutputError
        A file is there already and ``overwrite`` is False, cells there were reviewed and those of ``result`` were not,
        or a file cannot be written.

    Warns
    -----
    DataWarning
        For exports of the former run, which stay.
    """
    names = [f"{table}.{format}" for table in TABLES] + [RUN]
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder}: holds {there[0]} already, which is not overwritten; give another folder.")
    if overwrite and not _is_reviewed(result.cells.columns) and (reviewed := _reviewed_table(folder)) is not None:
        raise OutputError(f"{folder}: {_kept(reviewed)}.")
    make_folder(folder)
    former = _run_in(folder)
    if former is not None and former != json.loads(json.dumps(result.run, default=str)):  # not of this very run
        remove_former(folder, _images_in(folder, former), slides_in(former))
    tables = (result.cells, result.images, result.differentials)
    for name, table in zip(names[:3], tables, strict=True):
        write_or_tell(folder / name, table_bytes(table, format, cells=name.startswith("cells")))
    if former is not None and (other := _format_of(former)) not in (None, format):
        for stem in TABLES:
            with contextlib.suppress(OSError):
                (folder / f"{stem}.{other}").unlink()
    write_or_tell(folder / RUN, (json.dumps(result.run, indent=1, default=str) + "\n").encode())
    return folder


def _run_in(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run of this program; None where there was none."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        ours = isinstance(run.get("fingerprint"), dict) or "napari-bloodcells" in run["versions"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return run if ours else None


def _format_of(run: Mapping[str, Any]) -> str | None:
    """The format of the tables that a run wrote by itself; None where it kept nothing on disk."""
    options = run.get("options")
    found = options.get("format") if isinstance(options, dict) and isinstance(run.get("fingerprint"), dict) else None
    return found if found in FORMATS else None


def _images_in(folder: Path, run: Mapping[str, Any]) -> list[str]:
    """The images that the tables of a run name; none where its table cannot be read."""
    path = find_table(folder, "images", _format_of(run) or "csv")
    try:
        return [] if path is None else [str(name) for name in read_table(path)["image"]]
    except (BloodcellsError, KeyError, ValueError):
        return []


def read_finished(
    folder: Path, fingerprint: dict[str, Any], format: str
) -> tuple[Any, Any, Any, dict[str, Any]] | None:
    """The tables and ``run.json`` of a run that is finished already; None where it is not.

    Raises
    ------
    OutputError
        The results there are of another run, or cannot be read.
    UsageError
        They lie there in another format.
    """
    if (folder / PARTIAL / PLAN).exists() or not (folder / RUN).exists():
        return None
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        former = run["fingerprint"]
        if not isinstance(former, dict):
            raise ValueError("no fingerprint")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder / RUN}: is damaged; give another folder with -o.") from error
    check_same_run(folder, former, json.loads(json.dumps(fingerprint)))
    files = [find_table(folder, name, format) or folder / f"{name}.{format}" for name in TABLES]
    if other := next((file.suffix[1:] for file in files if file.suffix != f".{format}"), ""):
        raise UsageError(
            f"{folder}: is finished, with its tables as {other}, not {format}; say --format {other}, or count again "
            "with --overwrite or into another folder (-o)."
        )
    cells, images, differential = (read_table(file) for file in files)
    return cells, images, differential, run


def find_table(folder: Path, name: str, format: str = "csv") -> Path | None:
    """The table ``name`` (of ``TABLES``) in an output folder: in ``format``, else in any other; None without one."""
    files = (folder / f"{name}.{suffix}" for suffix in (format, *FORMATS))
    return next((file for file in files if file.is_file()), None)


def image_root(folder: Path, run: Mapping[str, Any], names: Sequence[str]) -> Path | None:
    """The folder that the ``names`` of images in the tables of ``folder`` are relative to; None where it is not found.

    Told by the ``run`` (``input`` in ``run.json``), else the folder itself, the one it was named after
    (``smears-differential``), or the one above.
    """
    told = run.get("input")
    here = folder.resolve()
    candidates = [Path(told)] if isinstance(told, str) and told else []
    candidates += [here, here.with_name(here.name.removesuffix(DEFAULT_SUFFIX) or here.name), here.parent]
    return next((place for place in candidates if any((place / name).is_file() for name in names[:20])), None)


def read_table(path: Path) -> pd.DataFrame:
    """A table that ``write_tables`` wrote, as it was counted."""
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".json":
            return _json_table(path)
        if path.stem == "cells":
            return read_cells(path)
        texts = ["image", "sample", "status", "problems", "warnings"]  # also where all of a column are numbers (007)
        how: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "encoding_errors": "surrogateescape"}
        table: pd.DataFrame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), **how)
        texts = [name for name in texts if name in table]
        return table.assign(**{name: [restore(str(v)) if v == v else "" for v in table[name]] for name in texts})
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read ({error}).") from error


def _json_table(path: Path) -> pd.DataFrame:
    """A list of rows as a table; ``pandas.read_json`` would make numbers of names such as 001, and dates of others."""
    import pandas as pd

    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of rows")
    if not rows and path.stem == "cells":
        return pd.DataFrame(columns=cell_columns([]))
    table = pd.DataFrame(rows)
    empty = [name for name in table if table[name].isna().all()]  # of numbers, as text is never missing
    return table.astype(dict.fromkeys(empty, "float64"))


def table_bytes(table: pd.DataFrame, format: str, *, cells: bool = False) -> bytes:
    """A table as the bytes of a CSV, Parquet or JSON (one list of rows) file."""
    if format == "parquet":
        try:
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
        except ImportError:
            raise UsageError(
                "format parquet needs pyarrow: pip install 'napari-bloodcells[parquet]', or take --format csv."
            ) from None
        return buffer.getvalue()
    if format == "json":
        records: str = table.to_json(orient="records", indent=1, double_precision=6, force_ascii=True)
        return (records + "\n").encode()
    text = cells_csv(table) if cells else neutralize_frame(table).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8", "surrogateescape")


def versions() -> dict[str, str]:
    """Versions of this package and of what its numbers depend on."""
    import platform

    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("napari-bloodcells", "torch", "numpy", "pandas", "pillow", "scipy", "scikit-image", "tifffile"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
