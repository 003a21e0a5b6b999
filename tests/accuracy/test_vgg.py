"""Row G's VGG16: its head is fitted on kept features, and the epoch that is best on validation cells stays."""

from __future__ import annotations

import pytest
import torch
from benchmarks.accuracy.cells import TRAIN, VALIDATION
from benchmarks.accuracy.vgg import fit_head, logits, outputs
from torch import nn

from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.training.recipe import load_recipe


def test_a_head_learns_what_the_features_tell() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = {part: torch.arange(60) % 3 for part in (TRAIN, VALIDATION)}
    features = {
        part: (nn.functional.one_hot(y, 3).float() + 0.1 * torch.randn(60, 3, generator=generator)).bfloat16()
        for part, y in labels.items()
    }
    net = Classifier(nn.Identity(), nn.Linear(3, 3))
    recipe = load_recipe("vgg16").with_overrides({"optimizer.lr": 0.05, "epochs": 10, "options.dropout": 0.0})
    told = fit_head(net, recipe, features, labels)
    assert told["validation"] == 1.0
    assert told["epochs"] <= 10
    assert (logits(net, features[VALIDATION]).argmax(1) == labels[VALIDATION]).all()


@pytest.mark.parametrize("n", [3, 40])
def test_photographs_go_in_at_the_size_that_is_asked_for(n: int) -> None:
    crops = torch.randint(0, 256, (n, 3, 20, 20), dtype=torch.uint8)
    found = outputs(nn.Flatten(), crops, 10, (0.5,) * 3, (0.25,) * 3)
    assert found.shape == (n, 300)
    assert found.float().abs().max() <= 2.01
