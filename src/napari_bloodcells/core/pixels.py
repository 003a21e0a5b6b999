"""Any array of pixels to ``uint8`` RGB: the one place that says what bit depths, alpha and planes mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError

# Cameras deliver 8, 10, 12, 14 or 16 bits, the odd ones padded with zeros on top into 16.
_DEPTHS = (8, 10, 12, 14, 16)


def to_rgb8(array: NDArray[Any], name: str = "array", *, bits: int | None = None) -> NDArray[np.uint8]:
    """Bring an array to RGB as a person sees it.

    Parameters
    ----------
    array : (H, W), (H, W, 1), (H, W, 3), (H, W, 4), (H, W, 2) or planar (3, H, W), (4, H, W)
        Grey, RGB, RGBA, or grey with alpha.  ``bool``, integers or floats.
    name : str
        Stands in errors.
    bits : int, optional
        Bits in use per value, where the file says so.

    Returns
    -------
    (H, W, 3) uint8
        Contiguous; an array that is already one is returned as it is.

    Raises
    ------
    ImageError
        If the shape or the values are none of those.

    Notes
    -----
    Integers of more than 8 bits are divided by the full range of the camera, never stretched to the picture's own
    darkest and brightest pixel, so that two fields of one slide stay comparable.  The range is that of ``bits`` where
    it is known, else the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value: a smear has empty ground
    near the top of the range, so a 12-bit camera's picture is recognized as one.  Floats are 0 to 1, or 0 to 255 or
    65,535 where they go beyond 1; NaN becomes 0.  Alpha lies on white.

    >>> to_rgb8(np.array([[0, 4095]], np.uint16))[0, :, 0].tolist()      # a 12-bit camera
    [0, 255]
    >>> to_rgb8(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist()
    [0, 128, 255]
    """
    array = _channels_last(np.asarray(array), name)
    if 0 in array.shape:
        raise ImageError(f"{name}: has no pixels.")
    values = array if array.dtype == np.uint8 and bits in (None, 8) else _to_8_bits(array, name, bits)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] in (2, 4):
        color = values[:, :, :-1].astype(np.uint16)
        alpha = values[:, :, -1:].astype(np.uint16)
        values = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values)


def _channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[-1] not in (1, 2, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 2, 3, 4)):
        return array
    raise ImageError(f"{name}: has shape {'x'.join(map(str, array.shape))}, not height x width x 1, 3 or 4 channels.")


def _to_8_bits(array: NDArray[Any], name: str, bits: int | None) -> NDArray[np.uint8]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif":
        raise ImageError(f"{name}: holds values of type {array.dtype}, which are no gray values.")
    if array.dtype.kind == "f":
        array = np.nan_to_num(array.astype(np.float32, copy=False), nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: values from {low:g} to {high:g} are no gray values of 8 to 16 bits or of 0 to 1.")
    if array.dtype.kind == "f" and high <= 1 and bits is None:
        top = 1.0
    elif bits is not None and 1 <= bits <= 16 and high < 2**bits:
        top = float(2**bits - 1)
    else:
        top = float(2 ** next(depth for depth in _DEPTHS if high < 2**depth) - 1)
    if top == 255 and array.dtype.kind != "f":
        return array.astype(np.uint8)
    scaled: NDArray[np.uint8] = (array.astype(np.float32) * np.float32(255 / top) + np.float32(0.5)).astype(np.uint8)
    return scaled
