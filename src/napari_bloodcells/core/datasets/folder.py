"""A data set's folder as the readers see it: its photographs, their groups, and the labels' common vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from napari_bloodcells.core.classes import CellClass, ClassScheme, fold, load_scheme
from napari_bloodcells.core.datasets.tables import ImageIndex, read_table
from napari_bloodcells.core.errors import AnnotationError
from napari_bloodcells.core.files import natural_key, whole_text
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.groups import Grouping

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "test_simple"})
_BOX_KINDS = ClassScheme(
    "boxes",
    (
        CellClass("WBC", "w", "#0072B2", ("leukocyte", "leucocyte", "white blood cell", "white cell", "cell")),
        CellClass("RBC", "r", "#D55E00", ("red blood cell", "erythrocyte"), "other"),
        CellClass("Platelets", "p", "#999999", ("platelet", "thrombocyte"), "platelet"),
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
        return Grouping(self.name, self.root)

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

    def split(self, image: Path) -> str | None:
        """The publisher's part (``TRAIN``, ``val``) in whose folder the image lies."""
        parts = image.relative_to(self.root).parts[:-1]
        return next((p for p in parts if p.casefold().replace(" ", "_") in SPLITS), None)

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


def box_kind(text: str) -> str | None:
    """``WBC``, ``RBC`` or ``Platelets`` where the label of a box is one of these and no cell type, else None."""
    return _BOX_KINDS.canonical(text)
