"""A folder of drawn fields: images, VOC XML beside them, and ``truth.csv``.

The layout is what ``bloodcells-batch count`` takes: each image with an XML of the same name.  ``truth.csv`` has one
row per white cell (image, x_min, y_min, x_max, y_max in pixels, class), so that a count can be held against it.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.errors import OutputError, UsageError
from napari_bloodcells.synthetic.settings import SmearSettings
from napari_bloodcells.synthetic.smear import Smear, draw_smear

TRUTH_COLUMNS = ("image", "x_min", "y_min", "x_max", "y_max", "class")
SUFFIXES = (".png", ".jpg", ".tif", ".bmp", ".webp")


def write_folder(
    folder: str | Path,
    n: int,
    seed: int = 0,
    settings: SmearSettings | None = None,
    *,
    xml: bool = True,
    suffix: str = ".png",
) -> list[Path]:
    """Draw ``n`` fields into a folder.

    Parameters
    ----------
    folder : path
        Made if missing.  Nothing in it is overwritten.
    n : int
        How many fields.
    seed : int
        Field ``i`` is drawn with seed ``seed + i``.
    settings : SmearSettings, optional
        What each field holds.
    xml : bool
        Write a VOC XML with the boxes of all cells beside each image.
    suffix : str
        ``.png``, ``.jpg`` (quality 92), ``.tif``, ``.bmp`` or ``.webp`` (lossless).

    Returns
    -------
    list of Path
        The images, ``smear_0000.png`` onward.

    Raises
    ------
    OutputError
        If one of the files exists already, or cannot be written.
    UsageError
        For another suffix.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     images = write_folder(folder, n=2, seed=7)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['smear_0000.png', 'smear_0000.xml', 'smear_0001.png', 'smear_0001.xml', 'truth.csv']
    """
    from napari_bloodcells.core.voc import write_voc

    if suffix not in SUFFIXES:
        raise UsageError(f"smears cannot be written as {suffix}: choose one of {', '.join(SUFFIXES)}")
    root = Path(folder)
    truth = root / "truth.csv"
    images = [root / f"smear_{i:04d}{suffix}" for i in range(n)]
    for path in [truth, *images, *([p.with_suffix(".xml") for p in images] if xml else [])]:
        if path.exists():
            raise OutputError(f"{path}: exists already and is not overwritten; name another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with truth.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(TRUTH_COLUMNS)
            for i, path in enumerate(images):
                smear = draw_smear(seed + i, settings)
                _write_image(smear, path)
                if xml:
                    height, width = smear.image.shape[:2]
                    write_voc(path.with_suffix(".xml"), _all_boxes(smear), image=path, width=width, height=height)
                for box, label in zip(smear.boxes.xyxy, smear.boxes.labels, strict=True):
                    rows.writerow([path.name, *(f"{v:g}" for v in box), label])
    except OSError as error:
        raise OutputError(f"{root}: cannot be written ({error.strerror or error}); name another folder") from error
    return images


def _all_boxes(smear: Smear) -> Boxes:
    import numpy as np

    parts = (smear.boxes, smear.rbc, smear.platelets)
    labels = tuple(label for part in parts for label in part.labels)
    return Boxes(np.concatenate([part.xyxy for part in parts]), labels, source="drawn")


def _write_image(smear: Smear, path: Path) -> None:
    from PIL import Image

    saved: dict[str, dict[str, Any]] = {".jpg": {"quality": 92}, ".webp": {"lossless": True}}
    Image.fromarray(smear.image).save(path, **saved.get(path.suffix, {}))
