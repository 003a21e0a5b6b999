"""The loops that ``count`` is held against, each a process of its own (``python -m benchmarks.throughput.loops``).

``decode`` is the limit: reading and decoding every file, in one process per processor, with the fastest decoder at
hand.  ``detector`` is what a user would write with torchvision: a Faster R-CNN, then VGG16 on each box, image by image.
``keras`` is the published way: one image at a time, scaled to 200 x 200, through a six-convolution network.  Networks
have random weights, on which the time does not depend.  Each prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


def pillow(path: str) -> int:
    """Decode with Pillow."""
    return int(np.asarray(Image.open(path).convert("RGB")).sum())


def turbo(path: str) -> int:
    """Decode with libjpeg-turbo through imagecodecs."""
    from imagecodecs import jpeg8_decode

    return int(jpeg8_decode(Path(path).read_bytes()).sum())


def fastest(files: Sequence[str]) -> Callable[[str], int]:
    """The decoder that reads ``files`` in the least time of this process."""
    seconds: dict[Callable[[str], int], float] = {}
    for decoder in (pillow, turbo):
        try:
            decoder(files[0])
        except Exception:  # a decoder that does not know the format of these files
            continue
        start = time.process_time()
        for path in files:
            decoder(path)
        seconds[decoder] = time.process_time() - start
    return min(seconds, key=lambda decoder: seconds[decoder])


def decode(files: Sequence[str], decoder: Callable[[str], int] | None = None) -> dict[str, object]:
    """Decode all files, one process per processor, with the fastest decoder unless one is given."""
    decoder = decoder or fastest(files[:100])
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    start = time.perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        n = sum(1 for _ in pool.map(decoder, files, chunksize=32))
    return {"images": n, "cells": 0, "seconds": time.perf_counter() - start, "note": decoder.__name__}


def decode_pillow(files: Sequence[str]) -> dict[str, object]:
    """Decode all files with Pillow, which is what most programs do."""
    return decode(files, pillow)


def detector(files: Sequence[str]) -> dict[str, object]:
    """Faster R-CNN, then VGG16 on every box, image by image (at most two boxes: random weights find none or many)."""
    import torch
    from torchvision.models import vgg16
    from torchvision.models.detection import fasterrcnn_resnet50_fpn
    from torchvision.transforms.functional import pil_to_tensor, resize

    find = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_detections_per_img=2).eval()
    name = vgg16(weights=None, num_classes=5).eval()
    cells = 0
    start = time.perf_counter()
    with torch.inference_mode():
        for path in files:
            image = pil_to_tensor(Image.open(path).convert("RGB")).float() / 255
            boxes = find([image])[0]["boxes"]
            for x0, y0, x1, y1 in (boxes if len(boxes) else torch.tensor([[0, 0, 200, 200]])).int().tolist():
                crop = image[:, y0 : max(y1, y0 + 8), x0 : max(x1, x0 + 8)]
                name(resize(crop, [224, 224], antialias=True)[None]).softmax(1).argmax()
                cells += 1
    return {"images": len(files), "cells": cells, "seconds": time.perf_counter() - start, "note": "image by image"}


def keras(files: Sequence[str]) -> dict[str, object]:
    """One image at a time through the published six-convolution network at 200 x 200."""
    import torch

    from napari_bloodcells.core.models import build

    network = build("cnn6", 4).eval()
    start = time.perf_counter()
    with torch.inference_mode():
        for path in files:
            image = np.asarray(Image.open(path).convert("RGB").resize((200, 200)), np.float32) / 255
            network(torch.from_numpy(image).permute(2, 0, 1)[None]).softmax(1).argmax()
    return {"images": len(files), "cells": len(files), "seconds": time.perf_counter() - start, "note": "whole images"}


if __name__ == "__main__":
    loop, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    listed = sorted(str(path) for path in folder.iterdir())[:limit]
    loops = {"decode": decode, "pillow": decode_pillow, "detector": detector, "keras": keras}
    print(json.dumps(loops[loop](listed)))
