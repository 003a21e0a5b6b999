"""White cells from the stain contrast alone: Otsu, opening, size in red cells, watershed.

A nucleus takes up the blue dye: it absorbs red and green light and lets blue pass, while hemoglobin absorbs blue and
green and lets red pass.  In optical density, against the white of the empty ground (so that lamp and white balance
drop out), green plus red minus blue therefore separates nuclei from red cells.  The work is done on an image
reduced to about 320 pixels; every length is given in diameters of the red cells measured in the same image.
No weights, no training: the fallback, and the yardstick for the learned localizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_bloodcells.core.localize.base import RED_CELL_UM, Field, check_image, found, weighted_median

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class ClassicalSettings:
    """Lengths are in red-cell diameters, areas in red-cell areas, contrasts in optical density."""

    working_side: int = 320
    """Long side, in pixels, to which the image is reduced (by a whole factor) before anything is done."""
    lowest_contrast: float = 0.22
    """A threshold below this would take noise or red cells for nuclei: the field is then empty."""
    smallest_nucleus: float = 0.22
    """A nucleus is larger than this; platelets and stain specks are smaller."""
    largest_nucleus: float = 8.0
    """A patch larger than this is no cell but dirt or the black border."""
    join: float = 0.3
    """Lobes of one nucleus lie closer than this."""
    split: float = 1.2
    """Centers of two touching cells lie farther apart than this."""
    margin: float = 0.20
    """Cytoplasm added around the nucleus on each side."""


class ClassicalLocalizer:
    """Stain contrast, Otsu, opening and watershed; see the module's text.

    Examples
    --------
    >>> image = np.full((120, 160, 3), 230, np.uint8)
    >>> len(ClassicalLocalizer().find(image).wbc)
    0
    """

    name = "classical"

    def __init__(self, settings: ClassicalSettings | None = None) -> None:
        self.settings = settings or ClassicalSettings()

    def find(self, image: NDArray[np.uint8], *, um_per_pixel: float | None = None) -> Field:
        """White cells of ``image`` (H, W, 3) uint8 RGB; red cells serve as the ruler only."""
        check_image(image)
        small, factor = reduce_image(image, self.settings.working_side)
        density, seen = optical_density(small)
        diameter = red_cell_diameter(density, seen) if um_per_pixel is None else RED_CELL_UM / um_per_pixel / factor
        problems: tuple[str, ...] = ()
        scale = um_per_pixel
        if diameter is None:
            problems = ("no red cells to measure the scale from, sizes are guessed from the image",)
            diameter = max(density.shape[:2]) / 6
        elif scale is None:
            scale = RED_CELL_UM / (diameter * factor)
        boxes, scores = self._nuclei(density, seen, diameter)
        grown = boxes * factor + np.array([-1, -1, 1, 1]) * self.settings.margin * diameter * factor
        height, width = image.shape[:2]
        grown = np.clip(grown, 0, [width, height, width, height]).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        return Field.of(image.shape, found(grown[order], "WBC", scores[order]), um_per_pixel=scale, problems=problems)

    def _nuclei(
        self, density: FloatImage, seen: NDArray[np.bool_], diameter: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) around the nuclei in pixels of the reduced image, and a score (N,) from their contrast."""
        rule = self.settings
        contrast = ndimage.uniform_filter(nuclear_contrast(density), 3)
        contrast[~seen] = 0
        level = max(otsu(contrast[seen]), rule.lowest_contrast) if seen.any() else np.inf
        mask = contrast > level
        radius = max(round(0.06 * diameter), 1)
        mask = ndimage.binary_opening(mask, disk(radius))
        if not mask.any():
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        joined = ndimage.binary_dilation(mask, disk(max(round(rule.join * diameter / 2), 1)))
        labels = split_touching(joined, mask, rule.split * diameter)
        labels = np.where(mask, labels, 0)
        area = np.bincount(labels.ravel())
        unit = np.pi / 4 * diameter**2
        boxes, scores = [], []
        for index, where in enumerate(ndimage.find_objects(labels), start=1):
            if where is None or not rule.smallest_nucleus * unit <= area[index] <= rule.largest_nucleus * unit:
                continue
            rows, columns = where
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
            inside = float(contrast[where][labels[where] == index].mean())
            scores.append(inside / (inside + level))
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def reduce_image(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], int]:
    """``image`` (H, W, 3) averaged over whole blocks so that its long side is at least ``side``, and the factor."""
    from PIL import Image

    factor = max(max(image.shape[:2]) // side, 1)
    return (image, 1) if factor == 1 else (np.asarray(Image.fromarray(image).reduce(factor)), factor)


def optical_density(image: NDArray[np.uint8]) -> tuple[FloatImage, NDArray[np.bool_]]:
    """Optical density (H, W, 3), log10, against the empty ground, and where there is anything to see (H, W).

    The white is the 95th percentile of each channel among the pixels that the lamp reaches; the black border of an
    eyepiece (below a tenth of the white in every channel, and joined to the image's edge) is not seen.
    """
    bright = image.max(2)
    lit = bright > 0.25 * np.percentile(bright, 98)
    white = np.percentile(image[lit], 95, axis=0) if lit.any() else np.full(3, 255.0)
    table = -np.log10((np.arange(256)[:, None] + 1) / (np.maximum(white, 1) + 1)).astype(np.float32)
    density = np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)
    dark, n = ndimage.label(bright < 0.3 * white.max())
    if not n:
        return density, np.ones(bright.shape, np.bool_)
    edge = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    area = np.bincount(dark.ravel())
    outside = [i for i in np.unique(edge[edge > 0]) if area[i] > 0.004 * dark.size]
    border = ndimage.binary_dilation(np.isin(dark, outside), iterations=3) if outside else np.zeros_like(lit)
    return density, ~border


def nuclear_contrast(density: FloatImage) -> FloatImage:
    """Green plus red minus blue optical density (H, W): high in nuclei, low in red cells and on the ground."""
    result: FloatImage = density[..., 1] + density[..., 0] - density[..., 2]
    return result


def otsu(values: NDArray[np.float32], bins: int = 128) -> float:
    """Otsu's threshold of ``values`` (N,), from a histogram of ``bins`` bins (IEEE Trans. SMC 9, 62, 1979)."""
    counts, edges = np.histogram(values, bins)
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_sum = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (mean_sum / below - (mean_sum[-1] - mean_sum) / above) ** 2
    spread = np.nan_to_num(spread)
    return float(edges[1:][spread >= spread.max() * (1 - 1e-9)].mean())  # the middle of an empty gap


def disk(radius: int) -> NDArray[np.bool_]:
    """A round structuring element of ``radius`` pixels."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    result: NDArray[np.bool_] = x**2 + y**2 <= radius**2 + radius * 0.5
    return result


def red_cell_diameter(density: FloatImage, seen: NDArray[np.bool_]) -> float | None:
    """Median diameter, in pixels, of the single round cells of a field; None where fewer than three are seen.

    Everything denser than the ground is a cell; its pale middle is filled.  Clumps are left out by their shape: a
    disk fills pi/4 of its box, and its box is square.
    """
    whole = density[..., 1]
    # Nuclei are several times denser than red cells: unclipped, Otsu would part them from all the rest.
    if not seen.any() or (level := otsu(np.minimum(whole[seen], 0.3))) < 0.03:
        return None
    cells = ndimage.binary_fill_holes((whole > level) & seen)
    labels, _ = ndimage.label(cells)
    area = np.bincount(labels.ravel())
    height, width = cells.shape
    diameters = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        h, w = rows.stop - rows.start, columns.stop - columns.start
        cut = rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        round_shape = 0.8 < h / w < 1.25 and abs(area[index] / (h * w) - np.pi / 4) < 0.08
        if not cut and round_shape and area[index] >= 20:
            diameters.append((np.sqrt(area[index] * 4 / np.pi), area[index]))
    if len(diameters) < 3:
        return None
    return weighted_median(*np.array(diameters, float).T)


def split_touching(joined: NDArray[np.bool_], mask: NDArray[np.bool_], distance: float) -> NDArray[np.intp]:
    """Label (H, W) of each cell: components of ``joined``, parted by a watershed where two cells touch.

    Peaks of the distance to the outline that lie farther apart than ``distance`` pixels are two cells, unless the
    way from one to the other hardly narrows (a bent or lobed nucleus).
    """
    from skimage.segmentation import watershed

    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(joined).astype(np.float32), 1)
    size = max(int(distance) | 1, 3)
    peak = (depth == ndimage.maximum_filter(depth, size)) & mask & (depth > 0.28 * distance)
    markers, n = ndimage.label(ndimage.binary_dilation(peak, iterations=1))
    components, _ = ndimage.label(joined)
    lonely = ~np.isin(components, np.unique(components[markers > 0])) & (components > 0)
    if lonely.any():
        markers = np.where(lonely, components + n, markers)
    result: NDArray[np.intp] = watershed(-depth, markers, mask=joined)  # type: ignore[no-untyped-call]
    return result
