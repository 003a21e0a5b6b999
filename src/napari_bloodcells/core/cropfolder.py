"""A data set's cells as PNG files in class folders: to look at, to sort by hand, to train other tools with.

The folder that is written is a data set again (a tree of class folders), and each file's name tells the photograph and
the number of the cell in it, and of the cells of a count also who named them.  Which of them show the same original or
photograph stands in its ``groups.csv``, which holds wherever in the folder they are sorted; a group that is named after
the data set of the photographs keeps its name (column ``complete``), so that crops and photographs train as one.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.errors import ImageError, OutputError
from napari_bloodcells.core.files import display_name, write_atomic
from napari_bloodcells.core.groups import COMPLETE, USER_TABLE
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
    dataset: DataSet,
    spec: CropSpec,
    output: Path,
    advance: Callable[[int], None] = lambda n: None,
    *,
    names: Sequence[str] = (),
    sizes: Mapping[Path, tuple[int, int]] | None = None,
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
    names : sequence of str
        What the file of each sample is called; without them after its photograph and its number in it.
    sizes : mapping of Path to (width, height), optional
        Photographs of another size than this are not those that the boxes are of, and are not cut.

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
    called = iter(names or _names(dataset))
    groups: dict[str, str] = {}
    for path, group in groupby(dataset.samples, key=lambda sample: sample.image):
        samples = list(group)
        stems = list(islice(called, len(samples)))
        try:
            image = _read(path, (sizes or {}).get(path))
        except ImageError as problem:
            failed += 1
            problems.append(str(problem))
            advance(len(samples))
            continue
        whole = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        boxes = np.array([sample.box or whole for sample in samples], np.float32)
        crops = cut_crops(image, boxes, spec, samples[0].um_per_pixel).permute(0, 2, 3, 1).numpy()
        for stem, sample, pixels in zip(stems, samples, crops, strict=True):
            label = sample.label or UNLABELED
            folder = output / re.sub(r"[^\w -]+", "_", label)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                place = _free_name(folder, stem, groups)
                Image.fromarray(pixels).save(place)
            except OSError as problem:
                raise OutputError(f"{display_name(folder)}: cannot be written: {problem.strerror}.") from None
            groups[place.stem] = sample.group
            counts[label] += 1
        advance(len(samples))
    if groups:
        text = io.StringIO()
        rows = ((name, group, "yes" if ":" in group else "") for name, group in groups.items())
        csv.writer(text, lineterminator="\n").writerows([("image", "group", COMPLETE), *rows])
        write_atomic(output / USER_TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
    return WrittenCrops(dict(sorted(counts.items())), failed, tuple(problems))


def _names(dataset: DataSet) -> Iterator[str]:
    for path, group in groupby(dataset.samples, key=lambda sample: sample.image):
        stem = re.sub(r"[^\w.-]+", "_", "_".join(path.relative_to(dataset.root).with_suffix("").parts))
        yield from (f"{stem}_{number}" for number, _ in enumerate(group, 1))


def _read(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    from napari_bloodcells.core.slides import is_slide

    if is_slide(path):
        raise ImageError(f"{display_name(path)}: is a whole slide; its cells are not cut, only those of photographs.")
    image = read_image(path)
    height, width = image.shape[:2]
    if size is not None and (width, height) != size:
        raise ImageError(
            f"{display_name(path)}: has {width} x {height} pixels, but its cells are of an image of {size[0]} x "
            f"{size[1]}; put back the photograph that was counted."
        )
    return image


def _free_name(folder: Path, stem: str, taken: Container[str]) -> Path:
    """``stem.png``, or with a letter behind it where two photographs are called the same but for their suffix.

    No other class has a crop of that name, either: they may be moved there, and their groups are told by it.
    """
    for letter in ("", *"bcdefghijklmnopqrstuvwxyz"):
        path = folder / f"{stem}{letter}.png"
        if path.stem not in taken and not path.exists():
            return path
    raise OutputError(f"{stem}.png: too many photographs of this name.")
