"""What a score means: slopes and offsets that make it a probability, and the thresholds, both from validation fields.

Validation fields are searched with every threshold off; each found box is a true cell or not; a logistic regression on
the logit (Platt 1999) turns the peak of the heat map into how often such a box is right.  For white cells it weighs
what the field says of the box (``evidence.py``) as well.  Every source weighs the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import Boxes, centers_inside, iou
from napari_bloodcells.core.errors import BloodcellsError, DataWarning
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize.collect import TruthField, tell_unread
from napari_bloodcells.core.localize.eightbit import recorded_ranges
from napari_bloodcells.core.localize.evidence import Evidence, gather_evidence
from napari_bloodcells.core.localize.learned import LearnedLocalizer
from napari_bloodcells.core.localize.net import CLASSES, CellNet
from napari_bloodcells.core.localize.store import Calibration, EightBitRange, LocalizerInfo
from napari_bloodcells.core.progress import Progress, check_cancelled

_OPEN = 0.001
_RANGE_FIELDS = 16
"""Fields of one source that the ranges of 8-bit numbers are taken from; a value too high is cut off, not wrapped."""
_HIGHEST = 1e6
_FEWEST = 30
MOST_FIELDS = 60
"""Fields of one source that are searched, evenly taken."""
WANTED_RECALL = 0.99
_MOST_RED = 0.2
"""What is seen as a red cell as well costs at most this part of its log-odds as one: pale lymphocytes are seen so."""
BOUNDS = ((0.3, 0.4), (0.15, 0.6), (0.15, 0.6))
"""A threshold chosen on a small validation part is kept within these, white cells first.  What is a white cell as
likely as not is never left out; and at 0.2, which a validation part can well bear, a localizer that had never seen
`pig` gave there two false boxes for a true one (``docs/finding.md``)."""


@dataclass(frozen=True)
class _Found:
    """Boxes of one class on one field: their logits, what the field says of them (white cells only), whether each is
    true, how many true ones there are."""

    logits: NDArray[np.float64]
    evidence: Evidence | None
    true: NDArray[np.bool_]
    wanted: int
    source: str


def measure_ranges(net: CellNet, info: LocalizerInfo, items: Sequence[TruthField], progress: Progress) -> LocalizerInfo:
    """``info`` with the range of what each convolution is given on ``items``, ``_RANGE_FIELDS`` of a source."""
    exact = LearnedLocalizer(info.model_copy(update={"eight_bit": {}}), net)
    some = [i for s in sorted({i.source for i in items}) for i in _evenly(items, s, _RANGE_FIELDS)]
    progress.start("measuring ranges", len(some))
    with recorded_ranges(exact.net) as ranges:
        for item in some:
            check_cancelled(progress)
            progress.advance("measuring ranges")
            with suppress(BloodcellsError):
                exact.find(read_image(item.truth.image))
    usable = all(found.low > -_HIGHEST and max(found.high) < _HIGHEST for found in ranges.values())  # NaN is not
    rounded = {
        name: EightBitRange(low=round(found.low, 3), high=tuple(round(value, 3) for value in found.high))
        for name, found in ranges.items()
        if usable
    }
    return info.model_copy(update={"eight_bit": rounded})


def calibrate_localizer(
    net: CellNet, info: LocalizerInfo, items: Sequence[TruthField], progress: Progress
) -> LocalizerInfo:
    """``info`` with calibration and thresholds measured on ``items``; classes with too few boxes keep theirs.

    Each of these is told (``DataWarning``): its scores mean what they did for the weights that the training began with.

    The threshold of white cells is the highest that keeps 99 % of those found at the lowest one allowed, in the mean
    of the sources (a box around nothing, which a source may hold, would set it to zero otherwise); those of red cells
    and platelets make the found number equal the true one.
    """
    bare = info.model_copy(update={"calibration": (Calibration(),) * 3, "thresholds": (_OPEN,) * 3})
    results = _search(LearnedLocalizer(bare, net), items, progress)
    calibrations, thresholds = list(info.calibration), list(info.thresholds)
    for c in range(len(CLASSES)):
        logits = np.concatenate([r.logits for r in results[c]] or [np.zeros(0)])
        true = np.concatenate([r.true for r in results[c]] or [np.zeros(0, np.bool_)])
        if min(true.sum(), (~true).sum()) < _FEWEST:
            warnings.warn(_left_as_it_was(c, int(true.sum()), int((~true).sum()), info), DataWarning, stacklevel=2)
            continue
        n_of = {s: sum(len(r.logits) for r in results[c] if r.source == s) for s in {r.source for r in results[c]}}
        weights = np.concatenate([np.full(len(r.logits), 1 / max(n_of[r.source], 1)) for r in results[c]])
        calibrations[c] = fit_platt(logits, true, weights, _together(results[c]))
        sure = [_probability(calibrations[c], r) for r in results[c]]
        choose = _threshold_for_recall if c == 0 else _threshold_for_number
        thresholds[c] = float(np.clip(choose(results[c], sure), *BOUNDS[c]))
    return info.model_copy(update={"calibration": tuple(calibrations), "thresholds": tuple(thresholds)})


def _left_as_it_was(c: int, true: int, false: int, info: LocalizerInfo) -> str:
    kept = "not calibrated" if info.calibration[c] == Calibration() else "calibrated as those it began with"
    return (
        f"{CLASSES[c]}: {true} true and {false} false boxes on the validation fields, needed are {_FEWEST} of each: "
        f"its scores are {kept}, its threshold stays {info.thresholds[c]:.2f}; give more fields that have it boxed."
    )


def _search(localizer: LearnedLocalizer, items: Sequence[TruthField], progress: Progress) -> list[list[_Found]]:
    """For each class, what was found on each field whose source boxed that class."""
    results: list[list[_Found]] = [[] for _ in CLASSES]
    items = [item for item in items if not item.single]
    items = [i for s in sorted({i.source for i in items}) for i in _evenly(items, s, MOST_FIELDS)]
    progress.start("calibrating", len(items))
    unread: list[str] = []
    for item in items:
        check_cancelled(progress)
        progress.advance("calibrating")
        try:
            image = read_image(item.truth.image)
            field = localizer.find(image)
        except BloodcellsError as problem:
            unread.append(str(problem))
            continue
        evidence = gather_evidence(image, field.wbc.xyxy, field.rbc.xyxy, field.rbc.scores)
        for c, (name, boxes) in enumerate(zip(CLASSES, (field.wbc, field.rbc, field.platelets), strict=True)):
            if name in item.truth.classes:
                said = evidence if c == 0 else None
                results[c].append(_compare(boxes, said, item.truth.boxes, name, item.source))
    tell_unread(unread)
    return results


def _evenly(items: Sequence[TruthField], source: str, most: int) -> list[TruthField]:
    """At most ``most`` of the items of one source, evenly taken."""
    here = [item for item in items if item.source == source]
    return here[:: max(-(-len(here) // most), 1)]


def _compare(boxes: Boxes, evidence: Evidence | None, truth: Boxes, name: str, source: str) -> _Found:
    true = truth.named(name).xyxy
    ignored = truth.named("ignore").xyxy
    if name == "WBC":
        inside = centers_inside(boxes.xyxy, true)
        right = np.zeros(len(boxes), np.bool_)
        for j in range(len(true)):
            right[np.flatnonzero(inside[:, j])[:1]] = True
        keep = right | ~centers_inside(boxes.xyxy, ignored).any(1)
    else:
        overlap = iou(boxes.xyxy, true)
        right = overlap.max(1) >= 0.5 if len(true) else np.zeros(len(boxes), np.bool_)
        keep = np.ones(len(boxes), np.bool_)
    p = np.clip(boxes.scores[keep].astype(np.float64), 1e-6, 1 - 1e-6)
    said = None if evidence is None else evidence.take(keep)
    return _Found(np.log(p / (1 - p)), said, right[keep], len(true), source)


def _together(results: Sequence[_Found]) -> Evidence | None:
    parts = [result.evidence for result in results if result.evidence is not None]
    if not parts:
        return None
    return Evidence(np.concatenate([part.red for part in parts]), np.concatenate([part.dark for part in parts]))


def fit_platt(
    logits: NDArray[np.float64],
    true: NDArray[np.bool_],
    weights: NDArray[np.float64],
    evidence: Evidence | None = None,
) -> Calibration:
    """Weighted logistic regression of ``true`` on ``logits``, and on the evidence where there is some (Newton).

    It is pulled slightly to slope 1 and to no weight of the evidence, which may only speak as it is meant to; that of a
    red cell counts at most ``_MOST_RED`` of the net's score.

    >>> x = np.linspace(-4, 4, 400); fit = fit_platt(x, np.arange(400) % 2 == 0, np.ones(400))
    >>> fit.slope < 0.2, abs(fit.offset) < 0.1, fit.red, fit.dark
    (True, True, 0.0, 0.0)
    """
    one = np.ones(len(logits))
    if evidence is None:
        slope, offset = _newton([logits, one], true, weights)
        return Calibration(slope=slope, offset=offset)
    slope, _, _, red = _newton([logits, one, evidence.dark, -evidence.red], true, weights)
    share = float(np.clip(red / slope, 0.0, _MOST_RED))
    given = logits - share * evidence.red
    slope, offset, dark = _newton([given, one, evidence.dark], true, weights)
    if dark < 0:
        (slope, offset), dark = _newton([given, one], true, weights), 0.0
    return Calibration(slope=slope, offset=offset, red=share * slope, dark=dark)


def _newton(
    columns: Sequence[NDArray[np.float64]], true: NDArray[np.bool_], weights: NDArray[np.float64]
) -> list[float]:
    """Weight of each of ``columns`` (N,); that of the first, at least 0.05, is pulled to 1, the others to 0."""
    x, weights = np.stack(columns, axis=1), weights / weights.mean()
    wanted: NDArray[np.float64] = np.eye(len(columns))[0]
    rule: NDArray[np.float64] = wanted.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ rule)))
        gradient = x.T @ (weights * (p - true)) + (rule - wanted)
        hessian = (x * (weights * p * (1 - p) + 1e-9)[:, None]).T @ x + np.eye(len(columns))
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        rule = rule - step
        rule[0] = max(rule[0], 0.05)
        if np.abs(step).max() < 1e-8:
            break
    return [float(weight) for weight in rule]


def _probability(rule: Calibration, found: _Found) -> NDArray[np.float64]:
    logits = rule.slope * found.logits + rule.offset
    if found.evidence is not None:
        logits = logits + rule.dark * found.evidence.dark - rule.red * found.evidence.red
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result


def _threshold_for_recall(results: Sequence[_Found], sure: Sequence[NDArray[np.float64]]) -> float:
    """The highest threshold that keeps 99 % of the true cells found at the lowest one, in the mean of the sources."""
    lowest = BOUNDS[0][0]
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for result, scores in zip(results, sure, strict=True):
        parts.setdefault(result.source, []).append(scores[result.true])
    scores_of = [np.concatenate(part) for part in parts.values()]
    scores_of = [scores[scores >= lowest] for scores in scores_of if (scores >= lowest).any()]
    for threshold in np.arange(0.9, 0.02, -0.01):
        if np.mean([(scores >= threshold).mean() for scores in scores_of]) >= WANTED_RECALL:
            return float(threshold)
    return lowest


def _threshold_for_number(results: Sequence[_Found], sure: Sequence[NDArray[np.float64]]) -> float:
    wanted = sum(r.wanted for r in results)
    scores = np.sort(np.concatenate(sure))[::-1]
    return float(scores[min(wanted, len(scores) - 1)])
