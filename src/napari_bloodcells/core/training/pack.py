"""A whole data set as one tensor of crops, cut once and kept on disk.

Trainings read the same cells hundreds of times; decoding them each time would take longer than the network.
``pack_crops`` reads each photograph once, cuts its cells as counting does (``crops.py``) and keeps the result in the
user's cache folder under a key of everything that went in: files, boxes, labels, crop settings.  An entry is written
under another name and renamed, so a pack that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.central import box_of_image
from napari_bloodcells.core.crops import WBC_BOX_UM, CropSpec, cut_crops
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled

if TYPE_CHECKING:
    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.datasets import DataSet, Sample

IMAGE_WIDTH_UM = {"pbc": 37.3, "jtsc": 22.2, "cellavision": 27.3, "chula": 145.5, "bccd": 46.7, "raabin": 33.2}
"""Width in micrometers of one image of the published sources, measured once on their red cells (7.5 um; for ``jtsc``,
where a cut cell shows hardly any, on its white cells against those of the others).  A measured scale of the field
itself goes first."""

_VERSION = 3


@dataclass(frozen=True)
class CropPack:
    """The crops of a data set.

    Attributes
    ----------
    crops : (N, 3, S, S) uint8 tensor
    extent : (N,) float32 tensor
        Longest side of each cell's box, in pixels of the crop.
    labels : (N,) int64 tensor
        Position in the class scheme; -1 where the cell has no label of the scheme.
    groups, sources, splits, images : tuples of N str
        Original cell or slide, data set, published part (``""`` for none), name of the photograph.
    """

    crops: Tensor
    extent: Tensor
    labels: Tensor
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    splits: tuple[str, ...]
    images: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)


def pack_crops(
    dataset: DataSet, spec: CropSpec, scheme: ClassScheme, progress: Progress | None = None, cache: Path | None = None
) -> CropPack:
    """Cut all cells of a data set, or take them from the cache.

    Parameters
    ----------
    dataset : DataSet
    spec : CropSpec
    scheme : ClassScheme
        Gives the labels their numbers; a finer type that the source tells (``detail``) goes first.
    progress : Progress, optional
    cache : Path, optional
        Folder for packs; by default ``$BLOODCELLS_CACHE`` or the user's cache folder.

    Returns
    -------
    CropPack
        In the order of ``dataset.samples``.

    Raises
    ------
    ImageError
        When a photograph cannot be read.
    Cancelled
        When the user stops; nothing is kept then.
    """
    labels = torch.tensor([_label(s, scheme) for s in dataset.samples], dtype=torch.int64)
    place = (cache or _cache_folder()) / "packs" / _key(dataset, spec)
    crops, extent = _load(place) or _cut_and_keep(dataset, spec, progress or Silent(), place)
    samples = dataset.samples
    return CropPack(
        crops,
        extent,
        labels,
        tuple(s.group for s in samples),
        tuple(s.source for s in samples),
        tuple(s.split or "" for s in samples),
        tuple(s.image.name for s in samples),
    )


def sample_scale(sample: Sample, image: NDArray[np.uint8]) -> float | None:
    """Micrometers per pixel of the photograph of ``sample``: measured in it, known of its source, or None."""
    if sample.um_per_pixel is not None:
        return sample.um_per_pixel
    width_um = IMAGE_WIDTH_UM.get(sample.source)
    return None if width_um is None else width_um / image.shape[1]


def _label(sample: Sample, scheme: ClassScheme) -> int:
    for name in (sample.detail, sample.label):
        index = scheme.index(name) if name else None
        if index is not None:
            return index
    return -1


def _cut_and_keep(dataset: DataSet, spec: CropSpec, progress: Progress, place: Path) -> tuple[Tensor, Tensor]:
    crops = torch.empty((len(dataset), 3, spec.size, spec.size), dtype=torch.uint8)
    extent = torch.empty(len(dataset))
    task = f"cropping {dataset.name}"
    progress.start(task, len(dataset))
    numbered = list(enumerate(dataset.samples))
    photographs = [list(cells) for _, cells in groupby(numbered, key=lambda item: item[1].image)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        pending = 64
        for start in range(0, len(photographs), pending):
            check_cancelled(progress)
            part = photographs[start : start + pending]
            for cells, (cut, sides) in zip(part, pool.map(lambda c: _cut_one(c, spec), part), strict=True):
                at = [i for i, _ in cells]
                crops[at], extent[at] = cut, sides
                progress.advance(task, len(cells))
    _store(place, crops, extent)
    return crops, extent


def _cut_one(cells: Sequence[tuple[int, Sample]], spec: CropSpec) -> tuple[Tensor, Tensor]:
    """The crops of the cells of one photograph."""
    image = read_image(cells[0][1].image)
    cut, sides = [], []
    for _, sample in cells:
        box = box_of_image(image, spec.scale) if sample.box is None else np.asarray(sample.box, np.float32)
        scale = sample_scale(sample, image)
        longest = float(max(box[2] - box[0], box[3] - box[1]))
        um = longest * scale if scale is not None else WBC_BOX_UM
        cut.append(cut_crops(image, box[None], spec, scale))
        sides.append(um * spec.size / spec.side_um if spec.scale == "um" else spec.size / spec.context)
    return torch.cat(cut), torch.tensor(sides, dtype=torch.float32)


def _cache_folder() -> Path:
    named = os.environ.get("BLOODCELLS_CACHE")
    if named:
        return Path(named)
    import pooch

    return Path(pooch.os_cache("napari-bloodcells"))


def _key(dataset: DataSet, spec: CropSpec) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(spec), IMAGE_WIDTH_UM], sort_keys=True).encode())
    for sample in dataset.samples:
        found = sample.image.stat()
        entry: list[Any] = [str(sample.image.resolve()), found.st_size, found.st_mtime_ns]
        digest.update(json.dumps([*entry, sample.box, sample.um_per_pixel, sample.source]).encode())
    return f"{dataset.name[:40]}-{digest.hexdigest()[:24]}"


def _load(place: Path) -> tuple[Tensor, Tensor] | None:
    if not place.is_dir():
        return None
    crops, extent = np.load(place / "crops.npy"), np.load(place / "extent.npy")
    return torch.from_numpy(crops), torch.from_numpy(extent)


def _store(place: Path, crops: Tensor, extent: Tensor) -> None:
    """Keep a pack; where the cache cannot be written the pack is used all the same."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    except OSError:
        return
    try:
        np.save(folder / "crops.npy", crops.numpy())
        np.save(folder / "extent.npy", extent.numpy())
        folder.rename(place)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
