"""From a trained network to the shipped bundles: ``wbc5``, ``pbc8`` and ``wbc4``, each with its head.

Temperature, thresholds and the confusion matrix come from validation cells, with at most 60 of one class of one source:
``pbc`` alone would be nine tenths of them otherwise, and a confidence that is right on one microscope is not wanted.

    python -m benchmarks.accuracy.ship --data ../shared/data --trunk fourth.pt fifth.pt

Of several trunks that went on from the same weights, or each from the one before, the weighted mean of the weights is
taken (Wortsman et al., "Model soups", ICML 2022).  ``wbc5`` and ``wbc4`` are made of ``weights/shared.safetensors``,
``pbc8`` of two legs from there in which ``pbc`` is at home.  The last layer of ``wbc5`` and ``wbc4`` listens to shape.
With ``--compare`` nothing is written: the log-loss of the validation cells is printed, by which the trunk or the mean
was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.accuracy.cells import SCHEME, SEEN, TRAIN, VALIDATION, AllCells, gather
from benchmarks.accuracy.copies import SOURCE as COPIES
from benchmarks.accuracy.trunk import MEAN, STD, averaged, load_trunk
from napari_bloodcells import __version__
from napari_bloodcells.core.bundle import save_bundle
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.featurespace import FeatureSpace, fit_feature_space
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models import architecture, build
from napari_bloodcells.core.models.architecture import count_parameters
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.schema import BundleInfo, Normalization, TrainingSource, count_confusions, scheme_info
from napari_bloodcells.core.statistics.metrics import Scores, score
from napari_bloodcells.core.training.augment import AugmentSettings
from napari_bloodcells.core.training.shape import shape_head
from napari_bloodcells.core.training.temperature import fit_temperature
from napari_bloodcells.core.training.traindata import Cells
from napari_bloodcells.core.training.views import MOST_CELLS, stained_views

WEIGHTS = Path(__file__).parents[2] / "src" / "napari_bloodcells" / "weights"
DESCRIPTIONS = {
    "wbc5": "Five mature white cells; the default. Trained on nine microscopes.",
    "pbc8": "The eight classes of PBC: five mature white cells, immature granulocytes, erythroblasts, platelets.",
    "wbc4": "Four white cells of the Kaggle set (no basophils).",
}
LISTENING, SHAPE = ("wbc5", "wbc4"), 1.0
"""Classifiers whose last layer listens to shape (``core/training/shape.py``), and how much.  ``pbc8`` is that of one
instrument, whose stain is known, and has immature cells of every shape."""
_MOST = 60
_KEPT = 0.98
_FAR = 1.5
"""From this distance on, in 99th percentiles of held-out cells, a cell is unidentified."""


@dataclass(frozen=True)
class Bundle:
    """A classifier with all that its ``model.json`` says, before it is written.

    ``loss`` is the log-loss of the validation cells at a temperature of 1, ``loss_by_source`` the mean of the sources'.
    """

    module: Classifier
    info: BundleInfo
    space: FeatureSpace
    scores: Scores
    loss: float
    loss_by_source: float

    def model(self) -> Model:
        """Loaded, as ``load_model`` would give it."""
        return _loaded(self.module, self.info, self.space)


def make_bundle(weights: Mapping[str, Tensor], cells: AllCells, name: str, without: Sequence[str] = ()) -> Bundle:
    """The classifier of the scheme ``name`` from a trunk's weights, calibrated on validation cells of known sources."""
    scheme, whole = load_scheme(name), load_scheme(SCHEME)
    rows = [whole.index(class_name) for class_name in scheme.names]
    module = build("stainnet", len(rows))
    cut = {k: v[rows] if k.startswith("head.") else v for k, v in weights.items()}
    module.load_state_dict({k: v.half().float() for k, v in cut.items()})  # as it will be stored
    entry = architecture("stainnet")
    labels = np.full(len(whole.names), -1)
    labels[rows] = np.arange(len(rows))
    labels = labels[cells.labels]
    usable = (labels >= 0) & ~np.isin(cells.sources, list(without))
    held = _at_most(np.flatnonzero(usable & (cells.part == VALIDATION)), labels, cells.sources, _MOST)
    info = BundleInfo(
        name=name,
        description=DESCRIPTIONS[name],
        arch="stainnet",
        options=dict(entry.options),
        scheme=scheme_info(scheme),
        crop=CropSpec(size=SEEN),
        input_size=entry.input_size,
        normalization=Normalization(mean=MEAN, std=STD),
        training=_sources(cells, usable & (cells.part == TRAIN), labels, scheme.names),
        n_parameters=count_parameters(module),
        macs=entry.macs(len(rows), **entry.options),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        license="BSD-3-Clause",
    )
    model = _loaded(module, info)
    sure = usable & (cells.part == TRAIN) & (cells.sources != COPIES) & ~cells.doubtful
    shown = _at_most(np.flatnonzero(sure), labels, cells.sources, MOST_CELLS)
    few = _as_cells(cells, shown, labels)
    views = stained_views(model, few, AugmentSettings())
    if name in LISTENING:
        head = shape_head(model, few, views, SHAPE)
        module = module.with_head(head.weight, head.bias)
        module.head.half().float()
        model = _loaded(module, info)
    space = fit_feature_space(views, few.labels, len(rows), few.sources.tolist())
    features, logits = model.features_and_logits(cells.crops(held))
    truth = labels[held]
    losses = F.cross_entropy(logits, torch.from_numpy(truth), reduction="none").numpy()
    temperature = round(fit_temperature(logits.numpy(), truth), 4)
    shares = (logits / temperature).softmax(1).numpy()
    right = shares.argmax(1) == truth
    scores = score(truth, shares, scheme.names, cells.groups[held].tolist())
    least = round(min(0.5, float(np.quantile(shares.max(1)[right], 1 - _KEPT))), 3)
    space = space.in_units_of(float(space.distance(features)[torch.from_numpy(right)].quantile(0.99)))
    known = (shares.max(1) >= least) & (space.distance(features).numpy() <= _FAR)
    update = {
        "temperature": temperature,
        "min_confidence": least,
        "max_distance": _FAR,
        "confusion": tuple(tuple(int(v) for v in row) for row in scores.confusion),
        "confusions": count_confusions(
            cells.sources[held][known], truth[known], shares.argmax(1)[known], len(scheme.names)
        ),
        "metrics": scores.metrics,
    }
    by_source = [float(losses[cells.sources[held] == source].mean()) for source in np.unique(cells.sources[held])]
    return Bundle(
        module, info.model_copy(update=update), space, scores, float(losses.mean()), float(np.mean(by_source))
    )


def _loaded(module: Classifier, info: BundleInfo, space: FeatureSpace | None = None) -> Model:
    copy = build("stainnet", len(info.class_names))
    copy.load_state_dict(module.state_dict())
    return Model(info, copy, space)


def _as_cells(cells: AllCells, at: NDArray[np.intp], labels: NDArray[np.int64]) -> Cells:
    index = torch.from_numpy(at)
    known = torch.from_numpy(labels[at])
    return Cells(cells.crops(at), known, cells.groups[at], cells.sources[at], cells.extent[index], cells.wide[index])


def _at_most(at: NDArray[np.intp], labels: NDArray[np.int64], sources: NDArray[np.str_], most: int) -> NDArray[np.intp]:
    """Of the cells ``at``, at most so many of one class of one source, in random order (always the same)."""
    order = np.random.default_rng(0).permutation(at)
    seen: dict[tuple[str, int], int] = {}
    kept = []
    for i in order.tolist():
        key = (str(sources[i]), int(labels[i]))
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= most:
            kept.append(i)
    return np.array(kept, np.intp)


def _sources(
    cells: AllCells, used: NDArray[np.bool_], labels: NDArray[np.int64], names: Sequence[str]
) -> tuple[TrainingSource, ...]:
    found = []
    for source in np.unique(cells.sources[used]).tolist():
        counts = np.bincount(labels[used & (cells.sources == source)], minlength=len(names)).tolist()
        found.append(TrainingSource(source=source, counts={n: c for n, c in zip(names, counts, strict=True) if c}))
    return tuple(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the three bundles into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--trunk", type=Path, nargs="+", required=True)
    parser.add_argument("--shares", type=float, nargs="+", help="of each trunk in the mean; alike by default")
    parser.add_argument("--only", nargs="+", choices=DESCRIPTIONS, default=list(DESCRIPTIONS), help="of the three")
    parser.add_argument("--compare", action="store_true", help="print the figures alone, write nothing")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells = gather(given.data, copies=True, read_by_eye=True)
    weights = averaged([load_trunk(trunk) for trunk in given.trunk], given.shares)
    for name in given.only:
        bundle = make_bundle(weights, cells, name)
        if not given.compare:
            save_bundle(given.output / name, bundle.module, bundle.info, space=bundle.space, half=True, overwrite=True)
        accuracy = bundle.scores["accuracy"]
        info = bundle.info
        print(
            f"{name}: validation accuracy {accuracy.value:.3f} of {accuracy.n}, temperature {info.temperature}, "
            f"unidentified under {info.min_confidence} or beyond {info.max_distance}, "
            f"log-loss {bundle.loss:.3f}, in the mean of the sources {bundle.loss_by_source:.3f}"
        )


if __name__ == "__main__":
    main()
