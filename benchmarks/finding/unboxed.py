"""How much of what looks wrong on ``bccd`` is a red cell or platelet that the source did not box.

    python -m benchmarks.finding.unboxed ../shared/data

Of the validation fields: how many of the boxed cells are found, and of those found how many the source boxed, by
score and by whether they touch the border.  Writes a Markdown table to standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.finding.measure import learned
from napari_bloodcells.core.boxes import iou, touches_border
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize import Localizer
from napari_bloodcells.core.localize.collect import TruthField, collect

BANDS = ((0.8, 1.0), (0.6, 0.8), (0.4, 0.6))
NEEDED = 0.5
"""Overlap (IoU) of a found and a boxed cell that are the same."""
MARGIN = 3.0
"""Pixels from the border within which a box touches it."""


def matches(
    localizer: Localizer, items: list[TruthField], name: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Score, boxed by the source, and at the border, of every found cell (N,); found or not, of every boxed one."""
    scores, boxed, border, found = [], [], [], []
    for item in items:
        image = read_image(item.truth.image)
        height, width = image.shape[:2]
        field = localizer.find(image)
        boxes = {"RBC": field.rbc, "Platelets": field.platelets}[name]
        overlap = iou(boxes.xyxy, item.truth.boxes.named(name).xyxy)
        scores.append(boxes.scores)
        boxed.append((overlap >= NEEDED).any(1))
        border.append(touches_border(boxes.xyxy, height, width, MARGIN))
        found.append((overlap >= NEEDED).any(0))
    return np.concatenate(scores), np.concatenate(boxed), np.concatenate(border), np.concatenate(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    items = [item for item in collect([given.data / "bccd"]) if item.part == "val"]
    localizer = learned().localizer
    print("| cells | score | inside: found, boxed | at the border: found, boxed |\n|---|---|---|---|")
    for name in ("RBC", "Platelets"):
        scores, boxed, border, found = matches(localizer, items, name)
        for low, high in BANDS:
            band = (scores >= low) & (scores <= high)
            shares = [f"{n.sum()}, {boxed[n].sum()}" for n in (band & ~border, band & border)]
            print(f"| {name} | {low:g} to {high:g} | {' | '.join(shares)} |")
        print(f"| {name} | of the {len(found)} boxed | {found.sum()} found ({found.mean():.1%}) | |")


if __name__ == "__main__":
    main()
