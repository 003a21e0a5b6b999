"""Everything that one report page says, as plain values: the template draws it, the page's script recomputes it.

``page_content`` is made once per sample.  ``Row`` is a line of the table; ``payload`` is the JSON that travels inside
the page, so that a reclassified cell gives new counts, intervals and flags without a server.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED
from napari_bloodcells.core.counting.cellstable import (
    BOX_COLUMNS,
    LABEL_COLUMN,
    PROBABILITY_PREFIX,
    REVIEW_COLUMNS,
    cell_columns,
)
from napari_bloodcells.core.differential import Differential, Intervals
from napari_bloodcells.core.report.sprites import PER_SHEET, SHEET_COLUMNS, Pictures
from napari_bloodcells.core.statistics.correction import correct
from napari_bloodcells.core.statistics.intervals import goodman_quantile
from napari_bloodcells.core.statistics.reference import (
    ABSOLUTE,
    PERCENT,
    Absolute,
    Flag,
    Patient,
    ReferenceRange,
    ReferenceSet,
    absolute,
    effective_wbc,
    flag,
    load_ranges,
)
from napari_bloodcells.core.statistics.remarks import (
    MANY_UNIDENTIFIED,
    MINIMUM_CELLS,
    WANTED_CELLS,
    count_remarks,
    remarks,
)
from napari_bloodcells.core.statistics.unnamed import unnamed

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.report.inputs import ReportInput

GREY = "#999999"
HISTOGRAM_BINS = 20
_DEFAULT_KEYS = {UNIDENTIFIED: "u", NOT_A_WBC: "x"}


@dataclass(frozen=True)
class ReportOptions:
    """What is said beside the count.

    Attributes
    ----------
    wbc : float or None
        White cell count in 10^9/L, for absolute counts: of one patient, so only where there is one sample.
    patient : Patient
        Age and sex choose the reference ranges, of every sample.
    ranges : ReferenceSet or None
        None for those that come with the package.
    title : str
        Head of the page.
    intervals : ``binomial`` or ``multinomial``
        Exact for each class alone, or simultaneous for all classes.
    """

    wbc: float | None = None
    patient: Patient = field(default_factory=Patient)
    ranges: ReferenceSet | None = None
    title: str = "Differential white-blood-cell count"
    intervals: Intervals = "binomial"


@dataclass(frozen=True)
class Row:
    """One class in the table of the report."""

    name: str
    color: str
    count: int
    percent: float
    whole: int
    low: float
    high: float
    limits: ReferenceRange | None
    flag: Flag
    absolute: Absolute | None = None
    absolute_limits: ReferenceRange | None = None
    absolute_flag: Flag = field(default_factory=Flag)
    corrected: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Content:
    """One page: what the template needs, and the ``payload`` for the script.

    The first ``n_count_remarks`` of the remarks hang on the classes of the cells; ``unnamed`` says what the model
    cannot name.
    """

    sample: str
    differential: Differential
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    wbc: float | None
    payload: dict[str, Any]
    histogram: tuple[tuple[float, int], ...]
    places: tuple[tuple[float, float, str], ...]
    sources: tuple[str, ...]
    intervals: str = "binomial"
    source_names: dict[str, str] = field(default_factory=dict)
    n_count_remarks: int = 0
    unnamed: str = ""

    @property
    def flagged(self) -> tuple[str, ...]:
        """A sentence for each percent, and for each absolute count, that lies outside of its range."""
        percents = [f"{row.name} {row.flag.words}." for row in self.rows if row.flag.code]
        amounts = [(row, row.absolute) for row in self.rows if row.absolute and row.absolute_flag.code]
        return (*percents, *(f"{r.name} {r.absolute_flag.words} ({a.value:.2f} x 10^9/L)." for r, a in amounts))

    @property
    def reviewers(self) -> tuple[str, ...]:
        """Who reviewed cells of the page, by name."""
        cells = self.payload["cells"]
        return tuple(
            sorted({name for name, seen in zip(cells["reviewer"], cells["reviewed"], strict=True) if seen} - {""})
        )


def page_content(
    data: ReportInput, differential: Differential, cells: pd.DataFrame, pictures: Pictures, options: ReportOptions
) -> Content:
    """What the page of one sample says; ``cells`` are those of the sample, in the order of the tiles."""
    ranges = options.ranges or load_ranges()
    wbc = effective_wbc(differential, options.wbc)
    rows = _rows(data, differential, cells, ranges, options)
    names = [str(name) for name in dict.fromkeys(_sample_images(data, cells, differential.sample))]
    images = data.images[data.images["image"].isin(names)]
    used = [r for row in rows for r in (row.limits, row.absolute_limits) if r is not None]
    sources = tuple(text for text in dict.fromkeys(ranges.sources.get(r.source, r.source) for r in used) if text)
    payload = _payload(data, cells, names, pictures, rows, options)
    return Content(
        differential.sample,
        differential,
        rows,
        remarks(differential, cells, images),
        wbc,
        payload,
        histogram([float(c) for c in cells["confidence"]] if "confidence" in cells else []),
        _places(cells, names, pictures, payload["classes"]),
        sources,
        options.intervals,
        ranges.sources,
        len(count_remarks(differential)),
        unnamed(data.scheme),
    )


def _sample_images(data: ReportInput, cells: pd.DataFrame, sample: str) -> list[str]:
    from napari_bloodcells.core.differential import WHOLE_FOLDER, sample_of

    every = [*data.images["image"], *cells["image"]]
    return [str(n) for n in every if sample == WHOLE_FOLDER or sample_of(str(n)) == sample]


def _rows(
    data: ReportInput, differential: Differential, cells: pd.DataFrame, ranges: ReferenceSet, options: ReportOptions
) -> tuple[Row, ...]:
    colors = data.scheme.colors
    wbc = effective_wbc(differential, options.wbc)
    corrected = corrected_shares(data, cells)
    rows = []
    for share in differential.shares:
        limits = ranges.find(share.name, PERCENT, options.patient)
        amount = None if wbc is None or math.isnan(share.percent) else absolute(share, wbc)
        most = ranges.find(share.name, ABSOLUTE, options.patient) if amount else None
        rows.append(
            Row(
                *(share.name, colors.get(share.name, GREY), share.count, share.percent, share.whole),
                *(share.low, share.high, limits, flag(share.percent, share.low, share.high, limits)),
                absolute=amount,
                absolute_limits=most,
                absolute_flag=flag(amount.value, amount.low, amount.high, most) if amount else Flag(),
                corrected=corrected.get(share.name),
            )
        )
    return tuple(rows)


def corrected_shares(data: ReportInput, cells: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Percent with its interval of every white class, corrected for the classifier's errors (``correction.py``).

    Cells that a person reviewed count as known.  Empty where the model brought no confusion matrix, or nothing was
    classified.
    """
    names = list(data.scheme.names)
    if data.confusion is None or data.confusion.shape[-2:] != (len(names), len(names)):
        return {}
    reviewed = cells["reviewed"].to_numpy(bool) if "reviewed" in cells else np.zeros(len(cells), bool)
    labels = cells["class"].to_numpy(str)
    machine = np.array([int(((labels == name) & ~reviewed).sum()) for name in names])
    known = np.array([int(((labels == name) & reviewed).sum()) for name in names])
    white = np.array([cell.kind == "wbc" for cell in data.scheme.classes])
    if not (machine + known)[white].sum():
        return {}
    fit = correct(machine, data.confusion, known=known, keep=white)
    kept = [name for name, keep in zip(names, white, strict=True) if keep]
    values = 100 * np.stack([fit.mean, fit.low, fit.high], axis=1)
    return {name: (float(v[0]), float(v[1]), float(v[2])) for name, v in zip(kept, values, strict=True)}


def histogram(confidences: Sequence[float], bins: int = HISTOGRAM_BINS) -> tuple[tuple[float, int], ...]:
    """Lower edge and count of each of ``bins`` equal bins from 0 to 1.

    >>> histogram([0.99, 1.0, 0.2], bins=4)
    ((0.0, 1), (0.25, 0), (0.5, 0), (0.75, 2))
    """
    counts, edges = np.histogram(np.asarray(confidences, float), bins=bins, range=(0, 1))
    return tuple((round(float(edge), 6), int(n)) for edge, n in zip(edges, counts, strict=False))


def _places(
    cells: pd.DataFrame, names: Sequence[str], pictures: Pictures, classes: Sequence[dict[str, Any]]
) -> tuple[tuple[float, float, str], ...]:
    """Center of each cell in its field, as fractions of width and height, with the color of its class."""
    sizes = dict(zip(names, pictures.sizes, strict=False))
    colors = {entry["name"]: entry["color"] for entry in classes}
    found = []
    boxes = cells[list(BOX_COLUMNS)].to_numpy(float)
    for name, label, (x_min, y_min, x_max, y_max) in zip(cells["image"], cells["class"], boxes, strict=True):
        width, height = sizes.get(str(name), (0, 0))
        if width and height:
            x, y = (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height
            found.append((round(min(max(x, 0), 1), 4), round(min(max(y, 0), 1), 4), colors.get(str(label), GREY)))
    return tuple(found)


def _classes(data: ReportInput, cells: pd.DataFrame) -> list[dict[str, Any]]:
    listed = [{"name": c.name, "key": c.key, "color": c.color, "kind": c.kind} for c in data.scheme.classes]
    names = {entry["name"] for entry in listed}
    machine = list(cells["machine_class"] if "machine_class" in cells.columns else ())
    strangers = sorted({str(n) for n in [*cells["class"], *machine] if n} - names - {UNIDENTIFIED, NOT_A_WBC})
    listed += [{"name": name, "key": "", "color": GREY, "kind": "other"} for name in strangers]
    for name, kind in ((UNIDENTIFIED, "unidentified"), (NOT_A_WBC, "not_wbc")):
        listed.append({"name": name, "key": _DEFAULT_KEYS[name], "color": GREY, "kind": kind})
    return listed


def _payload(
    data: ReportInput,
    cells: pd.DataFrame,
    names: list[str],
    pictures: Pictures,
    rows: Sequence[Row],
    options: ReportOptions,
) -> dict[str, Any]:
    classes = _classes(data, cells)
    place = {entry["name"]: i for i, entry in enumerate(classes)}
    number = {name: i for i, name in enumerate(names)}
    labels = [str(label) or UNIDENTIFIED for label in cells["class"]]
    machine = [str(m) or UNIDENTIFIED for m in cells["machine_class"]] if "machine_class" in cells else labels
    probabilities = [PROBABILITY_PREFIX + name for name in data.scheme.names]
    present = [name for name in probabilities if name in cells]
    columns = [name for name in cell_columns(data.scheme.names, labeled=LABEL_COLUMN in cells) if name in cells]
    sizes = [*pictures.sizes, *[(0, 0)] * (len(names) - len(pictures.sizes))]
    fields = [*pictures.fields, *[""] * (len(names) - len(pictures.fields))]
    limits = {row.name: [row.limits.low, row.limits.high] for row in rows if row.limits}
    most = {row.name: [row.absolute_limits.low, row.absolute_limits.high] for row in rows if row.absolute_limits}
    values = {
        "image": [number[str(name)] for name in cells["image"]],
        "cell": [int(n) for n in cells["cell"]],
        "box": [[_plain(v, 2) for v in box] for box in cells[list(BOX_COLUMNS)].to_numpy(float)],
        "class": [place[label] for label in labels],
        "machine": [place[label] for label in machine],
        "confidence": [_plain(v) for v in cells["confidence"]] if "confidence" in cells else [None] * len(cells),
        "p": [[_plain(v) for v in line] for line in cells[present].to_numpy(float)],
        "source": [str(s) for s in cells["box_source"]] if "box_source" in cells else [""] * len(cells),
        "distance": [_plain(v) for v in cells["distance"]] if "distance" in cells else [None] * len(cells),
        "label": [str(s) for s in cells[LABEL_COLUMN]] if LABEL_COLUMN in cells else [],
        "reviewed": [int(bool(r)) for r in cells["reviewed"]] if "reviewed" in cells else [0] * len(cells),
        "reviewer": [str(r) for r in cells["reviewer"]] if "reviewer" in cells else [""] * len(cells),
        "time": [str(t) for t in cells["time"]] if "time" in cells else [""] * len(cells),
    }
    images = [{"name": n, "size": list(s), "uri": u} for n, s, u in zip(names, sizes, fields, strict=True)]
    identity = json.dumps([values["image"], values["cell"], values["box"], names, str(data.run.get("model"))])
    return {
        "id": hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()[:24],
        "columns": [*columns, *REVIEW_COLUMNS],
        "probabilities": [name.removeprefix(PROBABILITY_PREFIX) for name in present],
        "classes": classes,
        "cells": values,
        "images": images,
        "sheets": pictures.sheets,
        "tile": pictures.tile,
        "sheetColumns": SHEET_COLUMNS,
        "perSheet": PER_SHEET,
        "limits": limits,
        "absoluteLimits": most,
        "wbc": options.wbc,
        "wanted": [MINIMUM_CELLS, WANTED_CELLS],
        "manyUnidentified": MANY_UNIDENTIFIED,
        "goodman": goodman_quantile(len(rows)) if options.intervals == "multinomial" else None,
    }


def _plain(value: float, digits: int = 4) -> float | None:
    """``value`` rounded, and None for NaN, which JSON has not."""
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None
