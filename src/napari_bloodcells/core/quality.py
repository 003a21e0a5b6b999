"""Is this photograph fit to be counted?  Focus, exposure, and whether it is a stained smear at all.

Five plain figures of an image, and a limit for each.  Beside each limit stands what the public sources have and what
the same images have when they are spoilt on purpose (``python -m benchmarks.quality.measure DATA -n 100``; 98 to 100
images a source).  The limits of sharpness were decided on some of the sources and tested on others; the rest were
chosen on all of them, so how they do on another microscope is not known.  A problem is a remark in ``images.csv``; the
image is counted all the same, and the reader decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import numpy as np
from numpy.typing import NDArray

_GRID = 512  # figures are taken at about this size, so that they do not depend on the camera's resolution
_STAINED = 0.08

# Steepness of an edge per micrometer: ankara and bccd, which decided, have 1.01 and more (99 % of the images); blurred,
# 72 and 100 % are found.  raabin, which tested it: 1.23 and more, 94 % found, no false alarm.
LOWEST_SHARPNESS = 0.85
# The same per pixel, for images whose scale is not known: cellavision, chula and misp, which decided, have 0.123 and
# more; blurred, 92 to 100 % are found.  pig, sickle, kaggle, pbc and jtsc, which tested it, have no false alarm (498
# images); blurred, 100, 100, 32, 13 and 0 % are found: a blur of 1 or 2 pixels on a picture of a single cell is missed.
LOWEST_SHARPNESS_UNSCALED = 0.105
# Brightness of the ground: 130 and more (chula, the darkest source); a quarter of the light gives 32 to 63, all found.
DARKEST_GROUND = 90.0
# Share of pixels that are white to the limit: 0 in all sources but jtsc, whose ground really is burnt out in a third of
# its images; times 1.6 it is 0.4 to 0.8 in the middle, but 0.02 in chula, which is too dark to be burnt by that.
MOST_BURNT = 0.2
# Distance of the channels in the stained parts, optical density: 0.04 and more (misp 0.02); 0 where there is no color.
LEAST_COLOR = 0.015
# Contrast in shares of the ground: 0.37 and more; an empty or closed light path has next to none.
LEAST_CONTRAST = 0.1


@dataclass(frozen=True)
class Quality:
    """What was measured on one image.

    Attributes
    ----------
    sharpness : float
        Steepness of the steepest edges (99.9th percentile of the step between neighboring pixels) in shares of the
        contrast: per micrometer where the scale is known, else per pixel (at about 512 pixels) and 0 to 1.
    contrast : float, 0 to 255
        Green, from the 1st to the 99th percentile.
    ground : float, 0 to 255
        Brightness of the empty ground (95th percentile of green).
    burnt : float, 0 to 1
        Share of the pixels that are white to the limit (254 and more in every channel).
    color : float
        How far apart the three channels of the stained parts are, in optical density (median); 0 for gray.
    problems : tuple of str
        What is wrong, in words: ``out of focus``, ``over-exposed``, ``dark``, ``not a stained smear``.
    """

    sharpness: float
    contrast: float
    ground: float
    burnt: float
    color: float
    problems: tuple[str, ...] = ()


def check_quality(image: NDArray[np.uint8], um_per_pixel: float | None = None) -> Quality:
    """Measure one field or cell.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    um_per_pixel : float, optional
        Scale of ``image``, from the red cells; focus is judged far better with it.

    Returns
    -------
    Quality

    >>> check_quality(np.full((64, 64, 3), 240, np.uint8)).problems
    ('not a stained smear',)
    """
    small, factor = _common_size(image)
    green = np.ascontiguousarray(small[..., 1])
    dark, light, ground = _percentiles(_histogram(green[::2, ::2].tobytes()), (1, 99, 95))
    contrast = light - dark
    rows, columns = green[::2], np.ascontiguousarray(green[:, ::2])  # every second one is enough for a percentile
    steps = _steps(rows[:, :-1], rows[:, 1:]) + _steps(columns[:-1], columns[1:])
    steepest = _percentiles(_histogram(steps), (99.9,))[0]
    sharpness = min(steepest / max(contrast, 1.0), 1.0)
    limit = LOWEST_SHARPNESS_UNSCALED
    if um_per_pixel:
        sharpness, limit = sharpness / (um_per_pixel * factor), LOWEST_SHARPNESS
    burnt = _burnt(image[::2, ::2])
    color = _color(small)
    problems = []
    burnt_out = burnt > MOST_BURNT  # where all is white to the limit, colors say nothing
    if contrast < LEAST_CONTRAST * max(ground, 1.0) or (color < LEAST_COLOR and not burnt_out):
        problems.append("not a stained smear")
    elif sharpness < limit:
        problems.append("out of focus")
    if burnt_out:
        problems.append("over-exposed")
    if ground < DARKEST_GROUND:
        problems.append("dark")
    return Quality(sharpness, contrast, ground, burnt, color, tuple(problems))


def _steps(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bytes:
    """The differences of two pixels each, one byte a pair."""
    return (np.maximum(one, other) - np.minimum(one, other)).tobytes()


def _histogram(values: bytes) -> list[int]:
    """How often each of 256 values occurs.  Pillow counts bytes in half the time of ``np.bincount``."""
    from PIL import Image

    if not values:
        return [0] * 256
    counts: list[int] = Image.frombuffer("L", (len(values), 1), values, "raw", "L", 0, 1).histogram()
    return counts


def _common_size(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    from PIL import Image

    factor = max(1, round(max(image.shape[:2]) / _GRID))
    return (np.asarray(Image.fromarray(image).reduce(factor)), factor) if factor > 1 else (image, factor)


def _percentiles(counts: Sequence[int], percents: tuple[float, ...]) -> list[float]:
    """``np.percentile`` of small whole numbers from how often each occurs: no sorting; 0 where there is none.

    >>> _percentiles([0, 1, 2, 0, 0, 0, 0, 0, 0, 1], (0, 50, 75))
    [1.0, 2.0, 3.75]
    """
    upto = list(accumulate(counts))
    if not upto[-1]:
        return [0.0] * len(percents)
    places = [(upto[-1] - 1) * percent / 100 for percent in percents]
    low = [bisect_right(upto, int(place)) for place in places]
    high = [bisect_right(upto, ceil(place)) for place in places]
    return [float(a + (b - a) * (p - int(p))) for a, b, p in zip(low, high, places, strict=True)]


def _burnt(image: NDArray[np.uint8]) -> float:
    """Share of the pixels that are white to the limit in every channel."""
    white = image[..., 1] >= 254
    if not white.any():
        return 0.0
    return float((white & (image[..., 0] >= 254) & (image[..., 2] >= 254)).mean())


def _color(small: NDArray[np.uint8]) -> float:
    """Median over the pixels that absorb green of the widest distance between channels in optical density.

    Every third pixel of every third row will do for a median.
    """
    planes = [np.ascontiguousarray(small[::3, ::3, channel]).ravel() for channel in range(3)]
    whites = [_percentiles(_histogram(plane.tobytes()), (95,))[0] for plane in planes]
    white = np.maximum(whites, 1)[:, None]
    density = np.log10(white / np.minimum(np.maximum(np.arange(256), 1), white))
    stained = np.flatnonzero((density[1] > _STAINED)[planes[1]])
    if not len(stained):
        return 0.0
    red, green, blue = (table[plane[stained]] for table, plane in zip(density, planes, strict=True))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    middle = (len(spread) - 1) // 2, len(spread) // 2
    return float(np.partition(spread, middle)[list(middle)].mean())
