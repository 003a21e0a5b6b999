"""What a report or an export is made from: the tables of one run, the class scheme, and a way to its images.

It comes either straight from ``count`` (``from_result``) or from a folder that ``count`` wrote (``from_folder``),
with or without a reviewer's corrections; what follows does not know which.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED, load_scheme, parse_scheme
from napari_bloodcells.core.counting.cellstable import (
    PROBABILITY_PREFIX,
    apply_corrections,
    check_cells,
    probability_columns,
    read_corrections,
)
from napari_bloodcells.core.counting.options import max_pixels_of
from napari_bloodcells.core.counting.output import find_table, read_table
from napari_bloodcells.core.errors import DataWarning, ImageError, UsageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.images import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.slides import Slide

Loader = Callable[[str], "NDArray[np.uint8] | Slide | None"]
"""From the name of an image in the tables to its pixels, (H, W, 3) uint8, or to an open slide, which the caller closes
(``views.py``); None where it cannot be had."""


def no_images(name: str) -> None:
    """A loader for when the images are not at hand: the report then shows no pictures."""
    return None


@dataclass(frozen=True)
class Absent:
    """Photographs that were counted, but that are not to be found, so that a report has no picture of them.

    Attributes
    ----------
    names : frozenset of str
        As the tables name them.
    why, remedy : str
        In words: where they were looked for, and what to do.
    """

    names: frozenset[str]
    why: str
    remedy: str


@dataclass(frozen=True)
class ReportInput:
    """Tables and means of one run.

    Attributes
    ----------
    cells, images : DataFrame
        As ``cells.csv`` and ``images.csv`` hold them.
    run : dict
        As ``run.json`` holds it; may be empty.
    scheme : ClassScheme
    confusion : (C, C) or (S, C, C) int64 or None
        Validation cells of the model, true class by row, in the order of the scheme; by source where it has several.
    load : Loader
    absent : Absent or None
        The photographs that are not where they were; None where all are, or where nobody looked.
    """

    cells: pd.DataFrame
    images: pd.DataFrame
    scheme: ClassScheme
    run: dict[str, Any] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    load: Loader = no_images
    absent: Absent | None = None


def from_result(result: Any, images: Loader | Mapping[str, Any] | Path | None = None, model: Any = None) -> ReportInput:
    """The input from a ``CountResult``.

    Parameters
    ----------
    result : CountResult
        Anything with ``cells``, ``images`` and ``run``, and perhaps ``model`` and ``root``.
    images : callable, mapping, folder or None
        From the names in the tables to pixels: a function, a mapping to arrays or paths, or the folder that the
        names are relative to; None for the folder that was counted.
    model : BundleInfo or None
        For the scheme and the confusion matrix; that of the result where None, and the scheme is read off the table
        where it has none.
    """
    model = getattr(result, "model", None) if model is None else model
    images = getattr(result, "root", None) if images is None else images
    scheme = getattr(model, "class_scheme", None) or scheme_of(result.cells)
    run = dict(result.run)
    load = loader(images, max_pixels_of(run))
    return ReportInput(result.cells, result.images, scheme, run, confusion_of(model), load)


def confusion_of(model: Any) -> NDArray[np.int64] | None:
    """The validation cells of a model as ``correct`` takes them: by source where it tells them, (S, C, C)."""
    whole, by_source = getattr(model, "confusion", None), getattr(model, "confusions", None) or {}
    if by_source:
        return np.asarray(list(by_source.values()), np.int64)
    return None if whole is None else np.asarray(whole, np.int64)


def from_folder(folder: Path, images: Path | None = None, corrections: Sequence[Path] = ()) -> ReportInput:
    """The input from a folder that ``count`` wrote, with a reviewer's corrections where given.

    Parameters
    ----------
    folder : Path
        Holds ``cells.csv``, ``images.csv`` (or both as Parquet or JSON) and ``run.json``.
    images : Path, optional
        The folder that was counted; taken from ``run.json`` where that names one which is there.
    corrections : sequence of Path
        Each a ``cells.csv`` exported by the report page or the plugin; of one cell the last correction holds.

    Raises
    ------
    UsageError, AnnotationError, OutputError
        The folder holds no count, a table is not sound, or a correction names a class that the run does not have.
    """
    import pandas as pd

    if (path := find_table(folder, "cells")) is None:
        raise UsageError(f"{folder.name}: holds no cells.csv; give the output folder of a count.")
    if images is not None and not images.is_dir():
        raise UsageError(f"{images}: no such folder; --images names the folder that was counted.")
    cells = read_table(path)
    check_cells(cells, f"{folder.name}/{path.name}")
    if (path := find_table(folder, "images")) is not None:
        table = read_table(path)
        if not {"image", "status"} <= set(table.columns):
            raise UsageError(f"{folder.name}/{path.name}: has no columns image and status; count again.")
    else:
        names = list(dict.fromkeys(cells["image"]))
        table = pd.DataFrame({"image": names, "status": ["ok"] * len(names)})
    run = _run_of(folder)
    base = images if images is not None else _counted_folder(run)
    found = with_model(ReportInput(cells, table, scheme_of(cells), run, None, loader(base, max_pixels_of(run))))
    as_counted, classes = cells, {str(name) for name in cells["class"]}
    for corrected in corrections:
        said = read_corrections(corrected, found.scheme, classes)
        cells = apply_corrections(cells, said, list(table["image"]), as_counted)
        check_cells(cells, corrected.name)
    return replace(found, cells=cells, absent=_absent(folder, table, base, run))


def _run_of(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says, nothing where there is none; ``UsageError`` where it is damaged."""
    path, name = folder / "run.json", f"{folder.name}/run.json"
    if not path.is_file():
        return {}
    try:
        run = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: is not JSON ({error}).") from error
    if not isinstance(run, dict):
        raise UsageError(f"{name}: is damaged (no JSON object); count again, or take it away.")
    return run


def _absent(folder: Path, images: pd.DataFrame, base: Path | None, run: Mapping[str, Any]) -> Absent | None:
    """The photographs that were read and are not below ``base``; why, and what to do."""
    read = [str(name) for name in images.loc[images["status"] == "ok", "image"]]
    gone = [name for name in read if base is None or (path := _inside(base, name)) is None or not path.exists()]
    if not gone:
        return None
    options, shown = run.get("options"), display_name(folder.resolve())
    if isinstance(options, dict) and options.get("anonymous"):
        why = f"{shown}: was counted without the names of its photographs"
        return Absent(frozenset(gone), why, "count again with --report")
    told = base or run.get("input")
    where = f"where they were ({told})" if told else "to be found (run.json names no folder)"
    why = f"{shown}: {len(gone)} of {len(read)} photographs are not {where}"
    return Absent(frozenset(gone), why, "give their folder with --images")


def _counted_folder(run: Mapping[str, Any]) -> Path | None:
    """Where the images of a run lie, if ``run.json`` says so and they are still there."""
    value = run.get("input")
    return Path(value) if isinstance(value, str) and Path(value).is_dir() else None


def with_model(found: ReportInput) -> ReportInput:
    """Scheme and confusion matrix of the model that counted: as the run keeps them (``BundleInfo.record``).

    A run that does not (of an earlier version) has those of the installed model, if that is the very one (by its hash).

    Raises
    ------
    UsageError
        What the run keeps is damaged.
    """
    model = found.run.get("model")
    if not isinstance(model, dict):
        return found
    if "scheme" in model:
        scheme = parse_scheme(model["scheme"], "run.json")
        return replace(found, scheme=scheme, confusion=_kept_confusion(model.get("confusion"), len(scheme)))
    wanted = model.get("sha256")
    if not wanted:
        return found
    from napari_bloodcells.core.bundle import installed_models

    for info in installed_models():
        if info.sha256 == wanted:
            return replace(found, scheme=info.class_scheme, confusion=confusion_of(info))
    return found


def _kept_confusion(value: Any, n: int) -> NDArray[np.int64] | None:
    """The validation cells that ``run.json`` keeps, of ``n`` classes."""
    if value is None:
        return None
    try:
        matrix = np.array(value, np.int64)
    except (ValueError, TypeError, OverflowError):
        matrix = np.empty(0, np.int64)
    if matrix.ndim not in (2, 3) or matrix.shape[-2:] != (n, n) or (matrix < 0).any():
        raise UsageError(f"run.json: the confusion of its model is no table of counts, {n} by {n}; count again.")
    return matrix


def scheme_of(cells: pd.DataFrame) -> ClassScheme:
    """The class scheme of a table, from its ``p_`` columns; colors, keys and kinds as the package knows them.

    Classes that the package does not know are taken for white cells: ``with_model`` knows better.
    """
    names = [name.removeprefix(PROBABILITY_PREFIX) for name in probability_columns(cells)]
    if not names:
        names = [str(n) for n in dict.fromkeys(cells["class"]) if n and n not in (UNIDENTIFIED, NOT_A_WBC)]
    known = {cell.name: cell for cell in load_scheme("pbc8").classes}
    listed: list[dict[str, Any]] = [
        {"name": n, "key": known[n].key, "color": known[n].color, "kind": known[n].kind} if n in known else {"name": n}
        for n in names
    ]
    return parse_scheme({"name": "table", "classes": listed or [{"name": "white blood cell"}]}, "cells.csv")


def loader(images: Loader | Mapping[str, Any] | Path | None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Loader:
    """A ``Loader`` from whatever a caller has (see ``from_result``); of files no more than ``max_pixels`` are read."""
    if images is None:
        return no_images
    if isinstance(images, Mapping):
        held = images
        return lambda name: _pixels(held.get(name), max_pixels)
    if isinstance(images, Path):
        root = images
        return lambda name: _pixels(_inside(root, name), max_pixels)
    return images


def _inside(root: Path, name: str) -> Path | None:
    """``name`` below ``root``; None for one that leads out of it (a table is not to be believed)."""
    path = root / name
    return path if path.resolve().is_relative_to(root.resolve()) or path.is_symlink() else None


def _pixels(source: Any, max_pixels: int) -> NDArray[np.uint8] | Slide | None:
    from napari_bloodcells.core.images import read_image
    from napari_bloodcells.core.slides import is_slide, open_slide

    if source is None or isinstance(source, np.ndarray):
        return source
    try:
        return open_slide(Path(source)) if is_slide(source) else read_image(Path(source), max_pixels=max_pixels)
    except (ImageError, OSError) as error:
        if Path(source).exists():  # one that is not there has no picture; one that is should have
            warnings.warn(f"{display_name(source)}: has no picture ({error})", DataWarning, stacklevel=2)
        return None
