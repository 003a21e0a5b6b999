"""Draws what was found on fields of each source, to be looked at by eye.

    python -m benchmarks.finding.pictures DATA [-o scratch/finding/pictures] [-n 3] [--localizer default]

One picture a source: ``n`` fields side by side; true white cells thick blue, found white cells green with their score,
red cells yellow, platelets cyan.  The folder is ignored by git: no photograph goes into the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.finding.left_out import SOURCES
from benchmarks.finding.measure import evenly
from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import Localizer, load_localizer
from napari_bloodcells.core.localize.collect import TruthField, read_parts

HEIGHT = 520


def picture(item: TruthField, localizer: Localizer) -> Image.Image:
    """One field with everything drawn on it."""
    image = read_image(item.truth.image)
    field = localizer.find(image)
    zoom = HEIGHT / image.shape[0]
    canvas = Image.fromarray(image).resize((round(image.shape[1] * zoom), HEIGHT))
    draw = ImageDraw.Draw(canvas)

    def outline(boxes: Boxes, color: str, width: int, scores: bool = False) -> None:
        for box, score in zip(boxes.xyxy * zoom, boxes.scores, strict=True):
            x0, y0, x1, y1 = (float(v) for v in box)
            draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=width)
            if scores:
                draw.text((x0 + 3, y0 + 2), f"{score:.2f}", fill="#c00000", font_size=14)

    if not item.single:
        outline(item.truth.boxes.named("WBC"), "#0000ff", 4)
    outline(field.rbc, "#e0c000", 1)
    outline(field.platelets, "#00c0c0", 2)
    outline(field.wbc, "#00b000", 2, scores=True)
    scale = "no scale" if field.um_per_pixel is None else f"{field.um_per_pixel:.3f} um/pixel"
    draw.text((4, HEIGHT - 20), f"{item.truth.image.stem[:24]}  {scale}", fill="#c00000", font_size=15)
    return canvas


def main() -> None:
    """Draw every source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("scratch/finding/pictures"))
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("--localizer", default="default")
    arguments = parser.parse_args()
    localizer = load_localizer(arguments.localizer)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        items = [item for item in read_parts(arguments.data / source) if item.part != "train"]
        pictures = [picture(item, localizer) for item in evenly(items, arguments.n)]
        sheet = Image.new("RGB", (sum(p.width + 4 for p in pictures), HEIGHT), "white")
        left = 0
        for one in pictures:
            sheet.paste(one, (left, 0))
            left += one.width + 4
        sheet.save(arguments.output / f"{source}.png")
        print(f"{source}: {len(pictures)} fields in {arguments.output / source}.png", flush=True)


if __name__ == "__main__":
    main()
