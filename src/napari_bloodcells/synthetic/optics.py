"""From optical density to the photograph: stain, light, lens and camera.

Light that enters with intensity I leaves as I * 10^-density (Beer-Lambert), channel by channel; so two cells on top
of each other darken as they do under the microscope, and a stain shift is a factor on the density.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_bloodcells.synthetic.settings import SmearSettings


def photograph(density: NDArray[np.float32], settings: SmearSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph a slide.

    Parameters
    ----------
    density : (H, W, 3) float32
        Optical density in red, green and blue, 0 where the ground is empty.

    Returns
    -------
    (H, W, 3) uint8
        RGB.
    """
    height, width = density.shape[:2]
    stain, optics = settings.stain, settings.optics
    gain = stain.strength * np.exp(rng.normal(0, stain.shift, 3))
    ground = np.clip(np.asarray(stain.ground) + rng.normal(0, stain.tint, 3), 20, 255)
    light = _light(height, width, optics.uneven_light, rng)
    image = np.exp(density * (-np.log(10) * gain).astype(np.float32))
    image *= ground.astype(np.float32)
    image *= light[..., None]
    if optics.eyepiece is not None:
        image *= _eyepiece(height, width, optics.eyepiece)[..., None]
    sigma = optics.blur_um / settings.um_per_pixel
    if sigma > 0.2:
        image = gaussian_filter(image, (sigma, sigma, 0), truncate=3)
    if optics.noise > 0:
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        image += grain * np.sqrt(np.maximum(image, 0) / 255) * np.float32(optics.noise)
    photo = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return photo if optics.jpeg is None else _through_jpeg(photo, optics.jpeg)


def inside_eyepiece(x: float, y: float, settings: SmearSettings, margin: float = 0.0) -> bool:
    """Whether the point (x, y in um) lies ``margin`` um or more inside the round field (always, without one)."""
    if settings.optics.eyepiece is None:
        return True
    width, height = settings.width * settings.um_per_pixel, settings.height * settings.um_per_pixel
    radius = settings.optics.eyepiece * float(np.hypot(width, height)) / 2
    return float(np.hypot(x - width / 2, y - height / 2)) <= radius - margin


def _light(height: int, width: int, uneven: float, rng: np.random.Generator) -> NDArray[np.float32]:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    cx, cy = rng.uniform(-0.4, 0.4, 2).astype(np.float32)
    fall = (x - cx) ** 2 + (y - cy) ** 2
    result: NDArray[np.float32] = (1 - np.float32(uneven) * fall / max(float(fall.max()), 1e-6)).astype(np.float32)
    return result


def _eyepiece(height: int, width: int, share: float) -> NDArray[np.float32]:
    radius = share * float(np.hypot(width, height)) / 2
    y = (np.arange(height) + 0.5 - height / 2)[:, None]
    x = (np.arange(width) + 0.5 - width / 2)[None]
    result: NDArray[np.float32] = np.clip((radius - np.hypot(x, y)) / 3 + 0.5, 0.012, 1).astype(np.float32)
    return result


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"), np.uint8)
