"""Is it worth finding cells in 8-bit whole numbers (``core/localize/eightbit.py``), and what does it change?

    python -m benchmarks.eight_bit DATA              # the table of docs/speed.md, on validation fields
    python -m benchmarks.eight_bit DATA --write      # first measures the ranges that localizer.json keeps

``DATA`` holds the sources' folders.  Both ways see the same fields on one thread; processor time is taken in turns, so
that what else the machine does is shared alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.finding.left_out import SOURCES
from benchmarks.finding.measure import OPEN, Candidate, Measured, measure
from napari_bloodcells.core.files import write_atomic
from napari_bloodcells.core.localize.calibrate_find import measure_ranges
from napari_bloodcells.core.localize.collect import TruthField, collect
from napari_bloodcells.core.localize.learned import LearnedLocalizer
from napari_bloodcells.core.localize.score import average_precision, precision, recall
from napari_bloodcells.core.localize.store import METADATA, home, metadata_text, read_localizer
from napari_bloodcells.core.progress import Silent

ROUNDS = 3
RESULTS = Path(__file__).with_suffix(".json")


def candidates() -> tuple[Candidate, Candidate]:
    """The shipped localizer in float32 and in whole numbers."""
    info, net = read_localizer()
    bare = info.model_copy(update={"thresholds": (OPEN,) * 3})
    whole = LearnedLocalizer(bare, net)
    exact = LearnedLocalizer(bare.model_copy(update={"eight_bit": {}}), net)
    return Candidate("float32", exact, info.thresholds), Candidate("int8", whole, info.thresholds)


def figures(result: Measured) -> dict[str, float]:
    """What a table of localizers says of white cells."""
    sure, every = result.sure["WBC"], result.every["WBC"]
    return {
        "fields": len(sure),
        "cells": sum(field.wanted for field in sure),
        "recall": recall(sure),
        "precision": precision(sure),
        "AP50": average_precision(every),
        "AP75": average_precision(every, 1),
    }


def compare(items: Sequence[TruthField]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each source by candidate, and the milliseconds of a field."""
    pair = candidates()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for source in sorted({item.source for item in items}):
        here = [item for item in items if item.source == source]
        results = {c.name: measure(c, here) for c in pair}
        seconds = {c.name: [np.median(results[c.name].seconds)] for c in pair}
        for _ in range(ROUNDS - 1):
            for c in pair:
                seconds[c.name].append(np.median(measure(c, here).seconds))
        found[source] = {
            name: {**figures(result), "ms": 1000 * float(min(seconds[name]))} for name, result in results.items()
        }
    return found


def main() -> None:
    """Print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true", help="measure the ranges and write them into localizer.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    items = collect([given.data / name for name in SOURCES])
    if given.write:
        info, net = read_localizer()
        info = measure_ranges(net, info, [item for item in items if item.part == "train"], Silent())
        write_atomic(home() / METADATA, metadata_text(info).encode(), overwrite=True)
    fields = [item for item in items if item.part == "val" and not item.single]
    found = compare(fields)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(
        "| source | fields | cells | | recall | precision | AP50 | AP75 | ms |\n|---|---|---|---|---|---|---|---|---|"
    )
    for source, ways in found.items():
        for name, row in ways.items():
            shown = " | ".join(f"{row[key]:.3f}" for key in ("recall", "precision", "AP50", "AP75"))
            print(f"| {source} | {row['fields']:.0f} | {row['cells']:.0f} | {name} | {shown} | {row['ms']:.1f} |")


if __name__ == "__main__":
    main()
