"""Two counts of the same smears compared: two reviewers, or the machine against a reviewer.

Only images that both counted take part, also those on which one of them found nothing: cells that it missed are to
show.  Cells are matched by image and overlap of their boxes; classes of matched cells give agreement, Cohen's kappa and
McNemar's test, whether one of the two gives a class more often.  The differentials of the samples (matched or not) give
Bland-Altman limits, a Passing-Bablok line, and for each difference whether two counts of different cells may lie as far
apart by chance (Rümke).  Plots are in ``compareplots.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.counting.cells import OK
from napari_bloodcells.core.counting.cellstable import BOX_COLUMNS
from napari_bloodcells.core.differential import WHOLE_FOLDER, differentials
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.statistics.intervals import LEVEL, Z, clopper_pearson
from napari_bloodcells.core.statistics.paired import Kappa, cohen_kappa, holm, mcnemar

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme

CountedImages: TypeAlias = Sequence[str] | None
"""Names of the images that a count read, with cells or without; None where only its cells are known."""
MIN_IOU = 0.3
"""Overlap from which two boxes are the same cell: reviewers' boxes of one cell differ by a third of their side."""


@dataclass(frozen=True)
class Agreement:
    """One class among the matched cells: how many A, B and both gave it, the positive agreement, and McNemar's p.

    ``agreement`` is ``2 both / (a + b)``, 0 to 1, with an exact binomial interval of ``both`` in the cells that
    either gave it turned into the same scale.  ``mcnemar_p`` is that of the class by itself, ``mcnemar_p_holm``
    adjusted for all classes of which a cell is disputed; both 1 where none is.
    """

    name: str
    a: int
    b: int
    both: int
    agreement: float
    low: float
    high: float
    mcnemar_p: float
    mcnemar_p_holm: float


@dataclass(frozen=True)
class BlandAltman:
    """Differences B - A in percent points over samples: their mean, and the limits that hold 95 % of them."""

    name: str
    n: int
    bias: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Line:
    """Passing-Bablok regression B = intercept + slope A, each with its 95 % interval.

    All NaN with fewer than 3 samples; a limit is NaN where so few samples leave it open, as fewer
    than 5 always do.
    """

    name: str
    n: int
    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    intercept_low: float
    intercept_high: float


@dataclass(frozen=True)
class Difference:
    """One class of one sample: percents and counts of both, and whether they lie within the Rümke limits.

    ``within`` is None, and ``p_value`` NaN, where one of the two classified nothing.
    """

    sample: str
    name: str
    count_a: int
    total_a: int
    percent_a: float
    count_b: int
    total_b: int
    percent_b: float
    p_value: float
    within: bool | None


@dataclass(frozen=True)
class LeftOut:
    """Images that one of the two alone counted, and how many cells it found there; they take no part in anything."""

    images: tuple[str, ...]
    cells: int


@dataclass(frozen=True)
class Comparison:
    """All that two counts say about each other.

    ``confusion`` holds matched cells, A by row and B by column, in the order of ``labels``; ``only_a`` and ``only_b``
    are cells without a partner on the images that both counted, ``left_out_a`` and ``left_out_b`` the images that one
    of them alone counted.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    only_a: int
    only_b: int
    left_out_a: LeftOut
    left_out_b: LeftOut
    kappa: Kappa
    agreement: tuple[Agreement, ...]
    differences: tuple[Difference, ...]
    bland_altman: tuple[BlandAltman, ...]
    lines: tuple[Line, ...]

    @property
    def matched(self) -> int:
        """Cells that both have."""
        return int(self.confusion.sum())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN as None."""
        values = asdict(self)
        values["confusion"] = self.confusion.tolist()
        values["matched"] = self.matched
        plain: dict[str, Any] = _without_nan(values)
        return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def common_scheme(a: ClassScheme, b: ClassScheme) -> ClassScheme:
    """The classes of both, those of ``a`` first: where two models counted, none of either falls out of the hundred.

    >>> from napari_bloodcells.core.classes import load_scheme
    >>> common_scheme(load_scheme("wbc4"), load_scheme("wbc5")).names
    ('neutrophil', 'eosinophil', 'lymphocyte', 'monocyte', 'basophil')
    """
    from napari_bloodcells.core.classes import ClassScheme

    classes = {cell.name: cell for cell in (*b.classes, *a.classes)}
    names = dict.fromkeys((*a.names, *b.names))
    return ClassScheme("both", tuple(classes[name] for name in names))


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    scheme: ClassScheme,
    *,
    min_iou: float = MIN_IOU,
    images: tuple[CountedImages, CountedImages] = (None, None),
) -> Comparison:
    """Compare two ``cells`` tables of the same images.

    Parameters
    ----------
    a, b : DataFrame
        As ``read_cells`` gives them; the column ``class`` is compared.
    scheme : ClassScheme
        The classes of both (``common_scheme``); other names are kept as they are.
    min_iou : float, 0 to 1
        Least overlap of two boxes that are the same cell.
    images : pair of sequences of str, or None
        What ``a`` and ``b`` counted (rows of ``images.csv`` with the status ``ok``): an image that both counted takes
        part also where one found nothing.  Those on which it has a cell where None.

    Raises
    ------
    UsageError
        The tables have no image in common.
    """
    both, left_out = _common_images((a, b), images)
    if not both:
        raise UsageError("The two tables have no image in common; compare counts of the same folder.")
    a, b = (table[table["image"].isin(both)].reset_index(drop=True) for table in (a, b))
    pairs, only_a, only_b = match_cells(a, b, min_iou)
    left, right = a["class"].to_numpy(str), b["class"].to_numpy(str)
    seen = dict.fromkeys([*left, *right])
    labels = (*scheme.names, *(str(name) for name in seen if name not in scheme.names))
    place = {name: i for i, name in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for i, j in pairs:
        confusion[place[left[i]], place[right[j]]] += 1
    found = differences(a, b, scheme, both)
    white = [cell.name for cell in scheme.classes if cell.kind == "wbc"]
    alone = len({d.sample for d in found}) == 1  # else the whole folder is the sum of its samples, and no point
    used = [d for d in found if alone or d.sample != WHOLE_FOLDER]
    points = {name: [(d.percent_a, d.percent_b) for d in used if d.name == name] for name in white}
    clean = {n: np.array([p for p in ps if np.isfinite(p).all()]).reshape(-1, 2) for n, ps in points.items()}
    return Comparison(
        labels,
        confusion,
        only_a,
        only_b,
        *left_out,
        cohen_kappa(confusion),
        tuple(_agreement(confusion, labels)),
        found,
        tuple(bland_altman(name, p[:, 0], p[:, 1]) for name, p in clean.items()),
        tuple(passing_bablok(name, p[:, 0], p[:, 1]) for name, p in clean.items()),
    )


def _common_images(
    tables: tuple[pd.DataFrame, pd.DataFrame], images: tuple[CountedImages, CountedImages]
) -> tuple[list[str], tuple[LeftOut, LeftOut]]:
    """The images that both counted, in the order of the first, and what is left out of either."""
    rows = [_by_image(table) for table in tables]
    first, second = (list(dict.fromkeys([*(names or ()), *mine])) for names, mine in zip(images, rows, strict=True))

    def alone(mine: list[str], cells: dict[str, list[int]], theirs: CountedImages, others: list[str]) -> LeftOut:
        there = set(others)
        names = [name for name in mine if name not in there and (theirs is not None or name in cells)]
        return LeftOut(tuple(names), sum(len(cells.get(name, ())) for name in names))

    seen = set(second)
    left_out = alone(first, rows[0], images[1], second), alone(second, rows[1], images[0], first)
    return [name for name in first if name in seen], left_out


def match_cells(a: pd.DataFrame, b: pd.DataFrame, min_iou: float = MIN_IOU) -> tuple[list[tuple[int, int]], int, int]:
    """Rows of ``a`` and ``b`` that are one cell: same image, and the assignment of greatest total overlap.

    Returns the pairs of row positions, and how many rows of each are left over.
    """
    from scipy.optimize import linear_sum_assignment

    rows_a, rows_b = _by_image(a), _by_image(b)
    boxes_a, boxes_b = (t[list(BOX_COLUMNS)].to_numpy(np.float32) for t in (a, b))
    pairs: list[tuple[int, int]] = []
    for image, mine in rows_a.items():
        theirs = rows_b.get(image, [])
        if not theirs:
            continue
        overlap = iou(boxes_a[mine], boxes_b[theirs])
        gain = np.where(overlap >= min_iou, overlap, 0)
        for i, j in zip(*linear_sum_assignment(-gain), strict=True):
            if gain[i, j] > 0:
                pairs.append((mine[i], theirs[j]))
    return sorted(pairs), len(a) - len(pairs), len(b) - len(pairs)


def _by_image(table: pd.DataFrame) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(table["image"]):
        rows.setdefault(str(image), []).append(row)
    return rows


def _agreement(confusion: NDArray[np.int64], labels: tuple[str, ...]) -> list[Agreement]:
    given = zip(labels, *(v.tolist() for v in (confusion.sum(1), confusion.sum(0), np.diag(confusion))), strict=True)
    rows = [(name, a, b, both) for name, a, b, both in given if a + b]
    # a class without a disputed cell cannot be found biased, so Holm need not pay for it: Tarone, Biometrics 46 (1990)
    # 515-522
    p = {name: mcnemar(a - both, b - both) for name, a, b, both in rows if a + b > 2 * both}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    found = []
    for name, a, b, both in rows:
        low, high = (float(v) for v in clopper_pearson(both, a + b - both, LEVEL))
        interval = 2 * low / (1 + low), 2 * high / (1 + high)
        found.append(
            Agreement(name, a, b, both, 2 * both / (a + b), *interval, p.get(name, 1.0), adjusted.get(name, 1.0))
        )
    return found


def differences(
    a: pd.DataFrame, b: pd.DataFrame, scheme: ClassScheme, images: CountedImages = None
) -> tuple[Difference, ...]:
    """Every class of every sample in both counts, with the test whether two counts may lie as far apart by chance.

    ``images`` are those that both counted, with cells or without; those on which both have a cell where None.

    Two counts of different cells of one smear differ by chance as two binomial samples do: the difference lies within
    the Rümke limits where Fisher's exact test of the two does not reject at 5 % (Rümke, Triangle 4 (1960) 154-158,
    tables this for 100, 200, 500 and 1,000 cells).  Two counts of the same cells have no such chance between them, and
    a bias can lie within: that is what ``mcnemar`` sees.
    """
    import pandas as pd
    from scipy.stats import fisher_exact

    if images is None:
        images = [name for name in dict.fromkeys(a["image"]) if name in set(b["image"])]
    counted = pd.DataFrame({"image": list(images), "status": OK})
    both = [table[table["image"].isin(images)] for table in (a, b)]
    found = []
    for block, other in zip(*(differentials(table, scheme, counted) for table in both), strict=True):
        for s, o in zip(block.shares, other.shares, strict=True):
            table = [[s.count, block.total - s.count], [o.count, other.total - o.count]]
            p = float(fisher_exact(table)[1]) if block.total and other.total else math.nan
            counts = (s.count, block.total, s.percent, o.count, other.total, o.percent)
            within = None if math.isnan(p) else p >= 1 - LEVEL
            found.append(Difference(block.sample, s.name, *counts, p, within))
    return tuple(found)


def bland_altman(name: str, a: ArrayLike, b: ArrayLike) -> BlandAltman:
    """Bias and limits of agreement of paired percents (Bland and Altman, Lancet 1 (1986) 307-310).

    >>> bland_altman("x", [10, 20, 30], [11, 21, 31]).bias
    1.0
    """
    gap = np.asarray(b, float) - np.asarray(a, float)
    n = len(gap)
    bias = float(gap.mean()) if n else math.nan
    spread = Z * float(gap.std(ddof=1)) if n > 1 else math.nan
    return BlandAltman(name, n, bias, bias - spread, bias + spread)


def passing_bablok(name: str, a: ArrayLike, b: ArrayLike) -> Line:
    """The line that two methods of equal error follow: median of all pairwise slopes, shifted for the negative ones.

    Passing and Bablok, J Clin Chem Clin Biochem 21 (1983) 709-720.

    >>> fit = passing_bablok("x", [1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    >>> fit.slope, fit.intercept
    (2.0, 0.0)
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    n = len(x)
    nothing = Line(name, n, *[math.nan] * 6)
    i, j = np.triu_indices(n, 1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    keep = ~((dx == 0) & (dy == 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(dx[keep] == 0, np.sign(dy[keep]) * np.inf, dy[keep] / np.where(dx[keep] == 0, 1, dx[keep]))
    slopes = np.sort(slopes[slopes != -1])
    m, offset = len(slopes), int((slopes < -1).sum())
    if n < 3 or not m:
        return nothing
    middle = (m - 1) / 2 + offset
    slope = float((_at(slopes, math.floor(middle)) + _at(slopes, math.ceil(middle))) / 2)
    half = Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((m - half) / 2) - 1  # M1 of the paper, counted from 0; M2 is as far from the other end
    low, high = _at(slopes, first + offset), _at(slopes, m - 1 - first + offset)
    if not math.isfinite(slope):
        return nothing
    starts = [float(np.median(y - s * x)) if math.isfinite(s) else math.nan for s in (slope, high, low)]
    return Line(name, n, slope, low, high, *starts)


def _at(values: NDArray[np.float64], position: int) -> float:
    """The value at ``position``; NaN beyond either end, or where it is infinite: so few samples leave it open."""
    inside = 0 <= position < len(values) and math.isfinite(values[position])
    return float(values[position]) if inside else math.nan
