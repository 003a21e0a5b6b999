"""A data set's cells as PNG files in class folders: to look at, to sort by hand, to train other tools with.

The folder that is written is a data set again (a tree of class folders), and each file's name tells the photograph and
the number of the cell in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_bloodcells.core.errors import ImageError, OutputError
from napari_bloodcells.core.files import display_name
from napari_bloodcells.core.images import read_image

if TYPE_CHECKING:
    from napari_bloodcells.core.crops import CropSpec
    from napari_bloodcells.core.datasets import DataSet

UNLABELED = "unlabeled"


@dataclass(frozen=True)
class WrittenCrops:
    """What was written: crops of each class folder, photographs that could not be read, and all problems in words."""

    counts: dict[str, int]
    failed: int
    problems: tuple[str, ...]


def write_crops(
    dataset: DataSet, spec: CropSpec, output: Path, advance: Callable[[int], None] = lambda n: None
) -> WrittenCrops:
    """Cut every cell of ``dataset`` and write it below ``output``.

    Parameters
    ----------
    dataset : DataSet
        A sample without a box is cut from the whole of its image.
    spec : CropSpec
        How the crops are cut.
    output : Path
        A folder that does not exist or is empty.
    advance : callable
        Told the number of cells done.

    Raises
    ------
    OutputError
        If the folder holds something already, or cannot be written.
    """
    from PIL import Image

    from napari_bloodcells.core.crops import cut_crops

    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise OutputError(f"{display_name(output)}: is not empty; nothing is overwritten, choose a new folder.")
    counts: Counter[str] = Counter()
    problems = list(dataset.problems)
    failed = 0
    for path, group in groupby(dataset.samples, key=lambda sample: sample.image):
        samples = list(group)
        try:
            image = read_image(path)
        except ImageError as problem:
            failed += 1
            problems.append(str(problem))
            advance(len(samples))
            continue
        whole = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        boxes = np.array([sample.box or whole for sample in samples], np.float32)
        crops = cut_crops(image, boxes, spec, samples[0].um_per_pixel).permute(0, 2, 3, 1).numpy()
        stem = re.sub(r"[^\w.-]+", "_", "_".join(path.relative_to(dataset.root).with_suffix("").parts))
        for number, (sample, pixels) in enumerate(zip(samples, crops, strict=True), 1):
            label = sample.label or UNLABELED
            folder = output / re.sub(r"[^\w -]+", "_", label)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(_free_name(folder, f"{stem}_{number}"))
            except OSError as problem:
                raise OutputError(f"{display_name(folder)}: cannot be written: {problem.strerror}.") from None
            counts[label] += 1
        advance(len(samples))
    return WrittenCrops(dict(sorted(counts.items())), failed, tuple(problems))


def _free_name(folder: Path, stem: str) -> Path:
    """``stem.png``, or with a letter behind it where two photographs are called the same but for their suffix."""
    for letter in ("", *"bcdefghijklmnopqrstuvwxyz"):
        path = folder / f"{stem}{letter}.png"
        if not path.exists():
            return path
    raise OutputError(f"{stem}.png: too many photographs of this name.")
