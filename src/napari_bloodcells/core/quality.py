"""Is this photograph fit to be counted?  Focus, exposure, and whether it is a stained smear at all.

Five plain figures of an image, four limits.  Beside each limit stands what the public sources have and what the same
images have when they are spoilt on purpose (``python -m benchmarks.quality.measure DATA -n 100``).  A problem is a
remark in ``images.csv``; the image is counted all the same, and the reader decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GRID = 512  # figures are taken at about this size, so that they do not depend on the camera's resolution
_STAINED = 0.08

# Steepness of an edge per micrometer: @
LOWEST_SHARPNESS = 0.85
# The same per pixel, for images whose scale is not known: finds a strong blur only.
LOWEST_SHARPNESS_UNSCALED = 0.055
DARKEST_GROUND = 90.0
MOST_BURNT = 0.2
LEAST_COLOR = 0.015
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
    green = small[..., 1]
    dark, light, ground = (float(v) for v in np.percentile(green, (1, 99, 95)))
    contrast = light - dark
    steps = np.concatenate([np.abs(np.diff(green, axis=0)).ravel(), np.abs(np.diff(green, axis=1)).ravel()])
    steepest = float(np.percentile(steps, 99.9)) if steps.size else 0.0
    sharpness = min(steepest / max(contrast, 1.0), 1.0)
    limit = LOWEST_SHARPNESS_UNSCALED
    if um_per_pixel:
        sharpness, limit = sharpness / (um_per_pixel * factor), LOWEST_SHARPNESS
    burnt = float((image.min(axis=2) >= 254).mean())
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


def _common_size(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], int]:
    from PIL import Image

    picture = Image.fromarray(image)
    factor = max(1, round(max(picture.size) / _GRID))
    return np.asarray(picture.reduce(factor) if factor > 1 else picture, np.float32), factor


def _color(small: NDArray[np.float32]) -> float:
    """Median over the pixels that absorb green of the widest distance between channels in optical density."""
    white = np.maximum(np.percentile(small.reshape(-1, 3), 95, axis=0), 1)
    density = np.log10(white / np.clip(small, 1, white))
    stained = density[..., 1] > _STAINED
    if not stained.any():
        return 0.0
    return float(np.median(np.ptp(density[stained], axis=1)))
