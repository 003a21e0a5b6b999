"""Class schemes: which cell types a model or a person tells apart, as data.

A scheme is a JSON file (``schemes/wbc5.json``, or the user's own) that lists classes with a key and a color.  What
other data sets and laboratories call these cells stands once, in ``vocabulary.json``, for all schemes: a label is
looked up there, and a finer type (band neutrophil) counts as the wider one (neutrophil) where the scheme has no class
of its own for it.  So ``NEUTROPHIL``, ``neutrophils``, ``SNE`` and ``neutrophil_segmented`` are one class.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import display_name, read_regular

UNIDENTIFIED = "unidentified"
NOT_A_WBC = "not a WBC"
RESERVED_KEYS = {"u": UNIDENTIFIED, "x": NOT_A_WBC}

KINDS = ("wbc", "nrbc", "platelet", "other")
# Okabe and Ito, "Color Universal Design" (2008): told apart with every common color blindness; grey instead of black.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")

IMAGE_COLUMNS = (
    *("image", "status", "n_wbc", "n_rbc", "n_platelets"),
    *("um_per_pixel", "width", "height", "problems", "warnings"),
)
"""Of ``images.csv`` (``core/counting/cells.py``), which has a column for each class beside them; so no class is called
as one of these."""

_MAX_CLASSES = 64
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class CellClass:
    """One class of a scheme.

    Attributes
    ----------
    name : str
        Canonical name, singular, lower case (``neutrophil``).
    key : str
        One letter or digit that assigns the class in the plugin and in the report (``n``); "" where all are taken.
    color : str
        ``#RRGGBB``.
    aliases : tuple of str
        Further names beyond those of the common vocabulary.
    kind : str
        ``wbc`` (counts to 100 %), ``nrbc`` (per 100 white cells), ``platelet`` (per field) or ``other``.
    """

    name: str
    key: str
    color: str
    aliases: tuple[str, ...] = ()
    kind: str = "wbc"


@dataclass(frozen=True)
class ClassScheme:
    """A named, ordered list of classes; the order is that of a model's outputs.

    >>> scheme = load_scheme("wbc5")
    >>> scheme.names
    ('neutrophil', 'eosinophil', 'basophil', 'lymphocyte', 'monocyte')
    >>> scheme.names[scheme.index("Segmented Neutrophils")]
    'neutrophil'
    >>> scheme.index("platelet") is None
    True
    """

    name: str
    classes: tuple[CellClass, ...]
    _lookup: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._lookup.update(_build_lookup(self.classes))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical class names in the order of the model's outputs."""
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> dict[str, str]:
        """Color (``#RRGGBB``) of each class name."""
        return {c.name: c.color for c in self.classes}

    @property
    def keys(self) -> dict[str, str]:
        """Class name that each key assigns; a class without a key is not in it."""
        return {c.key: c.name for c in self.classes if c.key}

    def index(self, label: str | None) -> int | None:
        """Position of the class that ``label`` means, or None where the scheme has none for it.

        Case, accents, plural, underscores and the names of the common vocabulary do not matter.
        """
        if not label:
            return None
        folded = fold(label)
        for candidate in (folded, *_singulars(folded)):
            if candidate in self._lookup:
                return self._lookup[candidate]
        return None

    def canonical(self, label: str | None) -> str | None:
        """Name of the class that ``label`` means, or None."""
        index = self.index(label)
        return None if index is None else self.classes[index].name


def fold(label: str) -> str:
    """``label`` without case, accents and punctuation: what two spellings of one name have in common.

    >>> fold("  Éosinophile_(mature) ")
    'eosinophile mature'
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w]|_", " ", plain.casefold()).split())


@lru_cache(maxsize=1)
def scheme_names() -> tuple[str, ...]:
    """Names of the schemes that come with the package."""
    folder = files("napari_bloodcells") / "schemes"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


def load_scheme(name_or_path: str | Path) -> ClassScheme:
    """The scheme of that name (``wbc4``, ``wbc5``, ``pbc8``), or the one in a user's JSON file.

    The file holds ``{"name": ..., "classes": [...]}``, each class ``{"name", "key", "color", "kind", "aliases"}`` as in
    ``CellClass``; only the names are required, a missing key or color is chosen (of keys there are 34).

    Raises
    ------
    UsageError
        If there is no such scheme, or the file is not one; the message names the class and what is wrong with it.
    """
    if str(name_or_path) in scheme_names():
        return _shipped_scheme(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix.casefold() != ".json" and not path.exists():
        raise UsageError(
            f"{name_or_path}: no such class scheme; there are {', '.join(scheme_names())}, or name a JSON file."
        )
    try:
        data = json.loads(read_regular(path, _MAX_BYTES, UsageError).decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"{display_name(path)}: is not JSON: {problem}.") from None
    return parse_scheme(data, display_name(path))


@lru_cache(maxsize=16)
def _shipped_scheme(name: str) -> ClassScheme:
    resource = files("napari_bloodcells") / "schemes" / f"{name}.json"
    return parse_scheme(json.loads(resource.read_text("utf-8")), name)


def parse_scheme(data: Any, source: str) -> ClassScheme:
    """A scheme from parsed JSON (see ``load_scheme``); ``source`` names it in errors (``UsageError``)."""
    entries = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{source}: a class scheme needs a list "classes" with at least one class.')
    if len(entries) > _MAX_CLASSES:
        raise UsageError(f"{source}: {len(entries)} classes; at most {_MAX_CLASSES} are allowed.")
    name = data.get("name", Path(source).stem)
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f'{source}: "name" must be a text.')
    taken: set[Any] = _texts(entries, "key") | set(RESERVED_KEYS)
    colors = [c for c in OKABE_ITO if c not in _texts(entries, "color")]
    classes: list[CellClass] = []
    for number, entry in enumerate(entries, 1):
        made = _parse_class(entry, f"{source}: class {number}", taken, colors)
        for other in classes:
            if fold(other.name) == fold(made.name):
                raise UsageError(f'{source}: two classes are called "{made.name}".')
            if made.key and other.key == made.key:
                raise UsageError(f'{source}: "{other.name}" and "{made.name}" have the same key "{made.key}".')
        classes.append(made)
    _check_aliases(classes, source)
    return ClassScheme(name.strip(), tuple(classes))


def scheme_data(scheme: ClassScheme) -> dict[str, Any]:
    """``scheme`` as plain JSON, which ``parse_scheme`` makes the same scheme of.

    >>> scheme = load_scheme("pbc8")
    >>> parse_scheme(scheme_data(scheme), "pbc8") == scheme
    True
    """
    classes = [
        {"name": c.name, "key": c.key, "color": c.color, "kind": c.kind, "aliases": list(c.aliases)}
        for c in scheme.classes
    ]
    return {"name": scheme.name, "classes": classes}


def _texts(entries: list[Any], field: str) -> set[str]:
    """The texts that the entries give for ``field``; what is no text is refused later, with its class named."""
    return {e[field] for e in entries if isinstance(e, dict) and isinstance(e.get(field), str)}


def _parse_class(entry: Any, where: str, taken: set[Any], colors: list[str]) -> CellClass:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not fold(entry["name"]):
        raise UsageError(f'{where} needs a "name".')
    name = " ".join(entry["name"].split())
    where = f'{where} ("{name}")'
    if fold(name) in (fold(UNIDENTIFIED), fold(NOT_A_WBC)):
        raise UsageError(f"{where}: this name is kept for cells outside of every scheme.")
    if name.casefold() in IMAGE_COLUMNS:
        raise UsageError(f"{where}: this name is that of another column of images.csv; give it another.")
    unknown = sorted(set(entry) - {"name", "key", "color", "kind", "aliases"})
    if unknown:
        raise UsageError(f"{where}: unknown entry {unknown[0]!r}; there are name, key, color, kind, aliases.")
    key = entry.get("key")
    if key is None or key == "":
        letters = fold(name).replace(" ", "") + "abcdefghijklmnopqrstuvwxyz0123456789"
        key = next((c for c in letters if c.isascii() and c not in taken), "")
        taken.add(key)
    elif not isinstance(key, str) or len(key) != 1 or not (key.isascii() and key.isalnum()) or key != key.lower():
        raise UsageError(f"{where}: key must be one lower-case letter or digit, not {key!r}.")
    if key in RESERVED_KEYS:
        raise UsageError(f'{where}: key "{key}" is kept for "{RESERVED_KEYS[key]}".')
    color = entry.get("color") or (colors.pop(0) if colors else "#999999")
    if not isinstance(color, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", color):
        raise UsageError(f"{where}: color must be #RRGGBB, not {color!r}.")
    kind = entry.get("kind", "wbc")
    if kind not in KINDS:
        raise UsageError(f"{where}: kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    aliases = entry.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(a, str) and fold(a) for a in aliases):
        raise UsageError(f"{where}: aliases must be a list of names.")
    return CellClass(name, key, color, tuple(aliases), kind)


def _check_aliases(classes: list[CellClass], source: str) -> None:
    owner: dict[str, str] = {fold(c.name): c.name for c in classes}
    for cell in classes:
        for alias in cell.aliases:
            other = owner.setdefault(fold(alias), cell.name)
            if other != cell.name:
                raise UsageError(f'{source}: "{alias}" is a name of both "{other}" and "{cell.name}".')


def _build_lookup(classes: tuple[CellClass, ...]) -> dict[str, int]:
    """Every folded name to the position of its class; own names win over own aliases, those over the vocabulary."""
    lookup: dict[str, int] = {}
    for position, cell in enumerate(classes):
        lookup[fold(cell.name)] = position
    for position, cell in enumerate(classes):
        for alias in cell.aliases:
            lookup.setdefault(fold(alias), position)
    types = vocabulary()
    position_of_type: dict[str, int] = {}
    for name, (_, aliases) in types.items():  # a class may be called by any name of its type
        found = [lookup[fold(n)] for n in (name, *aliases) if fold(n) in lookup]
        if found:
            position_of_type[name] = found[0]
    for name, (wider, aliases) in types.items():
        target = position_of_type.get(name, position_of_type.get(wider or ""))
        if target is not None:
            for alias in (name, *aliases):
                lookup.setdefault(fold(alias), target)
    return lookup


def _singulars(folded: str) -> tuple[str, ...]:
    """Forms of ``folded`` without a plural s at its end, or at the end of any word."""
    words = [w[:-1] if w.endswith("s") and len(w) > 3 else w for w in folded.split()]
    whole = folded[:-1] if folded.endswith("s") else folded
    return (whole, " ".join(words))


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """Type name to (wider type or None, aliases)."""
    text = (files("napari_bloodcells.core") / "vocabulary.json").read_text("utf-8")
    return {t["name"]: (t.get("within"), tuple(t["aliases"])) for t in json.loads(text)["types"]}
