"""The last layer fitted to few cells: it learns what is plain, and is never worse than what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.headfit import STRENGTHS, Head, choose_head, fit_head, move_means

CLASSES, WIDTH = 3, 6


def cells(n: int, shift: float = 0.0, noise: float = 0.3, seed: int = 0):
    """Features in two views about a class center of one each; ``shift`` moves all of them, as a microscope would."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    centers = np.eye(CLASSES, WIDTH)
    views = centers[labels][:, None] + noise * rng.normal(size=(n, 2, WIDTH)) + shift * np.eye(CLASSES, WIDTH)[0]
    return views, labels


def old() -> Head:
    return Head(4 * np.eye(CLASSES, WIDTH), np.zeros(CLASSES))


def space(noise: float = 0.3) -> FeatureSpace:
    """Where the classes of ``cells`` lie without a shift."""
    return FeatureSpace(torch.eye(WIDTH) / noise, torch.eye(CLASSES, WIDTH) / noise)


def accuracy(head: Head, views, labels) -> float:
    return float((head.logits(views[:, 0]).argmax(1) == labels).mean())


def groups(n: int):
    return np.array([f"cell {i}" for i in range(n)])


def test_an_infinite_prior_leaves_the_layer():
    views, labels = cells(20)
    head = fit_head(views, labels, old(), float("inf"))
    assert np.array_equal(head.weight, old().weight)


def test_a_strong_prior_changes_less_than_a_weak_one():
    views, labels = cells(30, shift=1.0)
    moved = [np.abs(fit_head(views, labels, old(), s).weight - old().weight).sum() for s in STRENGTHS[1:]]
    assert moved == sorted(moved)


@pytest.mark.parametrize("n", [20, 100])
def test_a_shifted_microscope_is_learned_from_few_cells(n):
    views, labels = cells(n, shift=1.2)
    fitted = choose_head(views, labels, groups(n), old())
    test_views, test_labels = cells(2000, shift=1.2, seed=1)
    assert accuracy(old(), test_views, test_labels) < 0.75
    assert accuracy(fitted.head, test_views, test_labels) > 0.9


@pytest.mark.parametrize("n", [5, 20, 100])
def test_on_a_microscope_that_is_known_nothing_is_lost(n):
    test_views, test_labels = cells(2000, seed=100)
    before = accuracy(old(), test_views, test_labels)
    after = []
    for seed in range(4):
        views, labels = cells(n, seed=seed)
        after.append(accuracy(choose_head(views, labels, groups(n), old()).head, test_views, test_labels))
    assert np.mean(after) > before - (0.02 if n == 5 else 0.01)  # five cells cannot tell much


def test_a_class_without_a_labeled_cell_is_not_forgotten():
    views, labels = cells(120, shift=0.6)
    some = labels != 2
    fitted = choose_head(views[some], labels[some], groups(int(some.sum())), old())
    test_views, test_labels = cells(2000, shift=0.6, seed=1)
    third = test_labels == 2
    before = accuracy(old(), test_views[third], test_labels[third])
    assert accuracy(fitted.head, test_views[third], test_labels[third]) > before - 0.05


def test_slides_of_one_class_each_can_be_learned_from():
    views, labels = cells(60, shift=1.2)
    fitted = choose_head(views, labels, np.array([f"slide {c}" for c in labels]), old())
    assert fitted.changed == "layer"


def test_labels_at_random_leave_the_layer_as_it_was():
    views, labels = cells(60, noise=0.1)
    shuffled = np.random.default_rng(5).permutation(labels)
    fitted = choose_head(views, shuffled, groups(60), old())
    test_views, test_labels = cells(500, seed=1)
    assert accuracy(fitted.head, test_views, test_labels) > 0.9


def test_a_cell_is_never_judged_by_a_layer_that_saw_its_copies():
    """Labels that follow nothing but the original: only a leak between folds could get them right."""
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(12, 1, WIDTH))
    labels = rng.integers(0, 2, 12)
    views, copies = np.repeat(originals, 8, 0), np.repeat(labels, 8)
    names = np.repeat(groups(12), 8)
    fitted = choose_head(views, copies, names, Head(np.zeros((2, WIDTH)), np.zeros(2)))
    leaky = choose_head(views, copies, groups(96), Head(np.zeros((2, WIDTH)), np.zeros(2)))
    assert (leaky.logits.argmax(1) == copies).mean() > 0.95
    assert (fitted.logits.argmax(1) == copies).mean() < 0.85


def test_the_order_of_the_cells_does_not_matter():
    views, labels = cells(30, shift=1.0)
    order = np.random.default_rng(3).permutation(30)
    one = choose_head(views, labels, groups(30), old())
    two = choose_head(views[order], labels[order], groups(30)[order], old())
    assert one.changed == two.changed
    assert np.allclose(one.logits[order], two.logits, atol=1e-3)


@pytest.mark.parametrize("n", [6, 20, 100])
def test_moved_means_learn_a_shift_from_fewer_cells_than_the_layer_does(n):
    test_views, test_labels = cells(2000, shift=1.2, seed=1)
    gained = []
    for seed in range(4):
        views, labels = cells(n, shift=1.2, seed=seed)
        with_means = choose_head(views, labels, groups(n), old(), space())
        without = choose_head(views, labels, groups(n), old())
        gained.append([accuracy(fitted.head, test_views, test_labels) for fitted in (with_means, without)])
    moved, refitted = np.mean(gained, 0)
    assert moved > accuracy(old(), test_views, test_labels) + (0.05 if n == 6 else 0.2)
    assert moved > refitted + (0.02 if n == 6 else -0.01)


def test_the_means_are_those_of_many_labeled_cells():
    views, labels = cells(3000, shift=1.2)
    _, means = move_means(views, labels, old(), space())
    true = (np.eye(CLASSES, WIDTH) + 1.2 * np.eye(CLASSES, WIDTH)[0]) / 0.3
    assert np.abs(means - true).max() < 0.1


def test_the_mean_of_a_class_without_labeled_cells_moves_with_the_others():
    views, labels = cells(300, shift=1.2)
    some = labels != 2
    _, means = move_means(views[some], labels[some], old(), space())
    assert np.allclose(means[2] - np.eye(CLASSES, WIDTH)[2] / 0.3, [4, 0, 0, 0, 0, 0], atol=0.5)


def test_new_logits_are_as_bold_as_the_old_ones():
    views, labels = cells(300)
    head, _ = move_means(views, labels, old(), space())
    assert head.logits(views[:, 0]).std() == pytest.approx(old().logits(views[:, 0]).std(), rel=0.2)


def test_labels_that_say_nothing_are_told_to_say_nothing():
    views, labels = cells(60, noise=0.1)
    shuffled = np.random.default_rng(5).permutation(labels)
    fitted = choose_head(views, shuffled, groups(60), old(), space(0.1))
    assert (fitted.logits.argmax(1) == shuffled).mean() < 0.5  # one in three by chance


def test_means_stay_where_moving_them_helps_nobody():
    """Every labeled cell of one class lies far off in a direction in which the classes do not differ."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 6)
    views = np.eye(CLASSES, WIDTH)[labels][:, None] + 0.02 * rng.normal(size=(18, 2, WIDTH))
    views[labels == 2] += 12 * rng.normal(size=(6, 1, WIDTH)) * np.array([0, 0, 0, 1, 1, 1])
    fitted = choose_head(views, labels, groups(18), old(), space())
    assert fitted.changed == "nothing"
    assert fitted.means is None
    assert np.array_equal(fitted.head.weight, old().weight)


def test_many_cells_refit_the_layer_where_the_clouds_are_not_what_they_were():
    """Classes that differ in one direction only now, and far more in another one than the means would say."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    views = rng.normal(size=(400, 1, WIDTH)) * np.array([3.0, 0.05, 1, 1, 1, 1])
    views[:, 0, 1] += 0.3 * labels
    start = FeatureSpace(torch.eye(WIDTH), torch.eye(2, WIDTH))
    fitted = choose_head(views, labels, groups(400), Head(np.eye(2, WIDTH), np.zeros(2)), start)
    assert fitted.changed == "layer"
    assert (fitted.logits.argmax(1) == labels).mean() > 0.9


def test_a_class_of_which_no_cell_was_ever_seen_is_given_to_none():
    views, labels = cells(60, shift=1.2)
    two = labels < 2
    learned, anything = (True, True, False), cells(300, noise=3.0, seed=2)[0][:, 0]
    head, _ = move_means(views[two], labels[two], old(), space(), learned)
    assert (head.logits(anything).argmax(1) < 2).all()
    fitted = choose_head(views[two], labels[two], groups(60)[two], old(), space(), learned)
    assert fitted.changed != "nothing"
    assert (fitted.head.logits(anything).argmax(1) < 2).all()


def test_a_class_that_only_the_labeled_cells_have_is_learned():
    views, labels = cells(60)
    head, _ = move_means(views, labels, old(), space(), (True, True, False))
    assert accuracy(head, views[labels == 2], labels[labels == 2]) > 0.9


def test_the_fit_of_a_layer_can_be_stopped():
    class Stopped(Silent):
        def cancelled(self) -> bool:
            return True

    views, labels = cells(30)
    with pytest.raises(Cancelled):
        choose_head(views, labels, groups(30), old(), space(), progress=Stopped())
