"""From a finished training to a bundle: temperature, feature space, thresholds, and figures on the validation cells."""

from __future__ import annotations

from typing import Any

import torch

from napari_bloodcells.core.classes import ClassScheme
from napari_bloodcells.core.featurespace import FeatureSpace, fit_feature_space
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.models import architecture
from napari_bloodcells.core.models.architecture import count_parameters
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
    info = _describe(trainer, scheme, recipe)
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
    limit = recipe.max_distance or None
    known = shares.max(1) >= recipe.min_confidence
    if limit is not None:
        known &= space.distance(features).numpy() <= limit
    sources = trainer.validation.sources[known]
    update = {
        "temperature": temperature,
        "max_distance": limit,
        "confusion": tuple(tuple(int(v) for v in row) for row in scores.confusion),
        "confusions": count_confusions(sources, truth[known], shares.argmax(1)[known], len(scheme.names)),
        "metrics": scores.metrics,
    }
    return module, info.model_copy(update=update), scores, space


def _describe(trainer: Trainer, scheme: ClassScheme, recipe: Recipe) -> BundleInfo:
    arch = architecture(recipe.arch)
    options: dict[str, Any] = {**arch.options, **recipe.options}
    if "weights" in options:
        options["weights"] = "none"  # they are in the bundle now
    counts = trainer.training.counts(scheme)
    return BundleInfo(
        name=recipe.name,
        description=recipe.description,
        arch=recipe.arch,
        options=options,
        scheme=scheme_info(scheme),
        crop=recipe.crop,
        input_size=arch.input_size,
        normalization=Normalization(mean=recipe.input.mean, std=recipe.input.std),
        min_confidence=recipe.min_confidence,
        training=tuple(TrainingSource(source=source, counts=found) for source, found in counts.items()),
        n_parameters=count_parameters(trainer.module),
        macs=arch.macs(len(scheme.names), **options),
        recipe=recipe.flat(),
        seed=recipe.seed,
        license=recipe.license,
    )


def _through(model: Model, cells: Cells, progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    features, logits = [], []
    for start in range(0, len(cells), _PART):
        check_cancelled(progress)
        found = model.features_and_logits(cells.crops[start : start + _PART])
        features.append(found[0])
        logits.append(found[1])
    return torch.cat(features), torch.cat(logits)
