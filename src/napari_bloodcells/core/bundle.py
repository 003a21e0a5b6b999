"""Model bundles: safetensors weights and JSON metadata, read with suspicion, never a pickle.

A bundle is a folder with ``model.safetensors`` and ``model.json``, or one ``.safetensors`` file that carries the JSON
in its header.  Everything is checked before a weight is used: the schema and its limits, the SHA-256 of the tensors,
their names, shapes and values.  ``model.py`` computes with what was read here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from napari_bloodcells.core.bundleinfo import (
    MAX_METADATA,
    MAX_WEIGHTS,
    METADATA,
    MODEL_NAME,
    WEIGHTS,
    find_bundle,
    installed_bundles,
    installed_models,
    parse_info,
    read_info,
    read_metadata,
)
from napari_bloodcells.core.errors import BundleError, OutputError, UsageError
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.files import display_name, make_folder, read_regular, write_atomic
from napari_bloodcells.core.model import Model, Prediction
from napari_bloodcells.core.models import architecture
from napari_bloodcells.core.schema import BundleInfo

if TYPE_CHECKING:
    from napari_bloodcells.core.models.classifier import Classifier

__all__ = [
    "MAX_METADATA",
    "METADATA",
    "MODEL_NAME",
    "WEIGHTS",
    "BundleInfo",
    "Model",
    "Prediction",
    "find_bundle",
    "installed_bundles",
    "installed_models",
    "load_model",
    "read_info",
    "save_bundle",
]

_HEADER_KEY = "bloodcells"
_SPACE = {"distance.whiten", "distance.means"}
_DRIFT = {"distance.drift", "distance.within"}
"""Of a feature space that knows several microscopes (``FeatureSpace``); bundles of version 0.1 have none."""


def load_model(name_or_path: str | Path = "default", device: str = "auto", *, unrounded: bool = False) -> Model:
    """Load a model that came with the package, or a bundle of your own.

    Parameters
    ----------
    name_or_path : str or Path
        ``default``, the name of an installed model (see ``installed_models``), the folder of a bundle, or a single
        ``.safetensors`` file.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    unrounded : bool
        Keep the weights as they were read beside those that compute (``Model.unrounded``), to make another model of it.

    Raises
    ------
    BundleError
        If there is no such model, or the bundle is damaged, does not fit itself, or is a pickle.
    UsageError
        For a device that is not there.

    Examples
    --------
    >>> model = load_model("default", device="cpu")      # doctest: +SKIP
    >>> model.info.class_names                           # doctest: +SKIP
    ('neutrophil', 'eosinophil', 'basophil', 'lymphocyte', 'monocyte')
    """
    from napari_bloodcells.core.devices import pick_device

    info, module, space = read_bundle(name_or_path)
    return Model(info, module, space, pick_device(device), unrounded=unrounded)


def read_bundle(name_or_path: str | Path) -> tuple[BundleInfo, Classifier, FeatureSpace | None]:
    """The parts of a bundle, checked, on the CPU and in float32; see ``load_model``."""
    path = find_bundle(name_or_path)
    info, tensors = read_whole(path)
    return info, *_assemble(info, tensors, display_name(path))


def save_bundle(
    place: str | Path,
    module: Classifier,
    info: BundleInfo,
    *,
    space: FeatureSpace | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a bundle.

    Parameters
    ----------
    place : path
        A folder (made where it is missing), or a file ending in ``.safetensors`` for a bundle in one file.
    module : Classifier
        The trained network.
    info : BundleInfo
        Its metadata; ``sha256`` is filled in here.
    space : FeatureSpace, optional
        Of the training cells, for ``Prediction.distance``.
    half : bool
        Store the weights in 16 bits.
    overwrite : bool
        Replace a bundle that is there.

    Returns
    -------
    Path
        ``place``.

    Raises
    ------
    OutputError
        If it is there already, or cannot be written.
    """
    place = Path(place)
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in module.state_dict().items()}
    if space is not None:
        tensors |= {
            "distance.whiten": space.whiten.cpu().contiguous(),
            "distance.means": space.means.cpu().contiguous(),
        }
        if space.drift is not None:
            tensors |= {"distance.drift": space.drift.cpu().contiguous(), "distance.within": torch.tensor(space.within)}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    info = info.model_copy(update={"sha256": hash_tensors(tensors)})
    text = info.model_dump_json(indent=1)
    if place.suffix == ".safetensors":
        write_atomic(place, dump_safetensors(tensors, {_HEADER_KEY: text}), overwrite=overwrite)
        return place
    make_folder(place)
    if not overwrite and (place / METADATA).exists():
        raise OutputError(f"{place}: holds a model already; choose another folder.")
    write_atomic(place / WEIGHTS, dump_safetensors(tensors), overwrite=overwrite)
    write_atomic(place / METADATA, (text + "\n").encode(), overwrite=overwrite)
    return place


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, type, shape, bytes.

    The same for a folder and a single file, as it does not see how the file lays them out.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_whole(path: Path) -> tuple[BundleInfo, dict[str, Tensor]]:
    """Metadata and tensors of a bundle that ``find_bundle`` found, checked."""
    name = display_name(path)
    data = read_regular(path / WEIGHTS if path.is_dir() else path, MAX_WEIGHTS, BundleError)
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") or data[:4] == b"\x89HDF":
        raise BundleError(
            f"{name}: refused: it is called safetensors but is a pickle or HDF5 file, which may run programs."
        )
    try:
        tensors = parse_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise BundleError(f"{name}: its weights are no whole safetensors file ({error}).") from None
    info = parse_info(read_metadata(path) if path.is_dir() else _header_metadata(data, name), name)
    _check_tensors(info, tensors, name)
    return info, tensors


def _header_metadata(data: bytes, name: str) -> bytes:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = header.get("__metadata__", {}).get(_HEADER_KEY)
    if text is None:
        raise BundleError(
            f"{name}: holds weights but does not say of what: give the folder that holds its {METADATA} too."
        )
    encoded = str(text).encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_METADATA:
        raise BundleError(f"{name}: its metadata are larger than {MAX_METADATA / 2**20:.0f} MB.")
    return encoded


def _check_tensors(info: BundleInfo, tensors: dict[str, Tensor], name: str) -> None:
    head = tensors.get("head.weight")
    if head is not None and head.ndim == 2 and head.shape[0] != len(info.class_names):
        raise BundleError(
            f"{name}: its weights tell {head.shape[0]} classes apart but it names {len(info.class_names)}."
        )
    if info.sha256 != hash_tensors(tensors):
        said = info.sha256[:12] or "none"
        raise BundleError(
            f"{name}: its weights are not those it was made with (SHA-256 {hash_tensors(tensors)[:12]}..., its "
            f"metadata say {said}...): damaged or changed; fetch it again."
        )
    for key, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor.float()).all():  # as the network will hold it
            raise BundleError(f"{name}: the weights {key} hold a value that is no number (NaN, infinite or complex).")


def _assemble(info: BundleInfo, tensors: dict[str, Tensor], name: str) -> tuple[Classifier, FeatureSpace | None]:
    options: dict[str, Any] = dict(info.options)
    if options.get("weights", "none") != "none":  # that would fetch from the network, or read a file of this machine
        raise BundleError(f"{name}: asks for the weights {str(options['weights'])[:40]!r}, but must bring its own.")
    try:
        module = architecture(info.arch).skeleton(len(info.class_names), **options)
    except (UsageError, TypeError, ValueError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        raise BundleError(f"{name}: {info.arch} cannot be built with its options ({error}).") from None
    wanted = module.state_dict()
    for key, tensor in wanted.items():
        if key not in tensors:
            raise BundleError(f"{name}: the weights {key} are missing.")
        if tensors[key].shape != tensor.shape:
            raise BundleError(
                f"{name}: the weights {key} have the shape {tuple(tensors[key].shape)}, "
                f"{info.arch} needs {tuple(tensor.shape)}."
            )
    unknown = sorted(set(tensors) - set(wanted) - _SPACE - _DRIFT)
    if unknown:
        raise BundleError(f"{name}: holds weights that {info.arch} has no place for ({unknown[0]}).")
    module.load_state_dict({k: tensors[k].to(wanted[k].dtype) for k in wanted}, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval(), _space(tensors, module.head.in_features, len(info.class_names), name)


def _space(tensors: dict[str, Tensor], width: int, n_classes: int, name: str) -> FeatureSpace | None:
    there = (_SPACE | _DRIFT) & set(tensors)
    if not there:
        return None
    wanted = _SPACE | _DRIFT if there & _DRIFT else _SPACE
    if wanted - there:
        raise BundleError(f"{name}: the weights {min(wanted - there)} are missing.")
    whiten, means = (tensors[f"distance.{part}"].float() for part in ("whiten", "means"))
    fits = whiten.ndim == 2 and whiten.shape[0] == width and means.shape == (n_classes, whiten.shape[1])
    drift, within = None, 1.0
    if there & _DRIFT:
        drift, spread = (tensors[f"distance.{part}"].float() for part in ("drift", "within"))
        fits = fits and drift.ndim == 2 and drift.shape[1] == whiten.shape[1] and spread.ndim == 0
        within = float(spread) if fits else within
    if not fits:
        raise BundleError(
            f"{name}: the weights distance.* do not fit the network's {width} features and {n_classes} classes."
        )
    return FeatureSpace(whiten, means, drift, within)
