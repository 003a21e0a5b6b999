"""Photographs on disk as one image layer: a single field, or a series that is read field by field as it is browsed.

Files are read by the core, upright and in color.  Fields of other sizes in one series are filled up with white at the
right and below, so that no coordinate changes; ``metadata`` keeps the true sizes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import BloodcellsError, DataWarning, ImageError
from napari_bloodcells.core.images import image_size, read_image
from napari_bloodcells.napari.fields import METADATA

EMPTY_GROUND = 255
_LOG = logging.getLogger(__name__)


def image_layer(
    paths: Sequence[Path], names: Sequence[str] | None = None, title: str | None = None
) -> tuple[Any, dict[str, Any], str]:
    """Layer data of one photograph, or of a series of them.

    Parameters
    ----------
    paths : sequence of Path
    names : sequence of str, optional
        As they stand in the column ``image``; without them the names of the files.
    title : str, optional
        Name of the layer.

    Raises
    ------
    ImageError
        None of the files can be read.

    Warns
    -----
    DataWarning
        For each file that is left out because it cannot be read.
    """
    names = [p.name for p in paths] if names is None else names
    if len(paths) == 1:
        image = read_image(paths[0])
        return image, _keywords(title or names[0], paths, names, [image.shape[:2]]), "image"
    kept: list[tuple[Path, str, tuple[int, int]]] = []
    for path, name in zip(paths, names, strict=True):
        try:
            kept.append((path, name, image_size(path)))
        except BloodcellsError as error:
            warnings.warn(f"{error} Left out of the series.", DataWarning, stacklevel=2)
    if not kept:
        raise ImageError(f"{title or names[0]}: none of its {len(paths)} images can be read.")
    height, width = max(s[0] for _, _, s in kept), max(s[1] for _, _, s in kept)
    stack = _lazy_stack([path for path, _, _ in kept], (height, width))
    keywords = _keywords(title or paths[0].parent.name, *zip(*((p, n) for p, n, _ in kept), strict=True), [])
    keywords["metadata"][METADATA]["sizes"] = [list(size) for _, _, size in kept]
    return stack, keywords, "image"


def _lazy_stack(paths: Sequence[Path], size: tuple[int, int]) -> Any:
    import dask.array as da
    from dask import delayed

    shape = (*size, 3)
    planes = [da.from_delayed(delayed(read_padded)(path, size), shape, np.uint8) for path in paths]
    return da.stack(planes)


def read_padded(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A photograph filled up to ``size`` (height, width) with white; all white where it cannot be read any more."""
    field = np.full((*size, 3), EMPTY_GROUND, np.uint8)
    try:
        image = read_image(path)[: size[0], : size[1]]
    except BloodcellsError as error:
        _LOG.warning("%s", error)
        return field
    field[: image.shape[0], : image.shape[1]] = image
    return field


def _keywords(title: str, paths: Sequence[Path], names: Sequence[str], sizes: Sequence[Any]) -> dict[str, Any]:
    known = {
        "paths": [str(p) for p in paths],
        "images": list(names),
        "sizes": [list(s) for s in sizes],
        "reader": "core",
    }
    return {"name": title, "rgb": True, "metadata": {METADATA: known}}
