"""Crops: the square around one cell, the same for training, counting and the plugin.

A field and its boxes go in, ``(N, 3, size, size)`` uint8 RGB comes out.  The side of a crop is fixed in micrometers
(``side_um``), so that a lymphocyte stays smaller than a monocyte on every microscope; where the scale of the field is
not known, the box of the cell is taken as 14 um: in the labeled sources a WBC box is 1.87 red cells across, and a red
cell is 7.5 um.  The crop is divided by the white of the empty ground around the cell, which takes the lamp and the
camera's white balance out before anything learned sees the image.

Resampling is Pillow's: a triangle filter that widens when it shrinks (no aliasing), as two matrix products for all
boxes at once.  The weights are multiples of 1/2048 and the values between the two products multiples of 1/16, so every
sum is exact in float32: a crop does not depend on the batch, the device or the order of summation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.cropspec import CropSpec
from napari_bloodcells.core.errors import ImageError

__all__ = ["POSSIBLE_UM", "WBC_BOX_UM", "WHITE_LEVEL", "CropSpec", "crop_sides", "cut_crops", "local_white"]

WBC_BOX_UM = 14.0
POSSIBLE_UM = (1.5, 30.0)
"""Longest side of the box of a cell, from a small platelet to a large monocyte: where a measured scale makes a cell
smaller or larger, the scale is wrong (it happens on fields with hardly a red cell), and the box is trusted instead."""
WHITE_LEVEL = 235.0
"""Where the empty ground stands after the division: below 255, so that glare above it is not lost."""

_CHUNK = 64
_LARGE = 512.0
"""Pixels: crops of no longer side are cut 64 at a time, in 200 MB at most."""
_WEIGHT_STEPS = 2048.0
_BETWEEN_STEPS = 16.0
_WHITE_GRID = 48


def cut_crops(
    image: NDArray[np.uint8],
    xyxy: NDArray[np.float32],
    spec: CropSpec,
    um_per_pixel: float | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Cut the crop of every box, all at once.

    Parameters
    ----------
    image : (H, W, 3) uint8
        The field, RGB.
    xyxy : (N, 4) float
        Boxes, ``x_min y_min x_max y_max`` in pixels, continuous edges (see ``boxes.py``).
    spec : CropSpec
    um_per_pixel : float, optional
        Scale of the field; ``None`` takes every box as 14 um across, and so is done with a box to which it would
        give an impossible size.
    device : str or torch.device

    Returns
    -------
    (N, 3, size, size) uint8 tensor on ``device``
        What lies outside the field is filled with the local white.

    Raises
    ------
    ImageError
        When the image is no (H, W, 3) uint8 array or holds no pixel.

    Examples
    --------
    A box of the crop's own size, on whole pixels, is copied pixel by pixel:

    >>> field = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    >>> crop = cut_crops(field, np.array([[2, 1, 6, 5]]), CropSpec(size=4, context=1, scale="box", white=False))
    >>> bool((crop[0].permute(1, 2, 0).numpy() == field[1:5, 2:6]).all())
    True
    """
    _check_image(image)
    boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
    if not len(boxes):
        return torch.zeros((0, 3, spec.size, spec.size), dtype=torch.uint8, device=device)
    field = _as_tensor(image).to(device)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = crop_sides(boxes, spec, um_per_pixel)
    largest = side.max(1)
    if len(boxes) <= _CHUNK and largest.max() <= _LARGE:
        return _cut_chunk(field, center, side, spec)
    crops_of = torch.empty((len(boxes), 3, spec.size, spec.size), dtype=torch.uint8, device=device)
    if largest.max() <= _LARGE:
        for start in range(0, len(boxes), _CHUNK):
            c = slice(start, start + _CHUNK)
            crops_of[c] = _cut_chunk(field, center[c], side[c], spec)
        return crops_of
    order = np.argsort(largest, kind="stable")
    while len(order):
        # The cells of a chunk are cut in windows of the largest one: large ones in few, and not with small ones.
        most = int(np.clip(_CHUNK * (_LARGE / max(largest[order[0]], 1.0)) ** 2, 1, _CHUNK))
        part = order[:most][largest[order[:most]] <= max(_LARGE, 2 * largest[order[0]])]
        crops_of[torch.from_numpy(part)] = _cut_chunk(field, center[part], side[part], spec)
        order = order[len(part) :]
    return crops_of


def crop_sides(boxes: NDArray[np.float64], spec: CropSpec, um_per_pixel: float | None = None) -> NDArray[np.float64]:
    """Width and height in pixels of the square that each box's crop covers: (N, 2).

    >>> crop_sides(np.array([[0, 0, 140, 100]]), CropSpec(side_um=20))           # the box is taken as 14 um
    array([[200., 200.]])
    """
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    if spec.scale == "image":
        return extent
    longest = extent.max(1)
    if spec.scale == "box":
        side = longest * spec.context
    else:
        measured = np.full(len(boxes), np.nan if um_per_pixel is None else um_per_pixel)
        low, high = POSSIBLE_UM
        possible = (longest * measured >= low) & (longest * measured <= high)
        side = spec.side_um / np.where(possible, measured, WBC_BOX_UM / longest)
    return np.repeat(side[:, None], 2, 1)


def local_white(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The empty ground of a field (or of a part of one), per channel: (3,) float32, 1 to 255.

    Of the pixels between the 90th and the 99th percentile of green (which red cells and nuclei absorb most), the
    median of each channel; taken on a grid of 48 x 48 pixels.

    >>> field = np.full((50, 50, 3), (250, 240, 245), np.uint8); field[10:40, 10:40] = (120, 60, 140)
    >>> local_white(field).tolist()
    [250.0, 240.0, 245.0]
    """
    _check_image(image)
    height, width = image.shape[:2]
    field = _as_tensor(image)
    center, extent = np.array([[width / 2, height / 2]]), np.array([[float(width), float(height)]])
    white: NDArray[np.float32] = _white_around(field, center, extent)[0].numpy()
    return white


def _as_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.require(image, requirements=["C", "W"]))


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ImageError(f"A field must be an (H, W, 3) uint8 RGB array, not {image.shape} {image.dtype}.")


def _cut_chunk(field: Tensor, center: NDArray[np.float64], side: NDArray[np.float64], spec: CropSpec) -> Tensor:
    """``field`` (H, W, 3) uint8, ``center`` and ``side`` (N, 2) as x, y: (N, 3, size, size) uint8."""
    height, width = field.shape[:2]
    n = len(center)
    length = np.repeat(np.array([width, height]), n)
    first, weights = _filter_matrix(center.T.ravel(), side.T.ravel(), spec.size, length)  # both axes in one go
    left, top = first[:n], first[n:]
    both = torch.from_numpy(weights).to(field.device)
    by_column, by_row = both[:n], both[n:]
    h, w = by_row.shape[2], by_column.shape[2]
    window = field.new_zeros((n, 3, h, w), dtype=torch.float32)
    planes = field.permute(2, 0, 1)
    for part, y, x in zip(window, top.tolist(), left.tolist(), strict=True):  # slices: ten times as fast as indexing
        seen = planes[:, max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
        below, right = max(-y, 0), max(-x, 0)
        part[:, below : below + seen.shape[1], right : right + seen.shape[2]] = seen
    between = torch.matmul(by_row[:, None], window)
    between.mul_(_BETWEEN_STEPS).round_().div_(_BETWEEN_STEPS)
    crop = torch.matmul(between, by_column.mT[:, None])
    white = _white_around(field, center, side * 3)[:, :, None, None]
    rows, columns = by_row.sum(2), by_column.sum(2)
    if float(rows.min()) < 1 or float(columns.min()) < 1:  # else nothing of the crop lies outside
        crop += white * (1 - rows[:, None, :, None] * columns[:, None, None, :])
    if spec.white:
        crop *= WHITE_LEVEL / white
    return crop.add_(0.5).floor_().clamp_(0, 255).to(torch.int32).to(torch.uint8)  # directly takes longer


def _filter_matrix(
    center: NDArray[np.float64], side: NDArray[np.float64], size: int, length: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First input pixel (N,) and the weights from it on (N, size, window), along an axis of ``length`` (N,) pixels;
    outside of it they are zero.

    Pillow's triangle filter (``Image.resize`` with ``BILINEAR``): as wide as an output pixel when shrinking, as an
    input pixel when enlarging.  Only the few input pixels that an output pixel sees are computed.
    """
    step = side / size
    support = np.maximum(step, 1.0)
    first = np.floor(center - side / 2 + step / 2 - support - 0.5).astype(np.int64)
    last = np.ceil(center + side / 2 - step / 2 + support + 0.5).astype(np.int64)
    out = (center - side / 2)[:, None] + (np.arange(size) + 0.5) * step[:, None]
    seen = np.floor(out - support[:, None]).astype(np.int64)[:, :, None] + np.arange(int(2 * support.max()) + 2)
    weights = np.maximum(1 - np.abs(seen + 0.5 - out[:, :, None]) / support[:, None, None], 0)
    weights = np.round(weights / weights.sum(2, keepdims=True) * _WEIGHT_STEPS)
    rest = _WEIGHT_STEPS - weights.sum(2)
    crop, pixel = np.arange(len(out))[:, None], np.arange(size)
    weights[crop, pixel, weights.argmax(2)] += rest
    weights[(seen < 0) | (seen >= length[:, None, None])] = 0
    window = int((last - first).max()) + 1
    matrix = np.zeros((len(out), size, window + weights.shape[2]), np.float32)  # the taps of some reach beyond
    matrix[crop[:, :, None], pixel[:, None], seen - first[:, None, None]] = weights / _WEIGHT_STEPS
    return first, matrix[:, :, :window]


def _white_around(field: Tensor, center: NDArray[np.float64], extent: NDArray[np.float64]) -> Tensor:
    """White of the ground in a rectangle ``extent`` (N, 2) around each ``center`` (N, 2), as x, y: (N, 3) float."""
    length = np.array([field.shape[1], field.shape[0]], np.float64)
    low = np.minimum(np.maximum(center - extent / 2, 0), length - 1)  # np.clip takes twice as long
    high = np.minimum(np.maximum(center + extent / 2, low + 1), length)
    share = (np.arange(_WHITE_GRID) + 0.5) / _WHITE_GRID
    at = np.floor(low[:, :, None] + share * (high - low)[:, :, None]).astype(np.int64)  # (N, 2, grid)
    picked = np.minimum(at, (length - 1).astype(np.int64)[None, :, None])
    if field.device.type == "cpu":  # numpy sorts bytes by their digits, and is quicker on few numbers
        return torch.from_numpy(_bright_median(field.numpy(), picked))
    there = torch.from_numpy(picked).to(field.device)
    pixels = field[there[:, 1, :, None], there[:, 0, None, :]].flatten(1, 2)  # (N, grid * grid, 3)
    order = pixels[:, :, 1].to(torch.int32).argsort(dim=1, stable=True)
    n = pixels.shape[1]
    bright = order[:, int(n * 0.90) : int(n * 0.99)]
    ground = pixels.gather(1, bright[:, :, None].expand(-1, -1, 3)).float()
    return ground.median(1).values.clamp_min(1.0)


def _bright_median(field: NDArray[np.uint8], picked: NDArray[np.int64]) -> NDArray[np.float32]:
    """The median color of the bright pixels among those at ``picked`` (N, 2, grid) as x, y: (N, 3)."""
    result = np.empty((len(picked), 3), np.float32)
    every = field.reshape(-1, 3)
    for white, (x, y) in zip(result, picked, strict=True):
        pixels = every.take((y[:, None] * field.shape[1] + x).ravel(), axis=0)
        n = len(pixels)
        bright = pixels[np.argsort(pixels[:, 1], kind="stable")[int(n * 0.90) : int(n * 0.99)]]
        middle = (len(bright) - 1) // 2
        white[:] = np.partition(bright, middle, axis=0)[middle]
    return np.maximum(result, 1.0)
