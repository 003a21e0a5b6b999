"""Recipes: every setting of a training in one frozen object, read from TOML, each field overridable.

``recipes/NAME.toml`` ships with the package (one for each published architecture, one for each shipped model); a path
to a file of one's own does as well.  Tables of the file are the sections below (``[crop]``, ``[optimizer]``, ...), and
an override names a field with a dot: ``{"optimizer.lr": 0.01}``, on the command line ``--set optimizer.lr=0.01``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import display_name, read_regular
from napari_bloodcells.core.installed import recipe_names
from napari_bloodcells.core.schema import MAX_CONTEXT, MAX_CROP, MAX_DISTANCE, MAX_SIDE_UM
from napari_bloodcells.core.training.augment import AugmentSettings

DEFAULT = "wbc5"
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class InputSettings:
    """Normalization of the input per channel, for images from 0 to 1: ``(image - mean) / std``."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights move: ``l1`` is the strength of the penalty on ``Classifier.l1_parameters``; ``clip`` bounds the
    norm of the gradient (0: not)."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    l1: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate moves.

    ``plateau``: times ``factor`` after ``patience`` epochs without a lower validation loss, not under ``min_lr``.
    ``cosine``: up over the share ``warmup`` of the training, then down to ``min_lr`` along a cosine.  ``constant``.
    """

    name: Literal["constant", "plateau", "cosine"] = "plateau"
    factor: float = 0.5
    patience: int = 4
    min_lr: float = 1e-6
    warmup: float = 0.0


@dataclass(frozen=True)
class SamplerSettings:
    """Which cells an epoch shows.

    ``natural``: each once, shuffled.  ``class``: drawn so that classes of ``n`` cells come with a share of
    ``n ** temper`` (0: all classes alike, 1: as they are).  ``source_class``: so within each class by source too.
    ``epoch_cells`` is the length of an epoch (0: as many as there are cells).
    """

    name: Literal["natural", "class", "source_class"] = "class"
    temper: float = 0.0
    epoch_cells: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training gives, but for the data.

    Attributes
    ----------
    name, description : of the recipe
    arch, options : architecture of the registry and what to build it with
    scheme : class scheme, by name or path
    crop, input, optimizer, schedule, sampler : see their classes
    augment : ``none``, ``flip``, ``affine`` or ``stain`` (``core/training/augmentation.py``)
    stain : strengths of the ``stain`` augmentation; its size is that of the crop
    batch_size : cells in a step
    epochs : at most so many; 0 for no limit (then ``max_minutes`` or ``patience`` must stop it)
    max_minutes : of training time, 0 for no limit; such a run depends on the speed of the machine
    patience : epochs without a better validation result before it stops early, 0 for never
    label_smoothing : 0 to 1
    ema : decay a step of the averaged weights that are kept, 0 for none
    shape : how much the last layer listens to the shape of cell and nucleus beside what it learned, 0 for not at all
        (``core/training/shape.py``)
    val_fraction : share of the cells kept for validation, by groups
    use_test : whether cells that the publisher put in a test part are used as well; they are left out by default
    precision : ``auto`` (bfloat16 where the processor multiplies it natively) or ``float32``
    seed : of everything drawn at random
    max_distance : beyond so many times the 99th percentile of the validation cells' feature distance a cell is
        unidentified; 0 for never
    min_confidence : below it a cell is unidentified
    license : of the trained weights
    """

    name: str
    arch: str
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    scheme: str = "wbc5"
    crop: CropSpec = field(default_factory=CropSpec)
    input: InputSettings = field(default_factory=InputSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    augment: Literal["none", "flip", "affine", "stain"] = "none"
    stain: AugmentSettings = field(default_factory=AugmentSettings)
    batch_size: int = 64
    epochs: int = 30
    max_minutes: float = 0.0
    patience: int = 0
    label_smoothing: float = 0.0
    ema: float = 0.0
    shape: float = 0.0
    val_fraction: float = 0.15
    use_test: bool = False
    precision: Literal["auto", "float32"] = "auto"
    seed: int = 0
    max_distance: float = 0.0
    min_confidence: float = 0.5
    license: str = "BSD-3-Clause"

    def __post_init__(self) -> None:
        limits = (
            ("batch_size", self.batch_size, 1, 100_000),
            ("epochs", self.epochs, 0, 1_000_000),
            ("max_minutes", self.max_minutes, 0, 1e6),
            ("patience", self.patience, 0, 1_000_000),
            ("label_smoothing", self.label_smoothing, 0, 0.999),
            ("ema", self.ema, 0, 0.999999),
            ("shape", self.shape, 0, 10),
            ("val_fraction", self.val_fraction, 0.01, 0.9),
            ("seed", self.seed, 0, 2**63 - 1),
            ("optimizer.lr", self.optimizer.lr, 1e-9, 1e3),
            ("optimizer.momentum", self.optimizer.momentum, 0, 1),
            ("optimizer.weight_decay", self.optimizer.weight_decay, 0, 1e3),
            ("optimizer.l1", self.optimizer.l1, 0, 1e3),
            ("optimizer.clip", self.optimizer.clip, 0, 1e6),
            ("schedule.factor", self.schedule.factor, 0, 0.999),
            ("schedule.patience", self.schedule.patience, 0, 1_000_000),
            ("schedule.min_lr", self.schedule.min_lr, 0, 1e3),
            ("schedule.warmup", self.schedule.warmup, 0, 1),
            ("sampler.temper", self.sampler.temper, 0, 1),
            ("sampler.epoch_cells", self.sampler.epoch_cells, 0, 1e9),
            ("crop.size", self.crop.size, 8, MAX_CROP),
            ("crop.side_um", self.crop.side_um, 0, MAX_SIDE_UM),
            ("crop.context", self.crop.context, 0, MAX_CONTEXT),
            ("min_confidence", self.min_confidence, 0, 1),
            ("max_distance", self.max_distance, 0, MAX_DISTANCE),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise UsageError(f"recipe {self.name}: {name} must be {low:g} to {high:g}, not {value:g}.")
        if not (self.epochs or self.max_minutes or self.patience):
            raise UsageError(f"recipe {self.name}: nothing would stop it; set epochs, max_minutes or patience.")

    def with_overrides(self, overrides: Mapping[str, Any]) -> Recipe:
        """The recipe with some fields replaced; a key is a field, with a dot for one of a section.

        >>> recipe = Recipe("mine", "cnn3").with_overrides({"epochs": 3, "optimizer.lr": "0.01"})
        >>> recipe.epochs, recipe.optimizer.lr
        (3, 0.01)
        """
        tree: dict[str, Any] = {}
        for key, value in overrides.items():
            section, _, name = key.partition(".")
            if name:
                tree.setdefault(section, {})[name] = value
            else:
                tree[key] = value
        changed: Recipe = _fill(self, tree, f"recipe {self.name}")
        return changed

    def flat(self) -> dict[str, Any]:
        """All fields as ``{"optimizer.lr": 0.001, ...}``, for a bundle's metadata."""
        found: dict[str, Any] = {}
        for name, value in asdict(self).items():
            found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        return found


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe: ``default``, a name of ``recipe_names``, or the path of a TOML file.

    Raises
    ------
    UsageError
        If there is none, or it is not one; the message names the field.

    Examples
    --------
    >>> load_recipe("cnn6").crop.size
    200
    """
    name = DEFAULT if str(name_or_path) == "default" else str(name_or_path)
    if name in recipe_names():
        text = (files("napari_bloodcells") / "recipes" / f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name)
        if not path.exists():
            known = ", ".join(recipe_names())
            raise UsageError(f"{name}: no such recipe; there are {known}, or name a TOML file of your own.")
        name = path.stem
        try:
            text = read_regular(path, _MAX_BYTES, UsageError).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"{display_name(path)}: is not UTF-8 text ({error.reason}).") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: is no TOML: {error}.") from None
    if not isinstance(data.get("arch"), str):
        raise UsageError(f"{name}: a recipe needs arch, the name of an architecture.")
    read: Recipe = _fill(Recipe(str(data.get("name", name)), data["arch"]), data, name)
    return read


def _fill(settings: Any, data: Mapping[str, Any], where: str) -> Any:
    """``settings`` (a frozen dataclass) with the values of ``data`` in their declared types."""
    hints = get_type_hints(type(settings))
    known = {f.name for f in fields(settings)}
    changes: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise UsageError(f"{where}: unknown setting {key!r}; there are {', '.join(sorted(known))}.")
        old = getattr(settings, key)
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: {key} is a section with settings of its own.")
            changes[key] = _fill(old, value, f"{where}: {key}")
        elif isinstance(old, Mapping):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: {key} is a section with settings of its own.")
            changes[key] = {**old, **{k: _number_or_text(v) for k, v in value.items()}}
        else:
            changes[key] = _convert(value, hints[key], f"{where}: {key}")
    try:
        return replace(settings, **changes)
    except ValueError as error:
        raise UsageError(f"{where}: {error}.") from None


def _convert(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, not {value!r}.")
        return value
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != len(get_args(kind)):
            raise UsageError(f"{where} needs {len(get_args(kind))} numbers, not {value!r}.")
        return tuple(_convert(part, float, where) for part in parts)
    if kind is bool:
        if isinstance(value, str) and value.casefold() in ("true", "false", "yes", "no", "1", "0"):
            return value.casefold() in ("true", "yes", "1")
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false, not {value!r}.")
        return value
    try:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float | str)
            or (kind is int and isinstance(value, float) and not value.is_integer())
        ):
            raise ValueError
        return kind(value)
    except (ValueError, OverflowError):
        word = {int: "a whole number", float: "a number", str: "a text"}.get(kind, str(kind))
        raise UsageError(f"{where} must be {word}, not {value!r}.") from None


def _number_or_text(value: Any) -> Any:
    """What a value of ``[options]`` given on the command line means."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(value.casefold(), value)
