"""What a model bundle says of itself: the schema of ``model.json``, with a limit on every size.

Bundles come by mail, so nothing here is believed: numbers are finite, lists and texts have a longest length, unknown
fields are refused.  The same classes describe the model inside the program, so that what is written is what is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_bloodcells.core.cropspec import CropSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_bloodcells.core.classes import ClassScheme

Label = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(max_length=4000)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=8, le=2048)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Spread = Annotated[float, Field(ge=1e-6, le=1e6)]
Int = Annotated[int, Field(ge=-65536, le=65536)]
Option = (
    bool | Int | Number | Annotated[str, Field(max_length=1000)] | Annotated[tuple[Number, ...], Field(max_length=64)]
)
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Setting = bool | Whole | Number | Text | Annotated[tuple[Number, ...], Field(max_length=64)]
"""A value of the recipe, which is only told and never computed with: a seed may have 63 bits."""
Matrix = Annotated[tuple[Annotated[tuple[Count, ...], Field(max_length=200)], ...], Field(max_length=200)]

MAX_CROP = 1024
MAX_SIDE_UM = 1000
MAX_CONTEXT = 20
MAX_DISTANCE = 1e9
MAX_SOURCES = 1000


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClassEntry(_Record):
    """One class as ``core/classes.py`` defines it."""

    name: Label
    key: Annotated[str, Field(max_length=8)] = ""
    color: Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")] = "#999999"
    aliases: Annotated[tuple[Label, ...], Field(max_length=100)] = ()
    kind: Literal["wbc", "nrbc", "platelet", "other"] = "wbc"


class SchemeInfo(_Record):
    """The class scheme: the classes in the order of the network's outputs."""

    name: Label
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=2, max_length=200)]

    @model_validator(mode="after")
    def _each_class_once(self) -> SchemeInfo:
        if len({entry.name.casefold() for entry in self.classes}) != len(self.classes):
            raise ValueError("a class is named twice")
        return self


class Normalization(_Record):
    """Per channel (R, G, B), for images from 0 to 1: ``(image - mean) / std``."""

    mean: tuple[Number, Number, Number] = (0.5, 0.5, 0.5)
    std: tuple[Spread, Spread, Spread] = (0.25, 0.25, 0.25)


class Metric(_Record):
    """One figure with its 95 % interval.

    ``name`` is ``accuracy``, ``balanced_accuracy``, ``ece``, ``precision``, ``recall`` or ``f1`` (the last three of
    ``of``, a class); ``data`` says on what it was measured, ``n`` on how many cells.
    """

    name: Label
    of: Annotated[str, Field(max_length=64)] = ""
    data: Annotated[str, Field(max_length=200)] = "validation"
    value: Share
    low: Share
    high: Share
    n: Count


FITTED = ("calibration: ", "unlabeled: ")
"""How the sources are named to which a finished model was fitted."""


class TrainingSource(_Record):
    """How many cells of each class one source gave to the training."""

    source: Annotated[str, Field(max_length=200)]
    counts: Annotated[dict[Label, Count], Field(max_length=200)]


class BundleInfo(_Record):
    """Everything about a model but its weights.

    Attributes
    ----------
    name, arch, options : the model, its architecture in the registry, and the options it was built with
    scheme : the classes in the order of the outputs
    crop : how crops are cut for it; ``input_size`` (height, width) is what they are resized to
    normalization : see ``Normalization``
    temperature : the logits are divided by it, fitted on validation cells; above 0
    min_confidence : a cell whose highest probability is lower is unidentified; 0 to 1, 0 for never
    max_distance : a cell farther from the training cells (``Prediction.distance``) is unidentified; None for never
    confusion : counts of the validation cells, true class by row; None where there was no validation
    confusions : the same by source, without the cells that the limits above leave unidentified: what a count meets
    training, metrics : what it learned from, and how well
    n_parameters, macs : Keras's way of counting; multiply-accumulates of one cell
    sha256 : of the tensors (names, types, shapes and bytes); set by ``save_bundle``
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: Text = ""
    arch: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    options: Annotated[dict[Label, Option], Field(max_length=64)] = Field(default_factory=dict)
    scheme: SchemeInfo
    crop: CropSpec
    input_size: tuple[Side, Side]
    normalization: Normalization = Normalization()
    temperature: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    min_confidence: Share = 0.0
    max_distance: Annotated[float, Field(ge=0, le=MAX_DISTANCE)] | None = None
    confusion: Matrix | None = None
    confusions: Annotated[dict[Annotated[str, Field(max_length=200)], Matrix], Field(max_length=MAX_SOURCES)] = Field(
        default_factory=dict
    )
    training: Annotated[tuple[TrainingSource, ...], Field(max_length=MAX_SOURCES)] = ()
    metrics: Annotated[tuple[Metric, ...], Field(max_length=5000)] = ()
    n_parameters: Count = 0
    macs: Count = 0
    recipe: Annotated[dict[Label, Setting | None], Field(max_length=200)] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    version: Annotated[str, Field(max_length=64)] = ""
    created: Annotated[str, Field(max_length=64)] = ""
    license: Annotated[str, Field(max_length=200)] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _parts_fit(self) -> BundleInfo:
        if not 8 <= self.crop.size <= MAX_CROP:
            raise ValueError(f"a crop of {self.crop.size} pixels is out of range (8 to {MAX_CROP})")
        if not (0 < self.crop.side_um <= MAX_SIDE_UM and 0 < self.crop.context <= MAX_CONTEXT):
            raise ValueError("the side or context of the crop is out of range")
        n = len(self.scheme.classes)
        for matrix in (self.confusion or ((0,) * n,) * n, *self.confusions.values()):
            if len(matrix) != n or any(len(row) != n for row in matrix):
                raise ValueError(f"the confusion matrix is not {n} by {n}, one row and column a class")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the outputs."""
        return tuple(entry.name for entry in self.scheme.classes)

    @property
    def learned(self) -> tuple[bool, ...]:
        """Whether the training had cells of each class (or a calibration since); all, where the bundle does not say."""
        told = any(s.counts for s in self.training if not s.source.startswith(FITTED))
        seen = {name for source in self.training for name, n in source.counts.items() if n}
        return tuple(not told or name in seen for name in self.class_names)

    @property
    def class_scheme(self) -> ClassScheme:
        """The scheme as the rest of the program knows it."""
        from napari_bloodcells.core.classes import parse_scheme

        classes = [entry.model_dump(exclude={"key"} if not entry.key else None) for entry in self.scheme.classes]
        listed = [{**entry, "aliases": list(entry["aliases"])} for entry in classes]
        return parse_scheme({"name": self.scheme.name, "classes": listed}, self.name)

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of its model, as plain JSON: all that a report needs where the model itself is gone.

        ``confusion`` is (C, C), or (S, C, C) where the validation cells are known by source (whose names are left
        out), or None.
        """
        from napari_bloodcells.core.classes import scheme_data

        plain = self.model_dump(mode="json", include={"name", "arch", "sha256", "confusion", "confusions"})
        by_source = list(plain.pop("confusions").values())
        return {**plain, "confusion": by_source or plain["confusion"], "scheme": scheme_data(self.class_scheme)}


def count_confusions(
    sources: Iterable[str], truth: NDArray[np.int64], called: NDArray[np.int64], n: int
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """``confusions`` of N validation cells of ``n`` classes: a matrix for each source, in the order of its name.

    >>> import numpy as np
    >>> count_confusions(["b", "a", "b"], np.array([0, 1, 0]), np.array([0, 1, 1]), 2)
    {'a': ((0, 0), (0, 1)), 'b': ((1, 1), (0, 0))}
    """
    named = [str(source) for source in sources]
    found = {name: [[0] * n for _ in range(n)] for name in sorted(set(named))}
    for name, true, said in zip(named, truth, called, strict=True):
        found[name][int(true)][int(said)] += 1
    return {name: tuple(map(tuple, matrix)) for name, matrix in found.items()}


def scheme_info(scheme: ClassScheme) -> SchemeInfo:
    """The record of a class scheme, to go into a bundle."""
    from dataclasses import asdict

    return SchemeInfo(name=scheme.name, classes=tuple(ClassEntry(**asdict(c)) for c in scheme.classes))
