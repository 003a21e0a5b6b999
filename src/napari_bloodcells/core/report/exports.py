"""A finished count written in the form that another program takes: one function per form, chosen by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.counting.cells import OK
from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.core.differential import WHOLE_FOLDER, Differential, differentials, slides_in
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import make_folder, write_atomic
from napari_bloodcells.core.report.annotations import coco, geojson, image_sizes
from napari_bloodcells.core.report.content import Content, ReportOptions, page_content
from napari_bloodcells.core.report.inputs import ReportInput
from napari_bloodcells.core.report.page import cut, head_of, sample_name
from napari_bloodcells.core.report.sprites import Pictures
from napari_bloodcells.core.report.views import view_of
from napari_bloodcells.core.statistics.reference import check_one_patient


def export(
    data: ReportInput, form: str, folder: Path | str, *, options: ReportOptions | None = None, overwrite: bool = False
) -> list[Path]:
    """Write a count as ``form`` (a name of ``FORMS``) into ``folder``; return the files.

    Raises
    ------
    UsageError
        There is no such form, the package that it needs is missing, or ``options.wbc`` was given to FHIR of several
        samples.
    OutputError
        A file is there already and ``overwrite`` is False, or cannot be written.
    """
    if form not in FORMS:
        raise UsageError(f"{form}: no such format; there are {', '.join(FORMS)}.")
    folder = make_folder(folder)
    if form == "voc":
        return _voc(data, folder, overwrite)
    written = FORMS[form](data, folder, options or ReportOptions())
    return [write_atomic(path, content, overwrite=overwrite) for path, content in written]


_File = tuple[Path, bytes]
_Maker = Callable[[ReportInput, Path, ReportOptions], list[_File]]


def _fhir(release: Any) -> _Maker:
    def write(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
        from napari_bloodcells.core.report.fhir import fhir_bundle

        files = []
        check_one_patient(["wbc"] if options.wbc is not None else [], data.images["image"])
        blocks = differentials(data.cells, data.scheme, data.images, options.intervals, slides_in(data.run))
        chosen = blocks[:-1] or blocks  # several samples are several patients: no report of all together
        names = _file_names((block.sample for block in chosen), ".fhir.json")
        for block in chosen:
            shown = sample_name(block.sample, data)
            head = {**head_of(data), "issued": _instant(data), "sample": shown, "reviewed": _reviewed(data, block)}
            cells = data.cells if block.sample == WHOLE_FOLDER else _of_sample(data, block.sample)
            content = page_content(data, block, cells.reset_index(drop=True), Pictures(1), options)
            head["run"] = _identity(data, content)
            files.append(
                (folder / names[block.sample], fhir_bundle(content, head, release).encode("utf-8", "backslashreplace"))
            )
        return files

    return write


def _identity(data: ReportInput, content: Content) -> str:
    """What tells this run from every other, whatever its cells are called by now: ids must not change with a review.

    A run that says nothing of itself (of arrays) is known by its cells.
    """
    known = [data.run.get("fingerprint"), data.run.get("input")]
    return json.dumps(known, sort_keys=True, default=str) if any(known) else str(content.payload["id"])


def _reviewed(data: ReportInput, block: Differential) -> str:
    """How many cells of a sample a person reviewed, and who; empty where nobody did."""
    cells = data.cells if block.sample == WHOLE_FOLDER else _of_sample(data, block.sample)
    if "reviewed" not in cells or not cells["reviewed"].any():
        return ""
    seen = cells[cells["reviewed"].astype(bool)]
    names = sorted({str(name) for name in seen["reviewer"] if name}) if "reviewer" in seen else []
    by = f" by {', '.join(names)}" if names else ""
    return f"{len(seen)} of {len(cells)} cells were reviewed{by}."


def _of_sample(data: ReportInput, sample: str) -> Any:
    from napari_bloodcells.core.differential import sample_of

    return data.cells[np.array([sample_of(str(name)) == sample for name in data.cells["image"]], bool)]


def _instant(data: ReportInput) -> str:
    """When it was counted, as a FHIR instant (with a time zone)."""
    times = data.run.get("times")
    started = times.get("started") if isinstance(times, dict) else None
    try:
        moment = datetime.fromisoformat(str(started))
    except ValueError:
        moment = datetime.now(UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat(timespec="seconds")


def _coco(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
    return [(folder / "coco.json", coco(data).encode("utf-8", "backslashreplace"))]


def _geojson(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
    names = _file_names((str(name) for name in data.cells["image"]), ".geojson")
    return [(folder / file, geojson(data, n).encode("utf-8", "backslashreplace")) for n, file in names.items()]


def _voc(data: ReportInput, folder: Path, overwrite: bool) -> list[Path]:
    """One XML per image that was counted, also without a cell; its size is that of the table or of the image itself."""
    from napari_bloodcells.core.voc import write_voc

    sizes = image_sizes(data)
    files = []
    counted = data.images.loc[data.images["status"] == OK, "image"]
    names = _file_names((str(n) for n in (*counted, *data.cells["image"])), ".xml", suffix=False)
    for name, file in names.items():
        cells = data.cells[data.cells["image"] == name]
        if name not in sizes:
            source = data.load(name)
            if source is None:
                raise UsageError(f"{name}: its size is not known and it is not at hand; name its folder with --images.")
            with view_of(source) as view:
                sizes[name] = view.size
        xyxy = cells[list(BOX_COLUMNS)].to_numpy(np.float32)
        boxes = Boxes(xyxy, tuple(str(label) for label in cells["class"]))
        width, height = sizes[name]
        files.append(write_voc(folder / file, boxes, image=name, width=width, height=height, overwrite=overwrite))
    return files


def _csv(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
    return _table_files(data, folder, options, "csv")


def _table_files(data: ReportInput, folder: Path, options: ReportOptions, format: str) -> list[_File]:
    """All three tables of the classes as they are now, after every correction: they agree with each other."""
    from napari_bloodcells.core.counting.cells import recount_images
    from napari_bloodcells.core.counting.output import table_bytes
    from napari_bloodcells.core.differential import differential_frame

    blocks = differentials(data.cells, data.scheme, data.images, options.intervals, slides_in(data.run))
    images = recount_images(data.images, data.cells, data.scheme)
    tables = {"cells": data.cells, "images": images, "differential": differential_frame(blocks)}
    return [(folder / f"{n}.{format}", table_bytes(t, format, cells=n == "cells")) for n, t in tables.items()]


def _parquet(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
    return _table_files(data, folder, options, "parquet")


def _file_names(names: Iterable[str], ending: str, suffix: bool = True) -> dict[str, str]:
    """A file name of its own for each of ``names``, also where case does not count.

    Without ``suffix`` that of an image is left out, but where another image has the same name before it.

    >>> _file_names(["a.png", "a.tif", "A.tif"], ".xml", suffix=False)
    {'a.png': 'a.xml', 'a.tif': 'a.tif.xml', 'A.tif': 'A.tif-bfbb61.xml'}
    """
    taken: set[str] = set()
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        tries = (_safe(name, suffix), _safe(name), f"{cut(_safe(name))}-{_hash(name)}")
        free = next((each for each in tries if each.casefold() not in taken), tries[-1])
        taken.add(free.casefold())
        chosen[name] = f"{free}{ending}"
    return chosen


def _safe(name: str, suffix: bool = True) -> str:
    """A file name for an image or sample name; a short hash keeps apart names that become the same.

    >>> _safe("a/field 1.jpg", suffix=False).startswith("a-field-1-")
    True
    >>> _safe("field_01.png", suffix=False)
    'field_01'
    """
    stem = name if suffix or "." not in name else name.rpartition(".")[0]
    plain = cut(re.sub(r"[^\w.-]+", "-", stem).strip("-.")) or "sample"
    return plain if plain == stem else f"{plain}-{_hash(name)}"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:6]


def _nothing(data: ReportInput, folder: Path, options: ReportOptions) -> list[_File]:
    """VOC files are written by ``core/voc.py`` itself."""
    return []


FORMS: dict[str, _Maker] = {
    "fhir-r4": _fhir("R4"),
    "fhir-r5": _fhir("R5"),
    "coco": _coco,
    "voc": _nothing,
    "geojson": _geojson,
    "parquet": _parquet,
    "csv": _csv,
}
