"""A model fitted to one microscope by cells of it that nobody labeled.

Only the middle of each class and the last layer move, to where the cells lie (``training/unlabeled.py``).  How well the
result does is not known without labels; where there are some, ``calibrate`` does more, and takes an adapted model too.
The result is a bundle of its own; the model it came from is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_bloodcells.core.bundle import load_model, save_bundle
from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.core.count import count
from napari_bloodcells.core.countedcells import dataset_of, holds_count, read_counted
from napari_bloodcells.core.datasets import Data, DataSet, load_dataset
from napari_bloodcells.core.errors import DataSetError, UsageError
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.files import check_new_folder, display_name
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.schema import FITTED, BundleInfo, TrainingSource
from napari_bloodcells.core.slides import is_slide
from napari_bloodcells.core.training.headfit import Head
from napari_bloodcells.core.training.pack import pack_crops
from napari_bloodcells.core.training.unlabeled import move_to_unlabeled

LEAST, MOST = 50, 1000
"""Cells that are needed, and taken."""
FIELDS = 300
"""Photographs of a folder that are looked at."""
ONE_SIDED = 0.85
"""Where one class has a larger share than this, the others can hardly be seen to move."""
_PART = 64


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation gave.

    Attributes
    ----------
    output : Path
        The new bundle.
    info : BundleInfo
    before, after : dict of str to int
        Of the cells that were looked at, how many the old and the new model give each class.
    n_changed : int
        Cells that have another class now.
    n_strange : int
        Cells that were left out: too far from anything that the model was trained on.
    """

    output: Path
    info: BundleInfo
    before: dict[str, int]
    after: dict[str, int]
    n_changed: int
    n_strange: int

    @property
    def one_sided(self) -> str:
        """The class that nearly all cells have, or nothing: then cells of other patients should be there too."""
        most = max(self.before, key=lambda name: self.before[name])
        return most if self.before[most] > ONE_SIDED * sum(self.before.values()) else ""


def adapt(
    model: str | Path | Model,
    data: Data,
    output: str | Path,
    *,
    images: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Adaptation:
    """Fit a model to the microscope that unlabeled cells come from.

    Parameters
    ----------
    model : str, Path or Model
        As ``load_model`` takes it.
    data : folder, DataSet, or a list of them
        50 or more cells, 300 are plenty, at best of several patients: a folder of photographs, of which at most 300 are
        looked at, evenly taken; the output folder of a count; or what ``load_dataset`` understands.  Labels are not
        looked at, but that what a reviewer called no white cell is left out.
    output : path
        Folder of the new bundle: new or empty.
    images : Path, optional
        Where the photographs of a count are, if they have moved since.
    device, progress
        As for ``count``.

    Returns
    -------
    Adaptation

    Raises
    ------
    DataSetError, ImageError
        If there are fewer than 50 cells, or no photographs.
    UsageError
        If the model does not know how microscopes differ, as it was trained on one alone.
    OutputError
        If ``output`` holds a model already.

    Examples
    --------
    >>> found = adapt("default", "first-look", "my-model")          # doctest: +SKIP
    >>> found.n_changed, found.after["eosinophil"]                  # doctest: +SKIP
    (31, 12)
    """
    progress, place = progress or Silent(), Path(output)
    check_new_folder(place)
    loaded = model if isinstance(model, Model) else load_model(model, device, unrounded=True)
    if loaded.space is None or loaded.space.drift is None:
        raise UsageError(
            f"{loaded.info.name}: was trained on one microscope, so it does not know how they differ; calibrate it "
            "with labeled cells instead."
        )
    sets = _datasets(data, loaded, images, progress)
    few = [d.take(evenly(len(d), MOST // len(sets)).tolist()) for d in sets]
    packs = [pack_crops(d, loaded.info.crop, loaded.info.class_scheme, progress) for d in few]
    crops = torch.cat([pack.crops for pack in packs])
    called = "+".join(display_name(d.name) for d in sets)
    moved = move_model(loaded, crops, progress)
    if len(moved.before) < LEAST:
        raise DataSetError(f"{called}: {len(moved.before)} cells that can be used; adapting needs {LEAST} or more.")
    info = _describe(loaded.info, called, len(moved.before))
    save_bundle(place, moved.module, info, space=moved.space)
    before, after = (
        {name: int((answers == i).sum()) for i, name in enumerate(info.class_names)}
        for answers in (moved.before, moved.after)
    )
    changed = int((moved.before != moved.after).sum())
    return Adaptation(place, info, before, after, changed, len(crops) - len(moved.before))


@dataclass(frozen=True)
class MovedModel:
    """New parts of a model: ``module`` and ``space``; and of the cells that were not strange to it the classes by the
    old and by the new layer, ``before`` and ``after`` (N,)."""

    module: Classifier
    space: FeatureSpace
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def move_model(model: Model, crops: torch.Tensor, progress: Progress | None = None) -> MovedModel:
    """Move a model to crops (N, 3, S, S) uint8 of one microscope, without writing anything; ``model`` stays as it is.

    Cells farther from the training than ``max_distance`` are left out.
    """
    if model.space is None:
        raise UsageError(f"{model.info.name}: has no space of its features, so it cannot be adapted.")
    features, logits = _look_at(model, crops, progress or Silent())
    far = model.info.max_distance or np.inf
    known = (model.space.distance(features.to(model.device)) <= far).cpu().numpy()
    kept = features.double().numpy()[known]
    head, info = Head.of(model.module.head), model.info
    moved = move_to_unlabeled(kept, head, info.temperature, model.space, info.learned)
    return MovedModel(
        model.unrounded.with_head(moved.head.weight, moved.head.bias),
        replace(model.space, means=torch.from_numpy(moved.means).float().to(model.device)),
        logits.numpy()[known].argmax(1),
        moved.head.logits(kept).argmax(1),
    )


def _datasets(data: Data, model: Model, images: Path | None, progress: Progress) -> list[DataSet]:
    listed: Sequence[str | Path | DataSet] = [data] if isinstance(data, str | Path | DataSet) else list(data)
    found = [d if isinstance(d, DataSet) else _cells_of(Path(d), model, images, progress) for d in listed]
    with_cells = [d for d in found if len(d)]
    if not with_cells:
        names = ", ".join(d.name for d in found)
        raise DataSetError(
            f"{names or 'nothing'}: no cells; give a folder of photographs, the output folder of a count (whole slides "
            "are left out), or a data set."
        )
    return [with_cells[i] for i in evenly(len(with_cells), MOST).tolist()]


def _cells_of(folder: Path, model: Model, images: Path | None, progress: Progress) -> DataSet:
    """The cells of a count, of a data set, or those that are found on photographs (whole slides are left out)."""
    if holds_count(folder):
        counted = read_counted(folder, images).dataset
        slides = {path for path in {s.image for s in counted.samples} if is_slide(path)}
        return counted.where(lambda s: s.label != NOT_A_WBC and s.image not in slides)
    try:
        return load_dataset(folder)
    except DataSetError:
        photographs = find_images([folder])
    if not photographs:
        raise DataSetError(f"{display_name(folder)}: no photographs there; count whole slides, and label some cells.")
    few = evenly(len(photographs), FIELDS)
    found = count([photographs[i] for i in few.tolist()], model, "auto", str(model.device), progress)
    return dataset_of(found, folder.name)


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Positions of at most ``most`` of ``n`` things, evenly taken.

    >>> evenly(5, 3).tolist(), evenly(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    return np.linspace(0, n - 1, min(most, n)).round().astype(np.int64)


def _look_at(model: Model, crops: torch.Tensor, progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and logits of all cells."""
    task = "looking at the cells"
    progress.start(task, len(crops))
    found = []
    for part in torch.split(crops, _PART):
        check_cancelled(progress)
        found.append(model.features_and_logits(part))
        progress.advance(task, len(part))
    features, logits = (torch.cat([pair[i] for pair in found]) for i in range(2))
    return features, logits


def _describe(old: BundleInfo, name: str, n_cells: int) -> BundleInfo:
    source = TrainingSource(source=f"{FITTED[1]}{name[:150]}", counts={})
    return old.model_copy(
        update={
            "name": f"{old.name[:50]}-adapted",
            "description": f"{old.name} moved to {n_cells} unlabeled cells of {name[:150]}",
            "training": (*old.training, source),
            "metrics": (),  # the old ones are of another layer, and nothing was measured
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
