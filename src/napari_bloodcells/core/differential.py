"""Counts to a differential: percents of the classified white cells, with intervals, and what stands apart from them.

Only classes of kind ``wbc`` make up the hundred percent.  Cells without a class (``unidentified``), boxes that hold
no white cell (``not a WBC``), smudge cells and artefacts are counted apart; erythroblasts (NRBC) are given per 100
white cells.  Platelets are those that the localizer finds on the fields (``n_platelets`` of the images), given per
field of the photographs (a whole slide is no field: its platelets only add to the count); a cell of a class
``platelet`` is a box of a white cell that turned out to hold a platelet, and is a count of nothing: it is left out.
The command, the plugin and the report take their numbers from here.  numpy is all that the import costs; pandas and
scipy are imported inside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED
from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.statistics.intervals import LEVEL, clopper_pearson, goodman, whole_percents

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme

Intervals: TypeAlias = Literal["binomial", "multinomial"]
WHOLE_FOLDER = "all"
PLATELETS_FOUND = "platelets found"
IN_A_BOX = "white-cell boxes"
NOT_THE_PLATELETS = (
    "a white-cell box that turned out to hold a platelet is left out of the differential and is no platelet count"
)
_INTERVAL_COLUMNS = ("sample", "class", "count", "percent", "ci_low", "ci_high")
DIFFERENTIAL_COLUMNS = (*_INTERVAL_COLUMNS, "whole_percent", "rate", "rate_unit")


@dataclass(frozen=True)
class Share:
    """One class of white cells in a differential.

    Attributes
    ----------
    name : str
    count : int
        Cells of the class.
    percent : float, 0 to 100
        Of the classified white cells; NaN where none was classified.
    whole : int
        Whole percent; all of them add up to 100.
    low, high : float, 0 to 100
        95 % interval, in percent.
    """

    name: str
    count: int
    percent: float
    whole: int
    low: float
    high: float


@dataclass(frozen=True)
class Apart:
    """Cells that are not part of the hundred percent.

    ``kind`` is unidentified, not_wbc, nrbc, platelet (a white-cell box that turned out to hold one), other, or found:
    the platelets that the localizer found.  ``rate`` is NaN but for NRBC (``per 100 WBC``) and the platelets found
    (``per field`` of the photographs on which they were counted); of a class of platelets ``rate_unit`` says
    ``white-cell boxes``.
    """

    name: str
    count: int
    kind: str
    rate: float = math.nan
    rate_unit: str = ""

    @property
    def shown(self) -> str:
        """Its name where a person reads it.

        >>> Apart("platelet", 3, "platelet").shown
        'platelet in a white-cell box'
        """
        return f"{self.name} in a white-cell box" if self.kind == "platelet" else self.name

    @property
    def shown_rate(self) -> str:
        """Its rate with the unit, empty where it has none.

        >>> Apart("erythroblast", 3, "nrbc", 1.5, "per 100 WBC").shown_rate
        '1.5 per 100 WBC'
        """
        return "" if math.isnan(self.rate) else f"{self.rate:.1f} {self.rate_unit}"


@dataclass(frozen=True)
class Differential:
    """The differential count of one sample.

    Attributes
    ----------
    sample : str
    shares : tuple of Share
        One per WBC class of the scheme, in its order, zeros included.
    apart : tuple of Apart
        Unidentified and not-a-WBC always, the others where the scheme or the cells have them, the platelets that
        were found where they were counted.
    total : int
        Classified white cells: what the percents are of.
    fields, slides : int
        Photographs and whole slides that were read, 0 where not known.
    """

    sample: str
    shares: tuple[Share, ...]
    apart: tuple[Apart, ...]
    total: int
    fields: int = 0
    slides: int = 0

    def share(self, name: str) -> Share:
        """The share of one class; ``KeyError`` where the scheme has no such class."""
        for share in self.shares:
            if share.name == name:
                return share
        raise KeyError(name)

    def count_of(self, kind: str) -> int:
        """Cells apart of one kind (``unidentified``, ``not_wbc``, ``nrbc``, ``platelet``, ``other``, ``found``)."""
        return sum(part.count for part in self.apart if part.kind == kind)

    @property
    def where(self) -> str:
        """What it was counted on, in words.

        >>> Differential("a", (), (), 200, fields=12).where, Differential("a", (), (), 200, fields=1, slides=2).where
        ('12 fields', '1 field and 2 slides')
        """
        fields = f"{self.fields} field{'' if self.fields == 1 else 's'}"
        slides = f"{self.slides} slide{'' if self.slides == 1 else 's'}"
        if not self.slides:
            return fields
        return f"{fields} and {slides}" if self.fields else slides

    @property
    def of_platelets(self) -> str:
        """What is to be said beside a class of platelets, in one sentence; empty where there is none."""
        found = any(part.kind == "found" for part in self.apart)
        if not any(part.kind == "platelet" for part in self.apart):
            return ""
        counted = "Platelets are those that the localizer finds" if found else "Platelets were not counted"
        return f"{counted}; {NOT_THE_PLATELETS}."

    @property
    def nrbc_per_100(self) -> float:
        """Erythroblasts per 100 classified white cells; NaN where no white cell was classified."""
        return 100 * self.count_of("nrbc") / self.total if self.total else math.nan


def make_differential(
    labels: Iterable[str],
    scheme: ClassScheme,
    sample: str = WHOLE_FOLDER,
    fields: int = 0,
    intervals: Intervals = "binomial",
    platelets: Iterable[int | None] = (),
    on_slides: Collection[int | None] = (),
) -> Differential:
    """The differential of the cells that carry ``labels``.

    Parameters
    ----------
    labels : iterable of str
        The final class of each cell, as the scheme names it, or ``unidentified``, or ``not a WBC``.  A label that the
        scheme does not know is counted apart under its own name.
    scheme : ClassScheme
        Says which classes are white cells (``kind``), and their order.
    sample : str
    fields : int
        Photographs that were read.
    intervals : ``binomial`` or ``multinomial``
        Exact binomial for each class alone (Clopper-Pearson), or simultaneous for all classes (Goodman).
    platelets : iterable of int or None
        Platelets that the localizer found on each photograph, None where they were not counted.
    on_slides : collection of int or None
        The same of each whole slide: its area is not that of a field, so these are no part of the rate.

    Examples
    --------
    >>> from types import SimpleNamespace as S
    >>> scheme = S(classes=(S(name="neutrophil", kind="wbc"), S(name="eosinophil", kind="wbc")))
    >>> d = make_differential(["neutrophil"] * 190 + ["eosinophil"] * 10 + ["unidentified"], scheme)
    >>> s = d.share("eosinophil")
    >>> d.total, s.percent, round(s.low, 1), round(s.high, 1), d.count_of("unidentified")
    (200, 5.0, 2.4, 9.0, 1)
    """
    tally = Counter("" if label is None else str(label) for label in labels)
    kinds = {cell.name: str(cell.kind) for cell in scheme.classes}
    names = [name for name, kind in kinds.items() if kind == "wbc"]
    counts = np.array([tally.get(name, 0) for name in names], np.int64)
    total = int(counts.sum())
    low, high = goodman(counts) if intervals == "multinomial" else clopper_pearson(counts, total, LEVEL)
    percents = 100 * counts / total if total else np.full(len(names), math.nan)
    whole = whole_percents(counts)
    shares = tuple(
        Share(name, int(counts[i]), float(percents[i]), int(whole[i]), 100 * float(low[i]), 100 * float(high[i]))
        for i, name in enumerate(names)
    )
    apart = _apart(tally, kinds, total)
    found = [int(n) for n in platelets if n is not None]
    more = [int(n) for n in on_slides if n is not None]
    if found:
        apart += (Apart(PLATELETS_FOUND, sum(found + more), "found", sum(found) / len(found), "per field"),)
    elif more:
        apart += (Apart(PLATELETS_FOUND, sum(more), "found"),)
    return Differential(sample, shares, apart, total, fields, len(on_slides))


def _apart(tally: Counter[str], kinds: dict[str, str], total: int) -> tuple[Apart, ...]:
    parts = [
        Apart(UNIDENTIFIED, tally.get(UNIDENTIFIED, 0) + tally.get("", 0), "unidentified"),
        Apart(NOT_A_WBC, tally.get(NOT_A_WBC, 0), "not_wbc"),
    ]
    strangers = sorted(set(tally) - set(kinds) - {UNIDENTIFIED, NOT_A_WBC, ""})
    for name, kind in [(n, k) for n, k in kinds.items() if k != "wbc"] + [(n, "other") for n in strangers]:
        n, rate, unit = tally.get(name, 0), math.nan, ""
        if kind == "nrbc":
            rate, unit = (100 * n / total if total else math.nan), "per 100 WBC"
        elif kind == "platelet":
            unit = IN_A_BOX
        parts.append(Apart(name, n, kind, rate, unit))
    return tuple(parts)


@lru_cache(maxsize=2**16)
def sample_of(image: str) -> str:
    """The sample an image belongs to: the folder it stands in, relative to the folder that was counted.

    Images that stand beside the sub-folders belong to ``.``; a folder that is itself named ``all`` is given as
    ``all/``, as ``all`` is the whole folder.

    >>> sample_of("patient 7/field_001.jpg"), sample_of("field_001.jpg"), sample_of("all/a.jpg")
    ('patient 7', '.', 'all/')
    """
    parent = str(PurePosixPath(image).parent)  # slow enough to be kept: every table asks for each image
    return f"{parent}/" if parent == WHOLE_FOLDER else parent


def samples_in(images: Iterable[str]) -> list[str]:
    """Samples that have a block of their own, in order of first appearance; empty where all images lie in one root.

    >>> samples_in(["a/1.jpg", "b/1.jpg", "a/2.jpg"]), samples_in(["1.jpg", "2.jpg"])
    (['a', 'b'], [])
    """
    found = list(dict.fromkeys(sample_of(image) for image in images))
    return [] if found in ([], ["."]) else found


def differentials(
    cells: pd.DataFrame,
    scheme: ClassScheme,
    images: pd.DataFrame | None = None,
    intervals: Intervals = "binomial",
    slides: Collection[str] = (),
) -> tuple[Differential, ...]:
    """One differential per sample (each sub-folder), and ``all`` for the whole folder, last.

    Parameters
    ----------
    cells : DataFrame with the columns ``image`` and ``class``
    scheme : ClassScheme
    images : DataFrame with the columns ``image`` and ``status``, or None
        So that a sample without a single cell has its block too, and fields are counted (those with status ``ok``);
        the platelets of its column ``n_platelets``, where there is one.
    intervals : ``binomial`` or ``multinomial``
    slides : collection of str
        Which of the images are whole slides (``slides_in``).

    Raises
    ------
    OutputError
        An ``n_platelets`` is no whole number.
    """
    cell_samples = [sample_of(str(image)) for image in cells["image"]]
    labels = ["" if label is None or label != label else str(label) for label in cells["class"]]
    names = [str(name) for name in (cells if images is None else images)["image"]]
    readable = names if images is None else [str(n) for n in images.loc[images["status"] == "ok", "image"]]
    whole = frozenset(slides)
    per_sample = Counter(sample_of(name) for name in dict.fromkeys(readable) if name not in whole)
    grouped: dict[str, list[str]] = {sample: [] for sample in samples_in(names)}
    for sample, label in zip(cell_samples, labels, strict=True):
        if sample in grouped:
            grouped[sample].append(label)
    found = _platelets(images)
    photos = {name: n for name, n in found.items() if name not in whole}
    on_slides = {name: found.get(name) for name in dict.fromkeys(readable) if name in whole}
    of_fields, of_slides = _by_sample(photos), _by_sample(on_slides)
    blocks = [
        make_differential(
            part, scheme, name, per_sample[name], intervals, of_fields.get(name, ()), of_slides.get(name, ())
        )
        for name, part in grouped.items()
    ]
    fields, everywhere = sum(per_sample.values()), (list(photos.values()), list(on_slides.values()))
    blocks.append(make_differential(labels, scheme, WHOLE_FOLDER, fields, intervals, *everywhere))
    return tuple(blocks)


def slides_in(run: Mapping[str, Any]) -> frozenset[str]:
    """The images of a run (``run.json``) that are whole slides, by their names in the tables.

    >>> sorted(slides_in({"slides": {"b.svs": {}, "a.svs": {}}})), slides_in({"slides": None})
    (['a.svs', 'b.svs'], frozenset())
    """
    found = run.get("slides")
    return frozenset(map(str, found)) if isinstance(found, (dict, list)) else frozenset()


def _by_sample(numbers: Mapping[str, int | None]) -> dict[str, list[int | None]]:
    """The numbers of the images of each sample."""
    parts: dict[str, list[int | None]] = {}
    for name, n in numbers.items():
        parts.setdefault(sample_of(name), []).append(n)
    return parts


def _platelets(images: pd.DataFrame | None) -> dict[str, int]:
    """Platelets found on each image on which they were counted."""
    if images is None or "n_platelets" not in images:
        return {}
    counted = images[images["n_platelets"].notna()]
    rows = zip(counted["image"], counted["n_platelets"], strict=True)
    return {str(name): _whole_number(n, str(name)) for name, n in rows}


def _whole_number(value: Any, image: str) -> int:
    """A number of platelets, perhaps read as text: a table in CSV may have been edited by hand."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number.is_integer() and number >= 0):
        raise OutputError(
            f"images table (images.csv): n_platelets of {image} is {str(value)[:40]!r}, which is no whole number; "
            "mend it, or count again."
        )
    return int(number)


def differential_frame(blocks: Sequence[Differential]) -> pd.DataFrame:
    """``differential.csv``: one row per class and sample, with the columns ``DIFFERENTIAL_COLUMNS``.

    ``percent``, ``ci_low``, ``ci_high`` and ``whole_percent`` are in percent (0 to 100) of the classified white
    cells, rounded to two decimals, and empty for what stands apart or where nothing was classified; ``rate`` is NRBC
    per 100 WBC or the platelets found per field.
    """
    import pandas as pd

    rows: list[tuple[object, ...]] = []
    for block in blocks:
        for s in block.shares:
            known = block.total > 0
            numbers = [round(v, 2) if known else math.nan for v in (s.percent, s.low, s.high)]
            rows.append((block.sample, s.name, s.count, *numbers, s.whole if known else None, math.nan, ""))
        for a in block.apart:
            blank = (math.nan, math.nan, math.nan, None)
            rows.append((block.sample, a.name, a.count, *blank, round(a.rate, 2), a.rate_unit))
    frame = pd.DataFrame(rows, columns=list(DIFFERENTIAL_COLUMNS))
    return frame.astype({"count": "int64", "whole_percent": "Int64"})
