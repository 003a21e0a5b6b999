"""A data set's folder as the readers see it: its photographs, their groups, and the labels' common vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from napari_bloodcells.core.classes import CellClass, ClassScheme, fold, load_scheme, vocabulary
from napari_bloodcells.core.datasets.base import SPLITS, part_of
from napari_bloodcells.core.datasets.tables import ImageIndex, read_table
from napari_bloodcells.core.errors import AnnotationError, DataSetError
from napari_bloodcells.core.files import display_name, natural_key, read_regular, whole_text
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.groups import Grouping

_MAX_LIST = 10**7
IGNORED = "ignore"
"""Label of a box over a white cell, or what may be one, that is neither asked for nor punished."""
_IGNORED_NAMES = frozenset({IGNORED, "ignored", "dont care", "don t care", "dontcare"})
_RED_CELLS = (
    "red blood cell",
    "erythrocyte",
    "sickle cell",
    "sickled cell",
    "drepanocyte",
    "reticulocyte",
    "elliptocyte",
    "ovalocyte",
    "target cell",
    "codocyte",
    "burr cell",
    "echinocyte",
    "acanthocyte",
    "spur cell",
    "teardrop",
    "tear drop",
    "teardrop cell",
    "tear drop cell",
    "dacrocyte",
    "dacryocyte",
    "schistocyte",
    "schizocyte",
    "helmet cell",
    "bite cell",
    "spherocyte",
    "stomatocyte",
    "poikilocyte",
    "microcyte",
    "macrocyte",
    "normocyte",
    "infected red blood cell",
)
_PLATELETS = (
    "platelet",
    "thrombocyte",
    "giant platelet",
    "large platelet",
    "platelet clump",
    "platelet aggregate",
    "clumped platelet",
)
_BOX_KINDS = ClassScheme(
    "boxes",
    (
        CellClass("WBC", "w", "#0072B2", ("leukocyte", "leucocyte", "white blood cell", "white cell", "cell")),
        CellClass("RBC", "r", "#D55E00", _RED_CELLS, "other"),
        CellClass("Platelets", "p", "#999999", _PLATELETS, "platelet"),
    ),
)


@dataclass
class Folder:
    """The folder while it is being read; ``problems`` collects what was worked around."""

    root: Path
    scheme: ClassScheme | None = None
    problems: list[str] = field(default_factory=list)

    @cached_property
    def name(self) -> str:
        """Name of the data set: that of its folder."""
        return self.root.resolve().name or "data"

    @cached_property
    def images(self) -> list[Path]:
        """All photographs, in natural order."""
        return find_images([self.root])

    @cached_property
    def index(self) -> ImageIndex:
        """Finds the photograph that a table means."""
        return ImageIndex(self.images, self.root)

    @cached_property
    def _labels(self) -> dict[str, str]:
        return {}

    @cached_property
    def grouping(self) -> Grouping:
        """Says the group of a photograph."""
        grouping = Grouping(self.name, self.root, self.images)
        self.problems += grouping.problems
        return grouping

    @cached_property
    def tables(self) -> list[tuple[Path, list[dict[str, str]]]]:
        """The CSV and JSON tables directly in the folder or in one folder below, read."""
        found = []
        for path in sorted([*self.root.glob("*.*"), *self.root.glob("*/*.*")], key=natural_key):
            if path.suffix.casefold() in (".csv", ".json", ".tsv") and path.name != "groups.csv":
                try:
                    found.append((path, read_table(path)))
                except AnnotationError as problem:
                    self.problems.append(whole_text(problem, self.root))
        return found

    @cached_property
    def _listed(self) -> dict[str, str]:
        return listed_parts(self.root, {image.stem for image in self.images})

    def split(self, image: Path) -> str | None:
        """The publisher's part (``TRAIN``, ``val``) in whose list, or else in whose folder, the image is."""
        if image.stem in self._listed:
            return self._listed[image.stem]
        parts = image.relative_to(self.root).parts[:-1]
        return next((p for p in parts if part_of(p)), None)

    def label(self, text: str | None) -> str | None:
        """Canonical name of a cell type; an unknown one as it is written, but for case."""
        if not text or not fold(text):
            return None
        if text not in self._labels:
            self._labels[text] = self._canonical(text)
        return self._labels[text]

    def _canonical(self, text: str) -> str:
        for scheme in (self.scheme, load_scheme("pbc8")):
            canonical = scheme.canonical(text) if scheme else None
            if canonical:
                return canonical
        return " ".join(text.split()).casefold()

    def knows(self, text: str) -> bool:
        """Whether the label is one of the scheme's, or of the common vocabulary."""
        schemes = [load_scheme("pbc8"), *([self.scheme] if self.scheme else [])]
        return any(scheme.index(text) is not None for scheme in schemes)

    def tell_unknown(self, names: Iterable[str]) -> None:
        """Say, before all other problems, which names of boxes are no cell's, each once with its number."""
        told = [
            f'{self.name}: {n} box{"es are" if n > 1 else " is"} called "{name}", which is no known cell; taken for '
            f"white cells (call them RBC, Platelets or {IGNORED} if they are none)."
            for name, n in Counter(names).items()
            if name not in ("", IGNORED) and field_kind(name) == "WBC" and not self._is_white(name)
        ]
        self.problems[:0] = told

    def _is_white(self, name: str) -> bool:
        return box_kind(name) is not None or self.knows(name) or _white_words().index(name) is not None


def listed_parts(root: Path, stems: set[str]) -> dict[str, str]:
    """Part of each image by its stem, from the lists in ``ImageSets/Main`` of a VOC folder; of two the later part.

    Raises
    ------
    DataSetError
        If a list cannot be read.
    """
    parts: dict[str, str] = {}
    for name, part in SPLITS.items():
        listing = root / "ImageSets" / "Main" / f"{name}.txt"
        if not listing.is_file() or not listing.stat().st_size:
            continue
        try:
            lines = read_regular(listing, _MAX_LIST, DataSetError).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataSetError(f"{display_name(listing)}: is no UTF-8 text; save it in UTF-8.") from None
        for line in map(str.strip, lines):
            # VOC's lists of a class say after the name whether it is there: 1, 0 or -1
            parts[line if line in stems else re.sub(r"\s+(-1|0|1)$", "", line)] = part
    return parts


def box_kind(text: str) -> str | None:
    """``WBC``, ``RBC`` or ``Platelets`` where the label of a box is one of these and no cell type, else None."""
    return _BOX_KINDS.canonical(text)


def field_kind(text: str) -> str:
    """What a box of that name is on a field: ``WBC``, ``RBC``, ``Platelets`` or ``ignore``; a cell type is a ``WBC``.

    >>> field_kind("Sickle cells"), field_kind("monocyte"), field_kind("Ignore")
    ('RBC', 'WBC', 'ignore')
    """
    return IGNORED if fold(text) in _IGNORED_NAMES else box_kind(text) or "WBC"


def drawn_classes(labels: Iterable[str]) -> frozenset[str]:
    """Which of ``WBC``, ``RBC`` and ``Platelets`` a source drew that has ``labels``.

    A kind that it never names was not drawn: its cells are there without a box.  Where it names none, its fields were
    looked through for white cells, and hold none.
    """
    return frozenset(labels) - {IGNORED} or frozenset({"WBC"})


@lru_cache(maxsize=1)
def _white_words() -> ClassScheme:
    """The nucleated cells that the common vocabulary knows, beyond those of a scheme."""
    others = ("artifact", "platelet", "red blood cell")
    return ClassScheme("white cells", tuple(CellClass(name, "", "") for name in vocabulary() if name not in others))
