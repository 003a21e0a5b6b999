"""Where the classes lie in the features, of one microscope and of several."""

from __future__ import annotations

import pytest
import torch

from napari_bloodcells.core.featurespace import LEAST_CELLS, fit_feature_space


def clouds(n: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes of ``n`` cells in four features, 6 apart in the first; all ``shift`` along the second."""
    generator = torch.Generator().manual_seed(int(10 * shift))
    labels = torch.arange(2).repeat(n)
    features = torch.randn(2 * n, 4, generator=generator)
    features[:, 0] += 6 * labels
    features[:, 1] += shift
    return features, labels


def test_a_microscope_with_many_cells_counts_no_more_than_one_with_few() -> None:
    (many, of_many), (few, of_few) = clouds(400), clouds(20, shift=4.0)
    sources = ["many"] * 800 + ["few"] * 40
    space = fit_feature_space(torch.cat([many, few]), torch.cat([of_many, of_few]), 2, sources)
    middle = torch.tensor([[0.0, 2.0, 0.0, 0.0]])
    turned = middle @ space.whiten
    assert (space.means[0] - turned).norm() < 0.3 * (space.drift[0]).norm()  # type: ignore[index]


def test_drift_is_how_far_the_microscopes_lay_apart_and_one_alone_has_none() -> None:
    (one, labels), (other, _) = clouds(200), clouds(200, shift=3.0)
    assert fit_feature_space(one, labels, 2).drift is None
    space = fit_feature_space(torch.cat([one, other]), labels.repeat(2), 2, ["a"] * 400 + ["b"] * 400)
    assert space.drift is not None
    assert space.drift.shape == (4, 4)
    shift = torch.tensor([0.0, 3.0, 0.0, 0.0]) @ space.whiten
    assert torch.allclose(space.drift[1] - space.drift[0], shift, atol=0.3)
    assert torch.allclose(space.drift[3] - space.drift[2], shift, atol=0.3)
    larger = space.in_units_of(2.0)
    assert larger.drift is not None
    assert torch.equal(larger.drift, space.drift / 2)
    assert larger.within == space.within / 2
    assert torch.equal(larger.to("cpu").drift, larger.drift)  # type: ignore[arg-type]


def test_a_class_without_enough_cells_of_any_microscope_is_taken_as_a_whole() -> None:
    features, labels = clouds(60)
    few = torch.cat([torch.nonzero(labels == 0)[:, 0], torch.nonzero(labels == 1)[:, 0][: LEAST_CELLS - 1]])
    sources = ["a", "b"] * 34 + ["a"]
    space = fit_feature_space(features[few], labels[few], 3, sources)
    assert space.means.shape == (3, 4)
    assert torch.isfinite(space.means).all()
    assert space.drift is not None
    assert len(space.drift) == 2  # of the first class alone
    assert space.distance(features[labels == 1]).median() < space.distance(features[labels == 1] + 20).min()


def test_the_given_features_stay_as_they_are() -> None:
    features, labels = clouds(20)
    given = features.double()
    fit_feature_space(given, labels, 2)
    assert torch.equal(given, features.double())


def test_a_direction_in_which_stains_move_a_cell_counts_less() -> None:
    features, labels = clouds(100)
    stained = features + torch.tensor([0.0, 0.0, 8.0, 0.0]) * torch.randn(len(features), 1)
    alone, seen = (fit_feature_space(f, labels, 2) for f in (features[:, None], torch.stack([features, stained], 1)))
    moved = features[:1] + torch.tensor([0.0, 0.0, 8.0, 0.0])
    gained = [float(space.distance(moved) / space.distance(features).median()) for space in (alone, seen)]
    assert gained[1] < 0.6 * gained[0]


def test_a_feature_that_is_hardly_ever_there_is_not_made_large() -> None:
    features, labels = clouds(100)
    features[:, 3] = 0
    features[0, 3] = 1e-6
    space = fit_feature_space(features, labels, 2)
    assert torch.isfinite(space.whiten).all()
    assert space.whiten.abs().max() < 1000  # in 16 bits 65,504 is the end


@pytest.mark.parametrize("width", [300, 700])
def test_of_many_features_those_directions_are_kept_that_spread_most(width: int) -> None:
    labels = torch.arange(2).repeat(200)
    features = torch.randn(400, width, generator=torch.Generator().manual_seed(0))
    features[:, :5] += 5 * labels[:, None]
    before = torch.get_rng_state()
    space = fit_feature_space(features, labels, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert space.whiten.shape == (width, 256)
    assert (space.means[0] - space.means[1]).norm() > 3


def test_a_class_without_a_cell_makes_nothing_less_strange() -> None:
    features, labels = clouds(100)
    two, three = (fit_feature_space(features, labels, n) for n in (2, 3))
    anywhere = 20 * torch.randn((50, features.shape[1]), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(two.distance(anywhere), three.distance(anywhere))
