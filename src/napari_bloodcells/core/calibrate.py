"""A model fitted to one microscope with 5 to 100 labeled cells, in a minute or two on a CPU.

First its class means and last layer are fitted to the labeled cells (``headfit.py``), then from 20 cells on a small
network as a whole (``finetune.py``), then temperature and thresholds.  Cross-validation may object to each step, and it
tells what was gained: each cell is judged by a model that was fitted without it.  The result is a bundle of its own;
the model it came from is not touched.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from napari_bloodcells.core.bundle import load_model, save_bundle
from napari_bloodcells.core.datasets import Data, open_datasets
from napari_bloodcells.core.errors import DataSetError, DataWarning
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.files import check_new_folder, display_name
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.schema import FITTED, BundleInfo, TrainingSource
from napari_bloodcells.core.statistics.metrics import Scores, score
from napari_bloodcells.core.training.finetune import (
    LabeledCells,
    NetworkFit,
    can_be_fitted,
    choose_network,
    slides_tell_classes,
)
from napari_bloodcells.core.training.headfit import Head, HeadFit, choose_head
from napari_bloodcells.core.training.pack import CropPack, pack_crops
from napari_bloodcells.core.training.samecells import with_copies_joined
from napari_bloodcells.core.training.temperature import fit_temperature
from napari_bloodcells.core.training.traindata import widened, without_tests

Change: TypeAlias = Literal["nothing", "means", "layer", "network"]
LEAST = 5
_TRUSTED = 20
"""So many cells weigh as much as the old temperature; fewer leave it nearly as it was."""
_KEPT = 0.98
_PART = 64


@dataclass(frozen=True)
class Calibration:
    """What a calibration gave.

    Attributes
    ----------
    output : Path
        The new bundle.
    info : BundleInfo
    before, after : Scores
        Of the labeled cells, by the old model and in cross-validation by the new one.
    changed : {"nothing", "means", "layer", "network"}
        The last layer stayed as it was, the class means were moved, the layer was refitted as well, or the network was.
    missing : tuple of str
        Classes of the model of which no cell was labeled.
    by_slide : bool
        Most cells are of a class that one slide alone gave, so the network was left as it was.
    """

    output: Path
    info: BundleInfo
    before: Scores
    after: Scores
    changed: Change
    missing: tuple[str, ...] = ()
    by_slide: bool = False


@dataclass(frozen=True)
class Refit:
    """New parts of a model: ``module``, ``space``, ``temperature`` and thresholds, and the cross-validated ``shares``
    (N, C)."""

    module: Classifier
    changed: Change
    space: FeatureSpace | None
    temperature: float
    min_confidence: float
    max_distance: float | None
    shares: NDArray[np.float64]


def calibrate(
    model: str | Path | Model,
    data: Data,
    output: str | Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Calibration:
    """Fit a model to the microscope that labeled cells come from.

    Parameters
    ----------
    model : str, Path or Model
        As ``load_model`` takes it.
    data : folder, DataSet, or a list of them
        5 or more labeled cells; what ``load_dataset`` understands.  What the publisher put into a test part is left
        out where there are other cells.
    output : path
        Folder of the new bundle: new or empty.
    device, progress
        As for ``count``.

    Returns
    -------
    Calibration

    Raises
    ------
    DataSetError
        If there are fewer than five cells, or all of one class.
    OutputError
        If ``output`` holds a model already.

    Warns
    -----
    DataWarning
        How many cells of a test part were left out.

    Examples
    --------
    >>> found = calibrate("default", "my-cells", "my-model")                     # doctest: +SKIP
    >>> found.before["accuracy"].value, found.after["accuracy"].value            # doctest: +SKIP
    (0.84, 0.93)
    """
    progress, place = progress or Silent(), Path(output)
    check_new_folder(place)
    loaded = model if isinstance(model, Model) else load_model(model, device, unrounded=True)
    pack, cells = _gather(loaded, data, progress)
    found = refit(loaded, cells, progress)
    before = _scores(loaded, pack, _old_shares(loaded, pack.crops))
    after = _scores(loaded, pack, found.shares)
    info = _describe(loaded.info, found, after, pack)
    save_bundle(place, found.module, info, space=found.space, half=False)
    seen = set(cells.labels.tolist())
    missing = tuple(name for i, name in enumerate(info.class_names) if i not in seen)
    by_slide = slides_tell_classes(cells.labels, cells.groups)
    return Calibration(place, info, before, after, found.changed, missing, by_slide)


def refit(model: Model, cells: LabeledCells, progress: Progress | None = None) -> Refit:
    """Fit head, network, temperature and thresholds of ``model`` to labeled cells, without writing anything.

    Parameters
    ----------
    model : Model
        Stays as it is.
    cells : LabeledCells
        Cut as ``model.info.crop`` says.
    progress : Progress, optional
    """
    progress = progress or Silent()
    labels = cells.labels
    views = _views(model, cells.crops, progress)
    old = Head.of(model.module.head)
    fitted = choose_head(views, labels, cells.groups, old, model.space, model.info.learned, progress)
    fits = can_be_fitted(model, labels, cells.groups)
    network = choose_network(model, cells, views, fitted, progress) if fits else None
    changed: Change = fitted.changed if network is None else "network"
    found = _with_layer(model, views, fitted) if network is None else network
    temperature = _temperature(found.logits, labels, model.info.temperature)
    shares = softmax(found.logits / temperature, axis=1)
    right = shares.argmax(1) == labels
    confidence, limit = model.info.min_confidence, model.info.max_distance
    if right.any():
        confidence = min(confidence, float(np.quantile(shares.max(1)[right], 1 - _KEPT)))
        if limit is not None and found.distance is not None:
            limit = max(limit, float(np.quantile(found.distance[right], _KEPT)))
    return Refit(found.module, changed, found.space, round(temperature, 4), confidence, limit, shares)


def _with_layer(model: Model, views: NDArray[np.float64], fitted: HeadFit) -> NetworkFit:
    """The network as it is, under a layer of its own (the model that was passed in keeps its head)."""
    module, space, distance = model.unrounded.with_head(fitted.head.weight, fitted.head.bias), model.space, None
    if space is not None:
        if fitted.means is not None:
            space = replace(space, means=torch.from_numpy(fitted.means).float().to(model.device))
        features = torch.from_numpy(views[:, 0]).float().to(model.device)
        distance = space.distance(features).cpu().double().numpy()
    return NetworkFit(module, space, fitted.logits, distance)


def _temperature(logits: NDArray[np.float64], labels: NDArray[np.int64], old: float) -> float:
    """That of the cells, and the old one as if ``_TRUSTED`` cells had given it."""
    wanted = fit_temperature(logits.astype(np.float32), labels)
    share = len(labels) / (len(labels) + _TRUSTED)
    return float(np.exp(share * np.log(wanted) + (1 - share) * np.log(old)))


def _gather(model: Model, data: Data, progress: Progress) -> tuple[CropPack, LabeledCells]:
    scheme = model.info.class_scheme
    sets = [d.in_scheme(scheme).labeled() for d in open_datasets(data, scheme)]
    names = ", ".join(d.name for d in sets)
    given = sum(len(d) for d in sets)
    rest = without_tests(sets)
    if any(len(d) for d in rest):  # else all that there is was called a test, and somebody wants to calibrate on it
        sets = rest
    sets = [d for d in sets if len(d)]
    n = sum(len(d) for d in sets)
    if n < given:
        warnings.warn(
            f"{names}: {given - n} of {given} cells are of the published test part, or of the same originals, and are "
            "left out; to calibrate on them give the folder of that part alone.",
            DataWarning,
            stacklevel=3,
        )
    if n < LEAST:
        raise DataSetError(f"{names}: {n} labeled cells of the model's classes; calibrating needs {LEAST} or more.")
    pack, wide = (
        _joined(with_copies_joined([pack_crops(d, spec, scheme, progress) for d in sets]))
        for spec in (model.info.crop, widened(model.info.crop))
    )
    if len(set(pack.labels.tolist())) < 2:
        raise DataSetError(f"{names}: labeled cells of one class only; calibrating needs two classes or more.")
    return pack, LabeledCells(pack.crops, wide.crops, wide.extent, pack.labels.numpy(), np.array(pack.groups))


def _joined(packs: list[CropPack]) -> CropPack:
    """Several packs as one."""
    if len(packs) == 1:
        return packs[0]
    return CropPack(
        torch.cat([p.crops for p in packs]),
        torch.cat([p.extent for p in packs]),
        torch.cat([p.labels for p in packs]),
        *(tuple(v for p in packs for v in getattr(p, name)) for name in ("groups", "sources", "splits", "images")),
    )


def _views(model: Model, crops: Tensor, progress: Progress) -> NDArray[np.float64]:
    """(N, 8, D) features of the cells as they are, turned and mirrored; the first view is the cell as it is."""
    turned = [crops.rot90(k, (2, 3)) for k in range(4)]
    views = turned + [t.flip(3) for t in turned]
    progress.start("looking at the labeled cells", len(crops) * len(views))
    found = []
    for view in views:
        parts = []
        for part in torch.split(view, _PART):
            check_cancelled(progress)
            parts.append(model.features_and_logits(part.contiguous())[0])
            progress.advance("looking at the labeled cells", len(part))
        found.append(torch.cat(parts))
    result: NDArray[np.float64] = torch.stack(found, 1).double().numpy()
    return result


def _old_shares(model: Model, crops: Tensor) -> NDArray[np.float64]:
    return model.predict(crops).probabilities.astype(np.float64)


def _scores(model: Model, pack: CropPack, shares: NDArray[np.float64]) -> Scores:
    names = model.info.class_names
    return score(pack.labels.numpy(), shares.astype(np.float32), names, pack.groups, "calibration cells")


def _describe(old: BundleInfo, found: Refit, after: Scores, pack: CropPack) -> BundleInfo:
    counts = np.bincount(pack.labels.numpy(), minlength=len(old.class_names)).tolist()
    name = "+".join(sorted({display_name(source) for source in pack.sources}))[:150]
    source = TrainingSource(
        source=f"{FITTED[0]}{name}", counts={c: n for c, n in zip(old.class_names, counts, strict=True) if n}
    )
    return old.model_copy(
        update={
            "name": f"{old.name[:50]}-calibrated",
            "description": f"{old.name} fitted to {len(pack)} labeled cells of {name}",
            "temperature": found.temperature,
            "min_confidence": found.min_confidence,
            "max_distance": found.max_distance,
            "confusion": tuple(tuple(int(v) for v in row) for row in after.confusion),  # of this microscope alone
            "confusions": {},
            "training": (*old.training, source),
            "metrics": after.metrics,  # the old ones are of another head
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
