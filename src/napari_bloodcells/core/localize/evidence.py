"""What else a field says of a box that may be a white cell: is a red cell seen there too, and is it darker than the red
cells of its field?

On a microscope that it has not seen, the net takes red cells that stain like nuclei for white ones, and pale white
cells for red ones.  Both show when a box is held against the red cells around it.  How much either counts beside the
net's own score is fitted with the calibration (``calibrate_find.py``) and kept in ``localizer.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import centers_inside
from napari_bloodcells.core.crops import local_white
from napari_bloodcells.core.localize.decode import DecodeSettings
from napari_bloodcells.core.localize.net import CLASSES

_LOWEST = DecodeSettings().lowest[CLASSES.index("RBC")]
_LIKE_SIZE = 0.6
"""A red cell this large, in sides of a white cell's box, may be the same cell; a smaller one lies over its edge."""
_SURE = 0.45
"""Raw score of the red cells that a box is held against."""
_FEWEST, _MOST = 5, 40
"""Red cells that it takes, and the surest that are looked at."""
_UNKNOWN = 0.8
"""Where there are too few: as dark as white cells mostly are, so that nothing speaks against it."""
_BOUNDS = (-1.0, 1.5)
_GRID = np.linspace(0.2, 0.8, 7)
"""Where a box is sampled, in parts of its sides."""
_DARK_SHARE = 0.75
"""A nucleus fills a quarter of its box at least, so the density that this share of the samples stays below is its."""
_HAZE = 0.03
"""Optical density of a faint haze, added so that hardly stained red cells give no ratio without bound."""


@dataclass(frozen=True)
class Evidence:
    """For N boxes: ``red`` (N,), 0 or more, of ``also_red``, and ``dark`` (N,), -1 to 1.5, of ``darkness``."""

    red: NDArray[np.float64]
    dark: NDArray[np.float64]

    def take(self, keep: NDArray[np.bool_]) -> Evidence:
        """That of some of the boxes."""
        return Evidence(self.red[keep], self.dark[keep])


def gather_evidence(
    image: NDArray[np.uint8], white: NDArray[np.float32], red: NDArray[np.float32], scores: NDArray[np.float32]
) -> Evidence:
    """The evidence on boxes (N, 4) of ``image``, from its red cells (M, 4) with raw scores (M,); all in its pixels."""
    return Evidence(also_red(white, red, scores), darkness(image, white, red, scores))


def also_red(white: NDArray[np.float32], red: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much each box is seen as a red cell as well: log-odds of the surest red cell of about its size in its middle,
    above those from which red cells are kept; 0 where there is none.

    >>> red, scores = np.array([[1, 1, 9, 9.0]], np.float32), np.array([0.5], np.float32)
    >>> also_red(np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]], np.float32), red, scores).round(2).tolist()
    [2.2, 0.0]
    """
    if not len(white) or not len(red):
        return np.zeros(len(white))
    odds = np.minimum(np.maximum(scores.astype(np.float64), _LOWEST), 1 - 1e-6)
    above = np.log(odds / (1 - odds)) - np.log(_LOWEST / (1 - _LOWEST))
    side = np.sqrt((red[:, 2:] - red[:, :2]).prod(1))
    longest = (white[:, 2:] - white[:, :2]).max(1)
    there = centers_inside(red, white).T & (side > _LIKE_SIZE * longest[:, None])
    result: NDArray[np.float64] = np.where(there, above, 0.0).max(1)
    return result


def darkness(
    image: NDArray[np.uint8], white: NDArray[np.float32], red: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Natural logarithm of how many times denser each box is than the field's red cells, in the color channel where it
    differs most; what is compared is the optical density below which three quarters of a box lie.

    >>> image = np.full((40, 200, 3), 235, np.uint8)
    >>> image[:, 20:] = (200, 150, 160)
    >>> image[10:30, 170:190] = (110, 70, 150)
    >>> corner = np.arange(20, 140, 20)
    >>> red = np.stack([corner, corner * 0 + 10, corner + 20, corner * 0 + 30], 1).astype(np.float32)
    >>> boxes = np.array([[170, 10, 190, 30], [40, 10, 60, 30]], np.float32)
    >>> darkness(image, boxes, red, np.full(6, 0.9, np.float32)).round(1).tolist()
    [1.4, 0.0]
    """
    sure = np.argsort(-scores, kind="stable")[:_MOST]
    sure = sure[scores[sure] >= _SURE]
    if len(sure) < _FEWEST or not len(white):
        return np.full(len(white), _UNKNOWN)
    density = _density(image, np.concatenate([white, red[sure]]), local_white(image))
    usual = np.median(density[len(white) :], axis=0)
    times = (density[: len(white)] + _HAZE) / (usual + _HAZE)
    result: NDArray[np.float64] = np.clip(np.log(times).max(1), *_BOUNDS)
    return result


def _density(image: NDArray[np.uint8], boxes: NDArray[np.float32], white: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, 3): the optical density, 0 or more, of each box below which ``_DARK_SHARE`` of its samples lie."""
    height, width = image.shape[:2]
    sides = boxes[:, 2:] - boxes[:, :2]
    x = np.clip((boxes[:, :1] + sides[:, :1] * _GRID).astype(np.intp), 0, width - 1)
    y = np.clip((boxes[:, 1:2] + sides[:, 1:] * _GRID).astype(np.intp), 0, height - 1)
    samples = image[y[:, :, None], x[:, None, :]].reshape(len(boxes), -1, 3)
    brightest = np.sort(samples, axis=1)[:, round((1 - _DARK_SHARE) * (samples.shape[1] - 1))]
    share = np.clip(brightest / white.astype(np.float64), 0.02, 1.0)
    return -np.log(share)
