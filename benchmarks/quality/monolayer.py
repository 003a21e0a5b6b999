"""What fields that people chose to count in look like to the rule of the monolayer (``core/slides/monolayer.py``).

    python -m benchmarks.quality.monolayer ../shared/data/bccd/JPEGImages

Prints the 5th, 50th and 95th percentile of the three figures, and how many of the fields the rule would count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_bloodcells.core.images import find_images, read_image
from napari_bloodcells.core.localize import load_localizer
from napari_bloodcells.core.slides.monolayer import MonolayerRule, overlapping
from napari_bloodcells.core.slides.survey import STAINED


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, help="so many images, evenly spread")
    arguments = parser.parse_args()
    files = find_images([arguments.folder])
    if arguments.n is not None:
        files = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, arguments.n).astype(int))]
    localizer, rule = load_localizer(), MonolayerRule()
    rows, held = [], 0
    for file in files:
        image = read_image(file)
        field = localizer.find(image)
        if field.um_per_pixel is None:
            continue
        green = image[..., 1]
        area = green.size * field.um_per_pixel**2
        boxes = field.rbc.xyxy.astype(np.float64)
        stained = float((green < STAINED * np.percentile(green, 98)).mean())
        rows.append((stained, len(boxes) * 1e4 / area, overlapping(boxes)))
        held += rule.holds(stained, boxes, area)
    print(f"{len(rows)} of {len(files)} fields with a scale; {held} are of the monolayer by the rule")
    for name, values in zip(("stained", "red cells in 100 x 100 um", "overlapping"), np.array(rows).T, strict=True):
        low, middle, high = np.percentile(values, (5, 50, 95))
        print(f"{name:<26} {low:8.2f} {middle:8.2f} {high:8.2f}")


if __name__ == "__main__":
    main()
