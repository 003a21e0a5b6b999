"""Where bundles are and what they say of themselves, told without loading torch.

``count`` asks this before its worker processes have imported torch, lists and windows ask nothing else;
``bundle.py`` reads the weights.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from napari_bloodcells.core.errors import BundleError
from napari_bloodcells.core.files import display_name, read_regular
from napari_bloodcells.core.installed import BUILT_BY, model_homes, not_built
from napari_bloodcells.core.models import architecture_names
from napari_bloodcells.core.schema import BundleInfo

WEIGHTS, METADATA = "model.safetensors", "model.json"
DEFAULT = "wbc5"
MAX_WEIGHTS = 2 * 2**30
MAX_METADATA = 4 * 2**20
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PICKLES = {".pth", ".pt", ".ckpt", ".bin", ".joblib", ".pkl", ".pickle", ".h5", ".hdf5", ".keras", ".npy", ".npz"}


def read_info(name_or_path: str | Path) -> BundleInfo:
    """The metadata of a bundle, checked against the schema; its weights are not read from a folder."""
    path = find_bundle(name_or_path)
    if path.is_dir():
        return parse_info(read_metadata(path), display_name(path))
    from napari_bloodcells.core.bundle import read_whole

    return read_whole(path)[0]  # the JSON of a single file lies among its weights


def installed_bundles() -> dict[str, Path]:
    """Folders of the models that came with the package or were put in its cache, by the name that ``find_bundle``
    takes, in the order of the names; nothing is read."""
    found: dict[str, Path] = {}
    for home in model_homes():
        for metadata in sorted(home.glob(f"*/{METADATA}")):
            found.setdefault(metadata.parent.name, metadata.parent)
    return {name: found[name] for name in sorted(found)}


def installed_models() -> tuple[BundleInfo, ...]:
    """What is known of the installed models, in the order of their names; one that cannot be read is left out."""
    found: list[BundleInfo] = []
    for folder in installed_bundles().values():
        with suppress(BundleError):
            found.append(read_info(folder))
    return tuple(found)


def find_bundle(name_or_path: str | Path) -> Path:
    """The folder or file that ``name_or_path`` means; see ``load_model``."""
    try:
        return _find(name_or_path)
    except OSError as error:
        shown, why = display_name(name_or_path), (error.strerror or str(error)).lower()
        raise BundleError(f"{shown}: cannot be opened: {why}; name a model or a bundle that may be read.") from None


def _find(name_or_path: str | Path) -> Path:
    name = DEFAULT if str(name_or_path) == "default" else str(name_or_path)
    if MODEL_NAME.fullmatch(name) and isinstance(name_or_path, str):
        for home in model_homes():
            if (home / name / METADATA).is_file():
                return home / name
    path = Path(name_or_path)
    _refuse_pickle(path)
    if path.is_dir():
        if not (path / METADATA).exists() and not (path / WEIGHTS).exists():
            for inside in sorted(path.iterdir()):
                _refuse_pickle(inside)
            raise BundleError(f"{display_name(path)}: no model bundle: it holds no {METADATA} and {WEIGHTS}.")
        return path
    if not path.exists():
        known = ", ".join(installed_bundles()) or "none"
        if name in BUILT_BY:
            raise BundleError(f"{name}: {not_built(name)}")
        raise BundleError(f"{name_or_path}: no such model; installed: {known}; or name a bundle's folder or file.")
    if path.suffix != ".safetensors":
        if path.name == METADATA:
            return path.parent
        raise BundleError(f"{display_name(path)}: no model bundle; name its folder or its .safetensors file.")
    return path.parent if path.name == WEIGHTS and (path.parent / METADATA).exists() else path


def _refuse_pickle(path: Path) -> None:
    if path.suffix.casefold() not in _PICKLES:
        return
    if path.suffix.casefold() in {".h5", ".hdf5", ".keras", ".npy", ".npz"}:
        how = "open it where it was made and save its arrays with safetensors.numpy.save_file"
    else:
        how = "load it with torch.load(..., weights_only=True) and save it with safetensors.torch.save_file"
    raise BundleError(
        f"{display_name(path)}: refused: such a file can run any program when it is opened; only safetensors and "
        f"JSON are read. To convert it, {how}, and write its model.json beside it (docs/models)."
    )


def read_metadata(folder: Path) -> bytes:
    """The bytes of ``model.json``."""
    return read_regular(folder / METADATA, MAX_METADATA, BundleError)


def parse_info(text: bytes, name: str) -> BundleInfo:
    """``model.json`` of the bundle called ``name``; ``BundleError`` with the first thing that is wrong."""
    try:
        info = BundleInfo.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{name}: its metadata cannot be used: {first_problem(error)}.") from None
    if info.arch not in architecture_names():
        known = ", ".join(architecture_names())
        raise BundleError(f"{name}: its architecture {info.arch!r} is not known here; known: {known}.")
    return info


def first_problem(error: ValidationError, *, own: bool = False) -> str:
    """The first thing that is wrong with metadata, in one line: where it stands, and what it should be.

    ``own`` shows the text or number itself as well; a stranger's is better not repeated.
    """
    first = error.errors(include_url=False, include_context=False, include_input=own)[0]
    where = ".".join(str(part)[:40] for part in first["loc"][:6]) or METADATA
    given = first.get("input")
    shown = f" {str(given)[:40]!r}" if isinstance(given, str | int | float) else ""
    return f"{where}{shown}: {first['msg']}"
