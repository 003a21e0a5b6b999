"""Finds the original of an augmented copy (turned, mirrored, moved; black where nothing was) by image correlation.

Every original is turned and mirrored in all ways at 40 x 30 pixels; a copy is compared with these over all shifts at
once by Fourier correlation of its green and its stain channel, black parts counting nothing.  A histogram of colors,
which turning does not change, chooses the candidates; where the best does not stand out, all originals are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

HEIGHT, WIDTH = 30, 40
_PADDED = (48, 64)  # shifts up to 18 rows and 24 columns without wrapping round
ANGLES = tuple(range(-30, 31, 3))
_CANDIDATES = 16
_CLEAR_SCORE, _CLEAR_MARGIN = 0.6, 0.12
_BLACK = 25


@dataclass(frozen=True)
class Match:
    """Position of the best original, its correlation (-1 to 1), and how far the best of another group is behind."""

    original: int
    score: float
    margin: float


def small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 to (30, 40, 3) float32, by the mean of blocks."""
    from PIL import Image

    resized = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def _histogram(image: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Soft-edged histogram over 8 x 8 x 8 colors of the seen pixels, square root, unit length (Hellinger)."""
    bins = np.clip(image[seen] / 32, 0, 7).astype(int)
    counts = np.zeros((8, 8, 8), np.float32)
    np.add.at(counts, (bins[:, 0], bins[:, 1], bins[:, 2]), 1)
    counts = np.sqrt(ndimage.gaussian_filter(counts, 0.7))
    result: NDArray[np.float32] = (counts / max(np.linalg.norm(counts), 1e-9)).ravel()
    return result


def _spectrum(image: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Spectra (2, rows, columns) of green and of blue minus green, zero mean over the seen pixels, unit length."""
    channels = np.stack([image[..., 1], 1.5 * (image[..., 2] - image[..., 1])])
    channels = np.where(seen, channels - channels[:, seen].mean(1)[:, None, None], 0)
    channels /= max(float(np.linalg.norm(channels)), 1e-9)
    result: NDArray[np.complex64] = fft.rfft2(channels.astype(np.float32), _PADDED)
    return result


class Originals:
    """All originals of one class, ready for comparison; ``groups`` names those that show one and the same cell."""

    def __init__(self, images: list[NDArray[np.float32]], groups: list[str]) -> None:
        self._groups = np.array(groups)
        whole = np.ones((HEIGHT, WIDTH), bool)
        self._histograms = np.stack([_histogram(image, whole) for image in images])
        self._spectra = np.stack([self._views(image) for image in images])

    @staticmethod
    def _views(image: NDArray[np.float32]) -> NDArray[np.complex64]:
        views = []
        for mirrored in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]):
            for angle in ANGLES:
                turned = np.stack(
                    [ndimage.rotate(mirrored[..., c], angle, reshape=False, order=1, cval=-1e4) for c in range(3)], -1
                )
                views.append(_spectrum(turned, turned.min(-1) > 0).conj())
        return np.stack(views)

    def match(self, copy: NDArray[np.float32]) -> Match:
        """The original of one copy (30, 40, 3)."""
        seen = ndimage.binary_erosion(copy.max(-1) > _BLACK, border_value=1)
        spectrum = _spectrum(copy, seen)
        likeness = self._histograms @ _histogram(copy, seen)
        candidates = np.argsort(-likeness, kind="stable")[:_CANDIDATES]
        found = self._best(spectrum, candidates)
        clear = found.score >= _CLEAR_SCORE and found.margin >= _CLEAR_MARGIN
        if clear or len(candidates) == len(likeness):
            return found
        return self._best(spectrum, np.arange(len(likeness)))

    def _best(self, spectrum: NDArray[np.complex64], candidates: NDArray[np.intp]) -> Match:
        scores = np.empty(len(candidates))
        for i, original in enumerate(candidates):
            product = (self._spectra[original] * spectrum).sum(1)
            scores[i] = fft.irfft2(product, _PADDED).max()
        best = int(np.argmax(scores))
        others = scores[self._groups[candidates] != self._groups[candidates[best]]]
        return Match(int(candidates[best]), float(scores[best]), float(scores[best] - others.max(initial=0)))
