"""A model put where all find it by its name: a bundle that was trained here or fetched from others, in 16 bits.

It becomes a folder of ``$BLOODCELLS_MODELS`` or of the user's cache folder (``installed.py``), whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from napari_bloodcells.core.bundle import MODEL_NAME, read_bundle, save_bundle
from napari_bloodcells.core.errors import BundleError, OutputError, UsageError
from napari_bloodcells.core.files import PART, display_name, make_folder
from napari_bloodcells.core.installed import model_homes

TAKEN = ("default", "find", "classical")
"""Names that mean something else."""


def check_installable(name: str) -> Path:
    """The folder in which ``install_model`` would put a model of that name.

    Raises
    ------
    UsageError
        If it is no name for a model, or that of one in the package.
    OutputError
        If a model of that name is installed.
    """
    package, *own = model_homes()
    if not MODEL_NAME.fullmatch(name) or name in TAKEN:
        raise UsageError(f"{name!r} is no name for a model: take letters, digits, dots, dashes and underscores.")
    if (package / name).exists():
        raise UsageError(f"{name}: a model of that name comes with the package; choose another name.")
    place = own[0] / name
    if place.exists():
        raise OutputError(f"{place}: a model of that name is installed already; remove that folder or choose another.")
    return place


def install_model(bundle: str | Path, name: str | None = None) -> Path:
    """Copy a bundle to where models are found by their names, its weights in 16 bits.

    Parameters
    ----------
    bundle : path
        A bundle's folder or file; it is checked as on every loading.
    name : str, optional
        By default that of the bundle itself.

    Returns
    -------
    Path
        Its folder.

    Raises
    ------
    BundleError
        If the bundle is none, or its weights do not fit into 16 bits.
    UsageError, OutputError
        For a name that cannot be had (``check_installable``), or a folder that cannot be written.
    """
    info, module, space = read_bundle(bundle)
    name = name or info.name
    place = check_installable(name)
    tensors = [*module.state_dict().values()] + ([] if space is None else [space.whiten, space.means])
    largest = max(float(t.abs().max()) for t in tensors)
    if largest > torch.finfo(torch.float16).max:
        raise BundleError(f"{display_name(bundle)}: holds weights up to {largest:.3g}, too large for 16 bits.")
    make_folder(place.parent)
    half = None
    try:
        half = Path(tempfile.mkdtemp(prefix=PART, dir=place.parent))
        save_bundle(half, module, info.model_copy(update={"name": name}), space=space, half=True)
        half.chmod(0o755)  # as a folder that mkdir makes: others may use it too
        half.rename(place)
    except OSError as error:
        raise OutputError(
            f"{place}: cannot be written ({error.strerror or error}); see to that, then models add."
        ) from None
    finally:
        if half is not None:
            shutil.rmtree(half, ignore_errors=True)
    return place
