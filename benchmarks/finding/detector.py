"""torchvision's SSDlite (MobileNetV3) as a localizer, trained on the tiles that the shipped localizer learns from.

    python -m benchmarks.finding.detector DATA -o scratch/finding/ssdlite.safetensors --minutes 20
    python -m benchmarks.finding.detector DATA -o scratch/finding/ssdlite-unseen.safetensors --without chula pig

What one would take off the shelf: white cells only, tiles at its own 320 pixels, SGD with a cosine, from scratch as no
pretrained weights were at hand.  The time is that of a processor, so that both can be given as much of it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from benchmarks.finding.left_out import SOURCES
from napari_bloodcells.core.localize import Field
from napari_bloodcells.core.localize.base import found
from napari_bloodcells.core.localize.collect import collect, read_fields
from napari_bloodcells.core.localize.looks import change_looks
from napari_bloodcells.core.localize.tiles import WBC, TileMaker, TileSettings
from napari_bloodcells.core.localize.train_find import load_find_settings
from napari_bloodcells.core.progress import Silent

SIDE = 320
BATCH = 12
RATE = 0.02
LEAST = 0.02


class Detector:
    """A trained SSDlite behind the interface of the localizers; finds white cells, measures no scale."""

    name = "SSDlite"

    def __init__(self, weights: Path) -> None:
        self.net = network()
        self.net.load_state_dict(load_file(weights))
        self.net.eval()

    def find(self, image: NDArray[np.uint8], *, um_per_pixel: float | None = None) -> Field:
        """White cells of (H, W, 3) uint8, those of a score above 0.02."""
        with torch.inference_mode():
            said = self.net([torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255])[0]
        return Field.of(
            image.shape, found(said["boxes"].numpy(), "WBC", said["scores"].numpy()), None, None, um_per_pixel
        )


def network() -> nn.Module:
    """Two classes: ground and white cell."""
    net: nn.Module = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2, score_thresh=LEAST, nms_thresh=0.45
    )
    return net


def targets(boxes: NDArray[np.float32], labels: NDArray[np.intp]) -> dict[str, Tensor]:
    """The white cells of a tile that can be seen, as torchvision wants them."""
    kept = torch.from_numpy(np.clip(boxes[labels == WBC], 0, SIDE).astype(np.float32)).reshape(-1, 4)
    kept = kept[((kept[:, 2:] - kept[:, :2]) > 2).all(1)]
    return {"boxes": kept, "labels": torch.ones(len(kept), dtype=torch.int64)}


def train(data: Path, minutes: float, without: Sequence[str] = ()) -> nn.Module:
    """Train for so many processor minutes on all sources but those ``without`` and the parts held out."""
    settings = load_find_settings("find")
    sources = [data / source for source in SOURCES if source not in without]
    fields = read_fields([i for i in collect(sources) if i.part == "train"], Silent())
    maker = TileMaker(fields, dict(settings.weights), TileSettings(side=SIDE))
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=4e-5)
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        rng, generator = np.random.default_rng((0, step)), torch.Generator().manual_seed(step)
        tiles, wanted = [], []
        for _ in range(BATCH):
            pixels, (boxes, labels), _ = maker.tile(rng)
            tiles.append(pixels)
            wanted.append(targets(boxes, labels))
        images = change_looks(np.stack(tiles), generator, settings.looks).clamp(0, 1)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        loss = torch.stack(list(net(list(images), wanted).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"{100 * done:.0f} %, step {step}, loss {loss.item():.3f}", flush=True)
    return net.eval()


def main() -> None:
    """Train and keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("scratch/finding/ssdlite.safetensors"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--without", nargs="*", default=[], choices=SOURCES, help="sources that it never sees")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = train(arguments.data, arguments.minutes, arguments.without)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in net.state_dict().items()}, arguments.output)


if __name__ == "__main__":
    main()
