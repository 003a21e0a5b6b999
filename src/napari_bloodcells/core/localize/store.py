"""A trained localizer on disk: a folder with ``localizer.safetensors`` and ``localizer.json``, read with suspicion.

The same manner as ``core.bundle`` (no pickle, a schema with limits, SHA-256 of the tensors); other file names, because
a localizer is no classifier and ``models list`` must not take one for the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors

from napari_bloodcells.core.bundle import hash_tensors
from napari_bloodcells.core.errors import BundleError, OutputError
from napari_bloodcells.core.files import display_name, make_folder, read_regular, write_atomic
from napari_bloodcells.core.localize.eightbit import Range, eight_bit_convolutions
from napari_bloodcells.core.localize.home import DEFAULT, METADATA, WEIGHTS, home, is_localizer
from napari_bloodcells.core.localize.net import CLASSES, CellNet, NetSettings, count_macs, n_parameters

__all__ = [
    "DEFAULT",
    "METADATA",
    "WEIGHTS",
    "Calibration",
    "EightBitRange",
    "LocalizerInfo",
    "describe",
    "home",
    "is_localizer",
    "metadata_text",
    "read_localizer",
    "save_localizer",
]

_MAX_WEIGHTS = 64 * 2**20
_MAX_METADATA = 2**20

Channels = Annotated[int, Field(ge=8, le=512)]
Number = Annotated[float, Field(ge=-1e3, le=1e3)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Calibration(_Record):
    """For one class: ``1 / (1 + exp(-(slope * logit + offset - red * r + dark * d)))`` is how often such a box is a
    true cell, where ``r`` and ``d`` are what its field says of it (``evidence.py``; for white cells only)."""

    slope: Annotated[float, Field(gt=0, le=100)] = 1.0
    offset: Number = 0.0
    red: Annotated[float, Field(ge=0, le=100)] = 0.0
    dark: Annotated[float, Field(ge=0, le=100)] = 0.0


class EightBitRange(_Record):
    """Range of what a convolution is given: see ``eightbit.Range``."""

    low: Annotated[float, Field(ge=-1e6, le=0)] = 0.0
    high: Annotated[tuple[Annotated[float, Field(ge=0, le=1e6)], ...], Field(min_length=1, max_length=512)]


class LocalizerInfo(_Record):
    """What ``localizer.json`` says.

    ``thresholds`` are calibrated scores from which a WBC, RBC and platelet is reported; ``eight_bit`` the range of
    what each convolution is given, without which it stays in float32 (``eightbit.py``); ``training`` says on what it
    was trained and how, ``metrics`` what it reached on validation data (free of form, for people).
    """

    name: Annotated[str, Field(min_length=1, max_length=64)] = DEFAULT
    version: Annotated[str, Field(max_length=32)] = ""
    channels: tuple[Channels, Channels, Channels, Channels] = NetSettings().channels
    blocks: tuple[
        Annotated[int, Field(ge=0, le=8)], Annotated[int, Field(ge=0, le=8)], Annotated[int, Field(ge=0, le=8)]
    ] = NetSettings().blocks
    head: Channels = NetSettings().head
    classes: tuple[str, str, str] = CLASSES
    calibration: tuple[Calibration, Calibration, Calibration] = (Calibration(), Calibration(), Calibration())
    thresholds: tuple[Share, Share, Share] = (0.3, 0.3, 0.3)
    eight_bit: Annotated[dict[str, EightBitRange], Field(max_length=64)] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict, max_length=64)
    metrics: dict[str, Any] = Field(default_factory=dict, max_length=64)
    sha256: Annotated[str, Field(max_length=64)] = ""

    @property
    def net(self) -> NetSettings:
        """How the network is built."""
        return NetSettings(self.channels, self.blocks, self.head)

    @property
    def ranges(self) -> dict[str, Range]:
        """``eight_bit`` as the network takes it."""
        return {name: Range(found.low, found.high) for name, found in self.eight_bit.items()}


def describe(name: str | Path = "default") -> dict[str, Any]:
    """What ``models info find`` prints: name, parameters, size in bytes, multiplications for a 640x480 field.

    Examples
    --------
    >>> describe()["parameters"]                                        # doctest: +SKIP
    951983
    """
    info, net = read_localizer(name)
    return {
        "name": info.name,
        "version": info.version,
        "classes": info.classes,
        "parameters": n_parameters(net),
        "bytes": (home(name) / WEIGHTS).stat().st_size,
        "macs_640x480": count_macs(info.net),
        "thresholds": dict(zip(info.classes, info.thresholds, strict=True)),
        "training": info.training,
        "metrics": info.metrics,
        "sha256": info.sha256,
    }


def save_localizer(
    folder: str | Path, net: CellNet, info: LocalizerInfo, *, half: bool = False, overwrite: bool = False
) -> Path:
    """Write ``net``, ``half`` in 16 bits, and ``info`` (its ``sha256`` is filled in) into ``folder``, and return it.

    Raises
    ------
    OutputError
        If there is one already, or the folder cannot be written.
    """
    folder = Path(folder)
    kind = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", kind).contiguous() for name, t in net.state_dict().items()}
    info = info.model_copy(update={"sha256": hash_tensors(tensors)})
    make_folder(folder)
    if not overwrite and (folder / METADATA).exists():
        raise OutputError(f"{display_name(folder)}: holds a localizer already; choose another folder.")
    write_atomic(folder / WEIGHTS, dump_safetensors(tensors), overwrite=overwrite)
    write_atomic(folder / METADATA, metadata_text(info).encode(), overwrite=overwrite)
    return folder


def metadata_text(info: LocalizerInfo) -> str:
    """``localizer.json``, each list of numbers on one line."""
    text = info.model_dump_json(indent=1)
    return re.sub(r"\[[-+.\deE,\s]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def read_localizer(name: str | Path = "default") -> tuple[LocalizerInfo, CellNet]:
    """Read and check a localizer.

    Raises
    ------
    BundleError
        If there is none, or it is damaged, or its parts do not fit each other.
    """
    folder = home(name)
    shown = display_name(folder)
    if not (folder / METADATA).is_file():
        raise BundleError(f"{shown}: no localizer: it holds no {METADATA}.")
    try:
        info = LocalizerInfo.model_validate_json(read_regular(folder / METADATA, _MAX_METADATA, BundleError))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"][:6]) or METADATA
        raise BundleError(f"{shown}: its metadata cannot be used: {where}: {first['msg']}.") from None
    if info.classes != CLASSES:
        raise BundleError(f"{shown}: finds {', '.join(info.classes)}; this version knows {', '.join(CLASSES)}.")
    try:
        tensors = parse_safetensors(read_regular(folder / WEIGHTS, _MAX_WEIGHTS, BundleError))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise BundleError(f"{shown}: its weights are no whole safetensors file ({error}).") from None
    if info.sha256 != hash_tensors(tensors):
        raise BundleError(f"{shown}: its weights are not those it was made with (SHA-256 differs); fetch it again.")
    net = CellNet(info.net)
    wanted = {key: tensor.shape for key, tensor in net.state_dict().items()}
    if wanted != {key: tensor.shape for key, tensor in tensors.items()}:
        raise BundleError(f"{shown}: its weights do not fit the network that its metadata describe.")
    if any(tensor.is_complex() or not torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
        raise BundleError(f"{shown}: a weight is no number (NaN, infinite or complex).")
    net.load_state_dict(tensors)
    convolutions = eight_bit_convolutions(net)
    for name, found in info.eight_bit.items():
        if name not in convolutions or convolutions[name].in_channels != len(found.high):
            raise BundleError(f"{shown}: its 8-bit ranges of {name[:40]!r} do not fit its network.")
    return info, net.eval()
