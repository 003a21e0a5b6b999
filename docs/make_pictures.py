"""Draws the pictures of the README and the docs from synthetic smears: ``python docs/make_pictures.py [FOLDER]``.

No photograph is used, so every picture can be made again by anybody, and is the same each time.  Pictures are written
as PNG with 256 colors to stay small.  The picture of the report is taken with a headless Chromium, where there is one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_bloodcells import count
from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.core.report import write_reports
from napari_bloodcells.synthetic import CELL_TYPES, Ground, Optics, SmearSettings, Stain, draw_smear, write_folder

PICTURES = Path(__file__).parent / "pictures"
SIDE = 140
QUIET = Optics(noise=0.0)
DIFFERENTIAL = {"neutrophil": 0.62, "lymphocyte": 0.24, "monocyte": 0.06, "eosinophil": 0.06, "basophil": 0.02}
LOOKS = {
    "analyzer": SmearSettings(cells=("neutrophil", "lymphocyte", "eosinophil", "monocyte")),
    "dark stain, cut and touching cells": SmearSettings(
        cells=("basophil", "neutrophil", "neutrophil", "lymphocyte"),
        touching=0.6,
        border=0.4,
        stain=Stain(1.25, 0.0, (222, 208, 214), 0),
    ),
    "phone on the eyepiece, dirt": SmearSettings(
        cells=5,
        um_per_pixel=0.14,
        stain=Stain(1.0, 0.0, (250, 232, 196), 0),
        ground=Ground(dirt=8, platelet_clumps=1),
        optics=Optics(uneven_light=0.35, eyepiece=0.8, blur_um=0.16, noise=4, jpeg=70),
    ),
    "pale stain, out of focus": SmearSettings(
        cells=3, um_per_pixel=0.08, stain=Stain(0.65, 0.0, (226, 230, 232), 0), optics=Optics(blur_um=0.35)
    ),
}


def main(folder: Path = PICTURES) -> None:
    """Draw all pictures into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save(gallery(), folder / "cells.png")
    save(looks(), folder / "looks.png")
    save(counted(), folder / "counted.png")
    if chromium := shutil.which("chromium") or shutil.which("google-chrome"):
        save(report(chromium), folder / "report.png")
    else:
        print("report.png: left as it is, for no Chromium is here (apt-get install chromium)")


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG with 256 colors."""
    image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")


def gallery(per_type: int = 3) -> Image.Image:
    """Every cell type that can be drawn, a column each."""
    page = Image.new("RGB", (len(CELL_TYPES) * SIDE, per_type * SIDE + 30), "white")
    for column, name in enumerate(CELL_TYPES):
        for row in range(per_type):
            settings = SmearSettings(
                width=360, height=360, um_per_pixel=0.135, cells=(name,), stain=Stain(shift=0.04), optics=QUIET
            )
            smear = draw_smear(100 * column + row, settings)
            page.paste(Image.fromarray(middle(smear.image, smear.boxes)), (column * SIDE, 30 + row * SIDE))
        write(page, (column * SIDE + SIDE // 2, 15), name, 14)
    return page


def middle(image: NDArray[np.uint8], boxes: Boxes) -> NDArray[np.uint8]:
    """A square of the field around its first cell."""
    center = (boxes.xyxy[0, :2] + boxes.xyxy[0, 2:]) / 2
    left, top = np.clip(center - SIDE / 2, 0, np.array(image.shape[1::-1]) - SIDE).astype(int)
    return image[top : top + SIDE, left : left + SIDE]


def looks() -> Image.Image:
    """The same blood as four microscopes might show it."""
    page = Image.new("RGB", (1290, 1030), "white")
    for i, (name, settings) in enumerate(LOOKS.items()):
        x, y = (i % 2) * 650, (i // 2) * 515
        page.paste(Image.fromarray(draw_smear(40 + i, settings).image), (x, y + 26))
        write(page, (x + 320, y + 13), name, 18)
    return page.resize((860, 687), Image.Resampling.LANCZOS)


def counted() -> Image.Image:
    """A field as drawn, and beside it what the shipped model finds and names there."""
    settings = SmearSettings(
        cells=("neutrophil", "eosinophil", "lymphocyte", "monocyte", "basophil"),
        um_per_pixel=0.11,
        platelets=6,
        optics=QUIET,
    )
    smear = draw_smear(12, settings)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "field.png"
        Image.fromarray(smear.image).save(path)
        cells = counted_cells(count([path], boxes="find", device="cpu"))
    colors = load_scheme("wbc5").colors
    field = Image.fromarray(smear.image)
    page = Image.new("RGB", (1290, 480), "white")
    page.paste(field, (0, 0))
    draw = ImageDraw.Draw(field)
    font = ImageFont.load_default(19)
    for cell in cells.to_dict("records"):
        color = colors.get(cell["class"], "#777777")
        box = [cell[key] for key in ("x_min", "y_min", "x_max", "y_max")]
        draw.rectangle(box, outline=color, width=4)
        words = f" {cell['class']} {100 * cell['confidence']:.0f} % "
        x, y = max(0, min(box[0], field.width - draw.textlength(words, font))), max(0, box[1] - 25)
        draw.rectangle((x, y, x + draw.textlength(words, font), y + 25), fill=color)
        draw.text((x, y + 12), words, fill="black", font=font, anchor="lm")
    page.paste(field, (650, 0))
    return page


def counted_cells(result: CountResult) -> pd.DataFrame:
    """The cells of a count, or an error where an image failed: a picture must not hide that."""
    if len(result.failed):
        raise SystemExit("; ".join(result.failed["status"]))
    return result.cells


def report(chromium: str) -> Image.Image:
    """The top of the report page of a drawn smear of 120 cells."""
    settings = SmearSettings(cells=6, width=900, height=700, differential=DIFFERENTIAL)
    with TemporaryDirectory() as home:
        images = write_folder(Path(home) / "smear", 20, seed=300, settings=settings, xml=False)
        result = count(images, boxes="find", device="cpu")
        counted_cells(result)
        write_reports(result, Path(home) / "out")
        shot = Path(home) / "shot.png"
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--window-size=1200,1150", "--virtual-time-budget=4000", f"--user-data-dir={home}/profile"]
        page = (Path(home) / "out" / "report.html").as_uri()
        subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=120)
        return Image.open(shot).convert("RGB")


def write(page: Image.Image, center: tuple[int, int], words: str, size: int) -> None:
    """Write ``words`` in the middle of ``center``."""
    ImageDraw.Draw(page).text(center, words, fill="black", font=ImageFont.load_default(size), anchor="mm")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
