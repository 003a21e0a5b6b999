"""From a finished training to a bundle: temperature, feature space, thresholds, and figures on the validation cells.

What the bundle will say is put together once before the first epoch (``check_describable``): whatever its schema does
not take must be told before hours of training, not after.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from napari_bloodcells.core.bundleinfo import MAX_METADATA, first_problem
from napari_bloodcells.core.classes import ClassScheme
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.featurespace import FeatureSpace, fit_feature_space
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models import architecture, check_options
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.progress import Progress, check_cancelled
from napari_bloodcells.core.schema import BundleInfo, Normalization, TrainingSource, count_confusions, scheme_info
from napari_bloodcells.core.statistics.metrics import Scores, score
from napari_bloodcells.core.training.recipe import Recipe
from napari_bloodcells.core.training.shape import shape_head
from napari_bloodcells.core.training.temperature import fit_temperature
from napari_bloodcells.core.training.traindata import Cells
from napari_bloodcells.core.training.trainer import Trainer
from napari_bloodcells.core.training.views import MOST_CELLS, N_VIEWS, even_cells, stained_views

_PART = 256
_MAX_FIGURE = 500
"""Bytes of metadata that one figure with its interval takes, at most."""


def finish_bundle(
    trainer: Trainer, scheme: ClassScheme, progress: Progress
) -> tuple[Classifier, BundleInfo, Scores, FeatureSpace]:
    """The kept network with everything that its bundle says.

    The figures are those of the model as it will be loaded: the temperature fitted on the same validation cells (one
    number; the ECE is optimistic by that much), in the precision of this machine.
    """
    recipe = trainer.recipe
    module = trainer.evaluated
    module.load_state_dict(trainer.best)
    module.eval().float()
    info = _describe(recipe, trainer.training, scheme)
    copy = architecture(recipe.arch).skeleton(len(scheme.names), **dict(info.options))
    copy.load_state_dict({name: t.clone() for name, t in trainer.best.items()}, assign=True)
    model = Model(info, copy, None, trainer.device)
    stain = recipe.stain if recipe.augment == "stain" or recipe.shape else None
    few = even_cells(trainer.training, MOST_CELLS if stain is not None else N_VIEWS * MOST_CELLS)
    views = stained_views(model, few, stain, progress)
    if recipe.shape:
        head = shape_head(model, few, views, recipe.shape, progress)
        module, copy = (network.with_head(head.weight, head.bias) for network in (module, copy))
        model = Model(info, copy, None, trainer.device)
    space = fit_feature_space(views, few.labels, len(scheme.names), few.sources.tolist())
    features, logits = _through(model, trainer.validation, progress)
    truth = trainer.validation.labels.numpy()
    temperature = round(fit_temperature(logits.numpy(), truth), 4)
    shares = (logits / temperature).softmax(1).numpy()
    scores = score(truth, shares, scheme.names, trainer.validation.groups.tolist())
    distance = space.distance(features)
    space = space.in_units_of(max(float(distance.quantile(0.99)), 1e-9))
    limit = info.max_distance
    known = shares.max(1) >= recipe.min_confidence
    if limit is not None:
        known &= space.distance(features).numpy() <= limit
    sources = trainer.validation.sources[known]
    update = {
        "temperature": temperature,
        "confusion": tuple(tuple(int(v) for v in row) for row in scores.confusion),
        "confusions": count_confusions(sources, truth[known], shares.argmax(1)[known], len(scheme.names)),
        "metrics": scores.metrics,
    }
    return module, info.model_copy(update=update), scores, space


def check_describable(recipe: Recipe, training: Cells, validation: Cells, scheme: ClassScheme) -> None:
    """Refuse (``UsageError``) a training of which the bundle could not tell, before it begins."""
    check_options(architecture(recipe.arch), recipe.options)
    n = len(scheme.names)
    largest = ((len(validation),) * n,) * n
    try:
        found = _describe(recipe, training, scheme).model_dump()
        sources = np.unique(validation.sources).tolist()
        info = BundleInfo(**{**found, "confusion": largest, "confusions": dict.fromkeys(sources, largest)})
    except ValidationError as error:
        raise UsageError(
            f"recipe {recipe.name}: the model could not be kept, as its metadata cannot hold "
            f"{first_problem(error, own=True)}; change that in the recipe, the scheme or the names of the data."
        ) from None
    size = len(info.model_dump_json(indent=1).encode()) + _MAX_FIGURE * (1 + 3 * n)
    if size > MAX_METADATA:
        raise UsageError(
            f"recipe {recipe.name}: the model could not be kept: {len(sources)} data folders and {n} classes make "
            f"metadata of more than {MAX_METADATA / 2**20:.0f} MB; put the cells into fewer folders."
        )


def _describe(recipe: Recipe, training: Cells, scheme: ClassScheme) -> BundleInfo:
    """What is known of the model before it is trained; ``ValidationError`` where a bundle cannot tell it."""
    arch = architecture(recipe.arch)
    options: dict[str, Any] = {**arch.options, **recipe.options}
    if "weights" in options:
        options["weights"] = "none"  # they are in the bundle now
    counts = training.counts(scheme)
    return BundleInfo(
        name=_model_name(recipe),
        description=recipe.description,
        arch=recipe.arch,
        options=options,
        scheme=scheme_info(scheme),
        crop=recipe.crop,
        input_size=arch.input_size,
        normalization=Normalization(mean=recipe.input.mean, std=recipe.input.std),
        min_confidence=recipe.min_confidence,
        max_distance=recipe.max_distance or None,
        training=tuple(TrainingSource(source=source, counts=found) for source, found in counts.items()),
        n_parameters=arch.n_parameters(len(scheme.names), **options),
        macs=arch.macs(len(scheme.names), **options),
        recipe=recipe.flat(),
        seed=recipe.seed,
        license=recipe.license,
    )


def _model_name(recipe: Recipe) -> str:
    """The recipe's name as models are called, who may become folders: ``mein-rezept`` for ``mein rezept``."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", recipe.name) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")[:64].rstrip(".-") or recipe.arch


def _through(model: Model, cells: Cells, progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    features, logits = [], []
    for start in range(0, len(cells), _PART):
        check_cancelled(progress)
        found = model.features_and_logits(cells.crops[start : start + _PART])
        features.append(found[0])
        logits.append(found[1])
    return torch.cat(features), torch.cat(logits)
