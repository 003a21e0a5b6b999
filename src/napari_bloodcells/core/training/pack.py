"""A whole data set as one tensor of crops, cut once and kept on disk.

Trainings read the same cells hundreds of times; decoding them each time would take longer than the network.
``pack_crops`` reads each photograph once, cuts its cells as counting does (``crops.py``) and keeps the result in the
user's cache folder under a key of everything that went in: files, boxes, scales, crop settings, and the localizer where
it has to measure a scale: that of a field with boxes of which no scale is known, as ``count --boxes xml`` does.  An
entry is written under another name and renamed, so a pack that is there was whole; one that was damaged since is cut
anew.
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
from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled

if TYPE_CHECKING:
    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.datasets import DataSet, Sample
    from napari_bloodcells.core.localize.learned import LearnedLocalizer


@dataclass(frozen=True)
class KnownImages:
    """The images of a published source, all at one scale: ``width_um`` across, ``sizes`` (width, height) in pixels.

    ``slack`` is by how many pixels their sides differ from these.
    """

    width_um: float
    sizes: tuple[tuple[int, int], ...]
    slack: int = 0

    def fits(self, height: int, width: int) -> bool:
        """Whether an image of ``height`` x ``width`` pixels can be one of them."""
        return any(abs(width - w) <= self.slack and abs(height - h) <= self.slack for w, h in self.sizes)


KNOWN_IMAGES = {
    "pbc": KnownImages(37.3, ((224, 224), (360, 363)), 8),
    "jtsc": KnownImages(22.2, ((120, 120),), 32),
    "cellavision": KnownImages(27.3, ((300, 300),)),
    "chula": KnownImages(145.5, ((960, 600), (1440, 900))),
    "bccd": KnownImages(46.7, ((640, 480),)),
    "raabin": KnownImages(33.2, ((575, 575),)),
}
"""The published sources' images, as published and as smaller copies, their width measured once on their red cells (7.5
um; for ``jtsc``, where a cut cell shows hardly any, on its white cells against those of the others).  A folder of that
name whose images have another size is somebody's own; a measured scale of the field itself goes first."""

_VERSION = 4


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
    localizer = _localizer_for(dataset, spec)
    place = (cache or cache_folder()) / "packs" / _key(dataset, spec, localizer)
    kept = _load(place, len(dataset), spec.size)
    crops, extent = kept or _cut_and_keep(dataset, spec, progress or Silent(), place, localizer)
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
    known = KNOWN_IMAGES.get(sample.source)
    height, width = image.shape[:2]
    return known.width_um / width if known is not None and known.fits(height, width) else None


def _localizer_for(dataset: DataSet, spec: CropSpec) -> LearnedLocalizer | None:
    """The default localizer where cells of the data set may have to be measured by it."""
    if spec.scale != "um" or all(s.box is None or s.um_per_pixel is not None for s in dataset.samples):
        return None
    from napari_bloodcells.core.localize.learned import load_learned

    return load_learned()


def _is_whole(box: tuple[float, float, float, float], image: NDArray[np.uint8]) -> bool:
    """Whether a box is the whole image: a picture of a single cell, in which no scale can be measured."""
    height, width = image.shape[:2]
    return box[0] < 1 and box[1] < 1 and box[2] > width - 1 and box[3] > height - 1


def _label(sample: Sample, scheme: ClassScheme) -> int:
    for name in (sample.detail, sample.label):
        index = scheme.index(name) if name else None
        if index is not None:
            return index
    return -1


def _cut_and_keep(
    dataset: DataSet, spec: CropSpec, progress: Progress, place: Path, localizer: LearnedLocalizer | None
) -> tuple[Tensor, Tensor]:
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
            for cells, (cut, sides) in zip(part, pool.map(lambda c: _cut_one(c, spec, localizer), part), strict=True):
                at = [i for i, _ in cells]
                crops[at], extent[at] = cut, sides
                progress.advance(task, len(cells))
    _store(place, crops, extent)
    return crops, extent


def _cut_one(
    cells: Sequence[tuple[int, Sample]], spec: CropSpec, localizer: LearnedLocalizer | None
) -> tuple[Tensor, Tensor]:
    """The crops of the cells of one photograph."""
    image = read_image(cells[0][1].image)
    cut, sides = [], []
    for (_, sample), scale in zip(cells, _scales(cells, image, localizer), strict=True):
        box = box_of_image(image, spec.scale) if sample.box is None else np.asarray(sample.box, np.float32)
        longest = float(max(box[2] - box[0], box[3] - box[1]))
        um = longest * scale if scale is not None else WBC_BOX_UM
        cut.append(cut_crops(image, box[None], spec, scale))
        sides.append(um * spec.size / spec.side_um if spec.scale == "um" else spec.size / spec.context)
    return torch.cat(cut), torch.tensor(sides, dtype=torch.float32)


def _scales(
    cells: Sequence[tuple[int, Sample]], image: NDArray[np.uint8], localizer: LearnedLocalizer | None
) -> list[float | None]:
    """Micrometers per pixel for each cell of one photograph, measured where it is a field of which none is known."""
    known = [sample_scale(sample, image) for _, sample in cells]
    asked = [
        scale is None and sample.box is not None and not _is_whole(sample.box, image)
        for (_, sample), scale in zip(cells, known, strict=True)
    ]
    if localizer is None or not any(asked):
        return known
    measured = localizer.find(image).um_per_pixel
    return [measured if ask else scale for ask, scale in zip(asked, known, strict=True)]


def cache_folder() -> Path:
    """Where what takes long to compute is kept: ``$BLOODCELLS_CACHE``, or the user's cache folder."""
    named = os.environ.get("BLOODCELLS_CACHE")
    if named:
        return Path(named)
    import pooch

    return Path(pooch.os_cache("napari-bloodcells"))


def _key(dataset: DataSet, spec: CropSpec, localizer: LearnedLocalizer | None) -> str:
    known = {name: asdict(images) for name, images in KNOWN_IMAGES.items()}
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(spec), known], sort_keys=True).encode())
    if localizer is not None:
        digest.update(localizer.info.model_dump_json().encode())
    for sample in dataset.samples:
        try:
            found = sample.image.stat()
        except OSError as error:
            raise ImageError(
                f"{display_name(sample.image)}: cannot be read ({error.strerror}); put the photograph back, or leave "
                "its cells out."
            ) from None
        entry: list[Any] = [str(sample.image.resolve()), found.st_size, found.st_mtime_ns]
        digest.update(json.dumps([*entry, sample.box, sample.um_per_pixel, sample.source]).encode())
    return f"{dataset.name[:40]}-{digest.hexdigest()[:24]}"


def _load(place: Path, n: int, side: int) -> tuple[Tensor, Tensor] | None:
    """What is kept of ``n`` cells in crops of ``side`` pixels; what is no such pack any more is thrown away."""
    if not place.is_dir():
        return None
    try:
        crops, extent = np.load(place / "crops.npy"), np.load(place / "extent.npy")
    except (OSError, ValueError, EOFError):  # cut off by a full disk, or tidied away
        crops, extent = np.empty(0), np.empty(0)
    fits = (crops.dtype, crops.shape) == (np.uint8, (n, 3, side, side))
    if fits and (extent.dtype, extent.shape) == (np.float32, (n,)):
        return torch.from_numpy(crops), torch.from_numpy(extent)
    shutil.rmtree(place, ignore_errors=True)
    return None


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
