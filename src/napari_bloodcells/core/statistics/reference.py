"""Reference ranges by age and sex, flags that respect the interval, and absolute counts.

Ranges are data (``reference/ranges.json``, or a laboratory's own file of the same form), each with its source.  A
result is flagged high or low only where its whole 95 % interval lies outside the range: 8 % eosinophils of 50 cells
prove nothing.  Where only the figure lies outside, the word is *borderline*.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from napari_bloodcells.core.classes import CellClass, ClassScheme, fold, vocabulary
from napari_bloodcells.core.differential import Differential, Share, samples_in
from napari_bloodcells.core.errors import DataWarning, UsageError

PERCENT = "%"
ABSOLUTE = "10^9/L"
ADULT_AGE = 18.0
NRBC_LIMIT = 5.0
"""Erythroblasts per 100 WBC from which the white cell count is corrected for them."""

_DECIMALS = 9
"""Of a figure beside its limits: 9.9 x 5 / 110 is 0.45, and not above it by the error of a product in binary."""

Sex = Literal["female", "male"]


@dataclass(frozen=True)
class Patient:
    """Whose smear it is, as far as ranges need it: ``age`` in years (an adult where None), ``sex`` or None."""

    age: float | None = None
    sex: Sex | None = None


@dataclass(frozen=True)
class ReferenceRange:
    """Limits of one class: ``low`` and ``high`` in ``unit`` (``%`` or ``10^9/L``), both inclusive.

    ``age_min`` (inclusive) and ``age_max`` (exclusive, None for no end) are in years; ``sex`` is female, male or any.
    """

    name: str
    unit: str
    low: float
    high: float
    age_min: float
    age_max: float | None
    sex: str
    source: str

    def fits(self, patient: Patient) -> bool:
        """Whether the range is meant for this patient."""
        age = ADULT_AGE if patient.age is None else patient.age
        of_age = self.age_min <= age and (self.age_max is None or age < self.age_max)
        return of_age and (self.sex == "any" or self.sex == patient.sex)


@dataclass(frozen=True)
class ReferenceSet:
    """All ranges of one file, with what it says of itself and its sources."""

    name: str
    ranges: tuple[ReferenceRange, ...]
    sources: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def find(self, name: str, unit: str, patient: Patient) -> ReferenceRange | None:
        """The range of a class, by any of its names, for a patient; one for the patient's sex before one for any."""
        key = class_key(name)
        fitting = [r for r in self.ranges if class_key(r.name) == key and r.unit == unit and r.fits(patient)]
        return min(fitting, key=lambda r: r.sex == "any") if fitting else None


@dataclass(frozen=True)
class Flag:
    """``code`` is H, L, (H), (L) or empty; ``words`` say the same: high, low, borderline high, borderline low."""

    code: str = ""
    words: str = ""

    @property
    def meaning(self) -> str:
        """What the interval has to do with it, where there is a flag.

        >>> Flag("(H)", "borderline high").meaning
        'the 95 % interval reaches into the reference range, so it may be chance'
        """
        if not self.code:
            return ""
        if self.code.startswith("("):
            return "the 95 % interval reaches into the reference range, so it may be chance"
        return f"the whole 95 % interval lies {'above' if self.code == 'H' else 'below'} the reference range"


@dataclass(frozen=True)
class Absolute:
    """Cells of a class in 10^9/L, with the interval of the count (the white cell count is taken as exact)."""

    value: float
    low: float
    high: float


def flag(value: float, low: float, high: float, limits: ReferenceRange | None) -> Flag:
    """How ``value`` with its interval ``low`` to ``high`` stands to the reference range.

    >>> eos = ReferenceRange("eosinophil", "%", 0, 5.5, 18, None, "any", "")
    >>> flag(8.0, 2.2, 19.2, eos).words, flag(8.0, 5.8, 10.7, eos).words, flag(3.0, 1.1, 6.4, eos).words
    ('borderline high', 'high', 'within range')
    """
    if limits is None or math.isnan(value):
        return Flag()
    value, low, high, least, most = (round(v, _DECIMALS) for v in (value, low, high, limits.low, limits.high))
    if low > most:
        return Flag("H", "high")
    if high < least:
        return Flag("L", "low")
    if value > most:
        return Flag("(H)", "borderline high")
    if value < least:
        return Flag("(L)", "borderline low")
    return Flag("", "within range")


def check_one_patient(told: Iterable[str], images: Iterable[str]) -> None:
    """Refuse what is of one patient where the images are of several samples.

    Parameters
    ----------
    told : iterable of str
        What was given, by name (``--wbc``).
    images : iterable of str
        As the tables name them; each sub-folder is a sample.

    Raises
    ------
    UsageError
        Something was given, and there are several samples.
    """
    named, n = list(told), len(samples_in(images))
    if named and n > 1:
        verb = "is" if len(named) == 1 else "are"
        raise UsageError(
            f"{' and '.join(named)} {verb} of one patient, and here are {n} samples: count each folder by itself."
        )


def corrected_wbc(wbc: float, nrbc_per_100: float) -> float:
    """White cell count (10^9/L) without the erythroblasts that the counter took for white cells, from 5 per 100 up.

    ``wbc * 100 / (100 + NRBC)``, the customary formula of laboratories.

    >>> corrected_wbc(12.0, 20), corrected_wbc(12.0, 4)
    (10.0, 12.0)
    """
    if math.isnan(nrbc_per_100) or nrbc_per_100 < NRBC_LIMIT:
        return wbc
    return wbc * 100 / (100 + nrbc_per_100)


def absolute(share: Share, wbc: float) -> Absolute:
    """``share`` of a (corrected) white cell count ``wbc`` in 10^9/L."""
    return Absolute(wbc * share.percent / 100, wbc * share.low / 100, wbc * share.high / 100)


def effective_wbc(differential: Differential, wbc: float | None) -> float | None:
    """The white cell count to multiply with: corrected for the NRBC of this differential; None where none is given."""
    return None if wbc is None else corrected_wbc(wbc, differential.nrbc_per_100)


@lru_cache(maxsize=1)
def _types() -> ClassScheme:
    """All types of the common vocabulary, each a class of its own."""
    return ClassScheme("types", tuple(CellClass(name, "", "") for name in vocabulary()))


@lru_cache(maxsize=1024)
def class_key(name: str) -> str:
    """What the names of one class have in common: its type in the vocabulary, else the name without its spelling.

    >>> class_key("EOS"), class_key("Neutrophils"), class_key("My  Cell")
    ('eosinophil', 'neutrophil', 'my cell')
    """
    return _types().canonical(name) or fold(name)


def load_ranges(path: Path | str | None = None) -> ReferenceSet:
    """The ranges that come with the package, or those of a laboratory's own JSON file.

    Raises
    ------
    UsageError
        The file cannot be read or is no table of ranges; the text names the entry.

    Warns
    -----
    DataWarning
        For a range whose class is no type of the vocabulary: it holds for a model with a class of that name alone.
    """
    if path is None:
        return _shipped()
    path = Path(path)
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name}: is not JSON ({error}).") from error
    found = parse_ranges(data, path.name)
    for i, entry in enumerate(found.ranges, 1):
        if _types().index(entry.name) is None:
            told = (
                f"{path.name}: range {i} ({entry.name}): is no type of cell that is known here, so it holds only for "
            )
            warnings.warn(f"{told}a model with a class of that name; correct its spelling.", DataWarning, stacklevel=2)
    return found


@lru_cache(maxsize=1)
def _shipped() -> ReferenceSet:
    text = (files("napari_bloodcells") / "reference" / "ranges.json").read_text("utf-8")
    return parse_ranges(json.loads(text), "ranges.json")


def parse_ranges(data: Any, source: str) -> ReferenceSet:
    """A ``ReferenceSet`` from parsed JSON; ``source`` names it in errors (``UsageError``)."""
    entries = data.get("ranges") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise UsageError(f'{source}: reference ranges need a list "ranges".')
    ranges = tuple(_parse_range(entry, f"{source}: range {i}") for i, entry in enumerate(entries, 1))
    named = data.get("sources", {})
    if not isinstance(named, dict):
        raise UsageError(f'{source}: "sources" names each source with its text, {{"own": "120 adults, 2025"}}.')
    sources = {str(key): str(text) for key, text in named.items()}
    return ReferenceSet(str(data.get("name", source)), ranges, sources, str(data.get("note", "")))


def _parse_range(entry: Any, where: str) -> ReferenceRange:
    if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
        raise UsageError(f'{where}: needs a "class".')
    where = f"{where} ({entry['class']})"
    try:
        low, high, age_min = (float(entry[key]) for key in ("low", "high", "age_min"))
        age_max = None if entry.get("age_max") is None else float(entry["age_max"])
        if not all(map(math.isfinite, (low, high, age_min, 0 if age_max is None else age_max))):
            raise ValueError("not finite")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: low, high and age_min must be finite numbers, age_max one or null.") from error
    if not (0 <= low <= high and age_min >= 0 and (age_max is None or age_max > age_min)):
        raise UsageError(f"{where}: low must not be above high, nor age_min above age_max.")
    unit, sex = entry.get("unit"), entry.get("sex", "any")
    if unit not in (PERCENT, ABSOLUTE) or sex not in ("any", "female", "male"):
        raise UsageError(f"{where}: unit is {PERCENT} or {ABSOLUTE}, sex is any, female or male.")
    named = "" if entry.get("source") is None else str(entry["source"])
    return ReferenceRange(entry["class"], unit, low, high, age_min, age_max, sex, named)
