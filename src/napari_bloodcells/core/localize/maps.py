"""Working images through the localizer's network: in its white, in the precision that pays, in batches and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from napari_bloodcells.core.crops import WHITE_LEVEL, local_white
from napari_bloodcells.core.devices import exact_float32, fast_bf16, fast_int8, memory_ran_out, release_memory
from napari_bloodcells.core.localize.eightbit import Range, eight_bit
from napari_bloodcells.core.localize.net import CLASSES, GRID, MEAN, SPREAD, STRIDE, CellNet, plain_weights

BATCH = 4
"""First looks that go through the net together: 1.9 ms each instead of 2.6 one by one (one core, bfloat16); not so in
float32, where an image would get other bits than alone."""

Maps: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Heat maps (3, h, w) and sides (12, h, w)."""


class MapMaker:
    """Heat maps and sides of working images.

    Parameters
    ----------
    net
        As it was trained.
    ranges
        Of what its convolutions are given, where they may compute in whole numbers (``eightbit.py``); else empty.
    device
        From ``pick_device``.
    window, halo
        A working image that is larger goes through the net in windows of this side, each with so many pixels around.

    Attributes
    ----------
    net : CellNet
        For inference, on the device.
    batch : int
        Working images that go through it together; 1 where an image would get other bits in company.
    """

    def __init__(self, net: CellNet, ranges: Mapping[str, Range], device: torch.device, window: int, halo: int) -> None:
        self.device, self.window, self.halo = device, window, halo
        exact_float32(device)
        self.precision = torch.bfloat16 if fast_bf16(device) else torch.float32
        plain = plain_weights(net).to(device, self.precision).to(memory_format=torch.channels_last)
        whole_numbers = bool(ranges) and fast_int8(device)
        self.net = eight_bit(plain, ranges) if whole_numbers else plain
        self.batch = BATCH if whole_numbers or self.precision == torch.bfloat16 else 1

    def of_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Maps | None]:
        """Maps of working images, those of one size together; None of one that needs windows.

        The batch is always full (the last one is filled up), so an image gives the same bits whatever its neighbors.
        """
        maps: dict[int, Maps] = {}
        for size in dict.fromkeys(pixels.shape for pixels in images):
            if self._needs_windows(*size[:2]):
                continue
            alike = [i for i, pixels in enumerate(images) if pixels.shape == size]
            for start in range(0, len(alike), self.batch):
                part = alike[start : start + self.batch]
                filled = [images[i] for i in (*part, *part[:1] * (self.batch - len(part)))]
                heat, sides = self._of_alike(filled, torch.stack([_to_white(pixels) for pixels in filled]))
                maps.update({i: (heat[k], sides[k]) for k, i in enumerate(part)})
        return [maps.get(i) for i in range(len(images))]

    def of(self, image: NDArray[np.uint8]) -> Maps:
        """Maps of one working image (H, W, 3)."""
        scale = _to_white(image)
        height, width = image.shape[:2]
        if not self._needs_windows(height, width):
            return self._of_one(image, scale)
        heat = np.zeros((len(CLASSES), -(-height // STRIDE), -(-width // STRIDE)), np.float32)
        sides = np.zeros((4 * len(CLASSES), *heat.shape[1:]), np.float32)
        for top in range(0, height, self.window):
            for left in range(0, width, self.window):
                from_y, from_x = max(top - self.halo, 0), max(left - self.halo, 0)
                to_y, to_x = min(top + self.window, height), min(left + self.window, width)
                window = image[from_y : min(to_y + self.halo, height), from_x : min(to_x + self.halo, width)]
                parts = self._of_one(window, scale)
                y, x = (top - from_y) // STRIDE, (left - from_x) // STRIDE
                h, w = -(-(to_y - top) // STRIDE), -(-(to_x - left) // STRIDE)
                rows, columns = top // STRIDE, left // STRIDE
                for whole, part in zip((heat, sides), parts, strict=True):
                    whole[:, rows : rows + h, columns : columns + w] = part[:, y : y + h, x : x + w]
        return heat, sides

    def _needs_windows(self, height: int, width: int) -> bool:
        return max(height, width) > self.window + 2 * self.halo

    def _of_one(self, pixels: NDArray[np.uint8], scale: torch.Tensor) -> Maps:
        heat, sides = self._of_alike([pixels], scale[None])
        return heat[0], sides[0]

    def _of_alike(self, windows: Sequence[NDArray[np.uint8]], scales: torch.Tensor) -> Maps:
        """Maps (N, ...) of windows of one size (H, W, 3); one by one where they are too many for a device's memory."""
        try:
            return self._through_net(windows, scales)
        except RuntimeError as error:
            if not memory_ran_out(error):
                raise
            release_memory(self.device)  # others may use the device too, and not for long
        maps = [self._through_net([one], scale[None]) for one, scale in zip(windows, scales, strict=True)]
        return np.concatenate([heat for heat, _ in maps]), np.concatenate([sides for _, sides in maps])

    def _through_net(self, windows: Sequence[NDArray[np.uint8]], scales: torch.Tensor) -> Maps:
        """Maps (N, ...) of windows, which are padded with a middle grey to whole grid cells."""
        height, width = windows[0].shape[:2]
        grid_height, grid_width = (-(-v // GRID) * GRID for v in (height, width))
        with torch.inference_mode():
            part = torch.from_numpy(np.stack(windows)).to(self.device)
            x = (part * scales.to(self.device)[:, None, None]).clamp_(max=1.0).sub_(MEAN).div_(SPREAD)
            if (height, width) != (grid_height, grid_width):
                x = F.pad(x, (0, 0, 0, grid_width - width, 0, grid_height - height))
            heat, sides = self.net(x.permute(0, 3, 1, 2).to(self.precision))
            h, w = -(-height // STRIDE), -(-width // STRIDE)
            return heat[:, :, :h, :w].float().cpu().numpy(), sides[:, :, :h, :w].float().cpu().numpy()


def _to_white(image: NDArray[np.uint8]) -> torch.Tensor:
    """What each channel is multiplied by, so that the empty ground is white (1): (3,)."""
    return torch.from_numpy(WHITE_LEVEL / local_white(image) / 255)
