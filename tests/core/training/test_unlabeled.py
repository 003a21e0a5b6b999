"""Class means moved by unlabeled cells: to where they lie, no further than microscopes differ, and not by one class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_bloodcells.core.featurespace import FeatureSpace, fit_feature_space
from napari_bloodcells.core.training.headfit import Head
from napari_bloodcells.core.training.unlabeled import move_to_unlabeled

WIDTH, CLASSES = 12, 3
CENTERS = 4.0 * np.eye(CLASSES, WIDTH)
WAYS = np.zeros((CLASSES, WIDTH))
WAYS[0, 1], WAYS[1, 5], WAYS[2, 6] = 1.0, 1.0, 1.0
"""Each class moves in a way of its own: the first towards the second."""


def microscope(n: int, moved: float, seed: int, shares: tuple[float, ...] = (1, 1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes of ``n`` cells of a microscope that moves the classes so far in their ways."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, n, p=np.array(shares) / sum(shares))
    return CENTERS[labels] + moved * WAYS[labels] + rng.normal(size=(n, WIDTH)), labels


@pytest.fixture(scope="module")
def space() -> FeatureSpace:
    """Of four microscopes."""
    parts = [microscope(300, moved, seed) for seed, moved in enumerate((-1.5, -0.5, 0.5, 1.5))]
    features, labels = (np.concatenate([part[i] for part in parts]) for i in range(2))
    sources = [name for name in "abcd" for _ in range(300)]
    return fit_feature_space(torch.from_numpy(features), torch.from_numpy(labels), CLASSES, sources)


def old() -> Head:
    """The best layer for a microscope in the middle of these."""
    return Head(CENTERS.copy(), -0.5 * (CENTERS**2).sum(1))


def right(head: Head, features: np.ndarray, labels: np.ndarray) -> float:
    return float((head.logits(features).argmax(1) == labels).mean())


def test_a_microscope_further_away_than_any_is_found(space: FeatureSpace) -> None:
    features, labels = microscope(300, 4.0, seed=9)
    moved = move_to_unlabeled(features, old(), 1.0, space)
    before, after = right(old(), features, labels), right(moved.head, features, labels)
    assert before < 0.87
    assert after > before + 0.04
    fresh = microscope(2000, 4.0, seed=10)
    assert right(moved.head, *fresh) > right(old(), *fresh) + 0.03


def test_a_known_microscope_loses_nothing(space: FeatureSpace) -> None:
    features, labels = microscope(300, 0.0, seed=11)
    moved = move_to_unlabeled(features, old(), 1.0, space)
    assert right(moved.head, features, labels) > right(old(), features, labels) - 0.01


def test_where_one_class_alone_is_seen_the_others_stay_where_they_were(space: FeatureSpace) -> None:
    features, _ = microscope(300, 1.0, seed=12, shares=(0, 0, 1))
    moved = move_to_unlabeled(features, old(), 1.0, space)
    way = np.linalg.norm(moved.means - space.means.numpy(), axis=1)
    assert way[2] > 2.5 * max(way[0], way[1])
    assert right(moved.head, *microscope(1000, 0.0, seed=13)) > 0.9


def test_without_a_cell_nothing_moves(space: FeatureSpace) -> None:
    moved = move_to_unlabeled(np.zeros((0, WIDTH)), old(), 1.0, space)
    assert np.allclose(moved.means, space.means.numpy())
    assert np.isfinite(moved.head.weight).all()


def test_the_unit_of_the_space_changes_nothing(space: FeatureSpace) -> None:
    features, _ = microscope(100, 2.0, seed=14)
    one, other = (move_to_unlabeled(features, old(), 0.7, s) for s in (space, space.in_units_of(3.0)))
    assert np.allclose(one.head.weight, other.head.weight, atol=1e-4)
    assert np.allclose(one.head.bias, other.head.bias, atol=1e-3)
    assert np.allclose(one.means, 3.0 * other.means, atol=1e-4)


def test_the_temperature_divides_the_new_logits_as_it_did_the_old_ones(space: FeatureSpace) -> None:
    features, _ = microscope(100, 2.0, seed=15)
    hot = Head(5 * old().weight, 5 * old().bias)
    one, other = move_to_unlabeled(features, old(), 1.0, space), move_to_unlabeled(features, hot, 5.0, space)
    assert np.allclose(one.head.logits(features), other.head.logits(features) / 5.0)


def test_a_space_of_one_microscope_does_not_tell(space: FeatureSpace) -> None:
    with pytest.raises(ValueError, match="one microscope alone"):
        move_to_unlabeled(np.zeros((5, WIDTH)), old(), 1.0, FeatureSpace(space.whiten, space.means))


def test_a_class_that_the_training_had_no_cell_of_is_given_to_none(space: FeatureSpace) -> None:
    features, _ = microscope(300, 1.0, seed=16, shares=(1, 1, 0))
    moved = move_to_unlabeled(features, old(), 1.0, space, learned=(True, True, False))
    alone = FeatureSpace(space.whiten, space.means[:2], space.drift)
    without = move_to_unlabeled(features, Head(old().weight[:2], old().bias[:2]), 1.0, alone)
    anything = np.random.default_rng(0).normal(0, 6, (500, WIDTH))
    assert not (moved.head.logits(anything).argmax(1) == 2).any()
    assert np.allclose(moved.head.logits(anything)[:, :2], without.head.logits(anything))
    assert np.allclose(moved.means[2], space.means[2].numpy())
