"""The box of the cell in the middle of a single-cell image (PBC, LISC, Jiangxi): data sets that come as cut cells.

Nuclei and granules absorb red light, red cells hardly do: the stain that absorbs red, nearest to the center, is the
nucleus; what differs from the ground within reach of the nucleus is the cell.  No learned part, so a packed data set
does not change with the localizer's weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_bloodcells.core.crops import local_white

_SIDE = 128
_REACH = 0.20
"""How far cytoplasm may stand off the nucleus, in diameters of the nucleus."""
_PALE = 0.25
"""Part of the threshold of all stain from which on a pixel within reach is cytoplasm.  Of three values of each, 0.20
and 0.25 overlap best with the masks of ``jtsc`` and ``cellavision`` (medians 0.91 and 0.69, n = 100 each)."""


def central_box(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Find the cell in the middle of a single-cell image.

    Parameters
    ----------
    image : (H, W, 3) uint8
        One cell about in the middle, RGB.

    Returns
    -------
    (4,) float32
        ``x_min y_min x_max y_max`` in pixels; the whole image where nothing is stained.

    Examples
    --------
    >>> image = np.full((100, 100, 3), 240, np.uint8)
    >>> image[35:65, 40:70] = (90, 50, 140)
    >>> bool(np.abs(central_box(image) - [40, 35, 70, 65]).max() <= 2)
    True
    """
    height, width = image.shape[:2]
    step = max(1, round(max(height, width) / _SIDE))
    small = image[::step, ::step].astype(np.float32)
    density = -np.log(np.clip(small / local_white(image), 0.02, 1.0))
    density = ndimage.gaussian_filter(density, (_SIDE / 200, _SIDE / 200, 0))
    whole = np.array([0, 0, width, height], np.float32)
    red, total = density[:, :, 0], density.sum(2)
    if np.ptp(red) < 0.1:
        return whole
    nucleus = _nearest_to_center(red > threshold_otsu(red))  # type: ignore[no-untyped-call]
    if nucleus is None:
        return whole
    diameter = 2 * np.sqrt(nucleus.sum() / np.pi)
    reach = ndimage.distance_transform_edt(~nucleus) <= _REACH * diameter
    pale = _PALE * threshold_otsu(total)  # type: ignore[no-untyped-call]
    cell = ndimage.binary_opening((total > pale) & reach, iterations=1) | nucleus
    rows, columns = np.where(cell)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32) * step
    inside: NDArray[np.float32] = np.minimum(box, [width, height, width, height]).astype(np.float32)
    return inside


def box_of_image(image: NDArray[np.uint8], scale: str) -> NDArray[np.float32]:
    """The box of an image taken as one cell, for a model whose crops have the ``scale`` of ``CropSpec``.

    The cell in its middle (``central_box``); the whole image for ``"image"``, the networks that read whole images.
    Training, evaluation and ``count --boxes whole`` all take it from here.

    >>> box_of_image(np.full((30, 40, 3), 240, np.uint8), "image").tolist()
    [0.0, 0.0, 40.0, 30.0]
    """
    if scale == "image":
        return np.array([0, 0, image.shape[1], image.shape[0]], np.float32)
    return central_box(image)


def _nearest_to_center(stained: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The stained parts of one cell: the largest near the center, with its lobes close by."""
    joined, n = ndimage.label(ndimage.binary_dilation(stained, iterations=2))
    if n == 0:
        return None
    height, width = stained.shape
    y, x = np.mgrid[:height, :width]
    central = np.exp(-((y - height / 2) ** 2 + (x - width / 2) ** 2) / (2 * (0.18 * max(height, width)) ** 2))
    weight = ndimage.sum_labels(stained * central, joined, np.arange(1, n + 1))
    result: NDArray[np.bool_] = stained & (joined == 1 + int(np.argmax(weight)))
    return result
