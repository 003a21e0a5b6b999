"""Measure scores and thresholds of a trained localizer anew, where how they are measured has changed since.

    python -m benchmarks.finding.recalibrate DATA                                     # the shipped one
    python -m benchmarks.finding.recalibrate DATA scratch/finding/left-out/raabin-pig --without raabin pig

``DATA`` holds the sources' folders; their validation fields are searched.  The weights stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.finding.left_out import SOURCES
from napari_bloodcells.core.files import write_atomic
from napari_bloodcells.core.localize.calibrate_find import calibrate_localizer
from napari_bloodcells.core.localize.collect import collect
from napari_bloodcells.core.localize.store import METADATA, home, metadata_text, read_localizer
from napari_bloodcells.core.progress import Silent


def main() -> None:
    """Write ``localizer.json`` again, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("localizer", nargs="?", default="default", help="its folder; otherwise the shipped one")
    parser.add_argument("--without", nargs="*", default=[], choices=SOURCES, help="sources that it never saw")
    given = parser.parse_args()
    torch.set_num_threads(1)
    info, net = read_localizer(given.localizer)
    items = collect([given.data / name for name in SOURCES if name not in given.without])
    new = calibrate_localizer(net, info, [item for item in items if item.part == "val"], Silent())
    write_atomic(home(given.localizer) / METADATA, metadata_text(new).encode(), overwrite=True)
    for name, before, after in zip(info.classes, info.calibration, new.calibration, strict=True):
        print(f"{name}: {before} -> {after}")
    print("thresholds:", info.thresholds, "->", new.thresholds)


if __name__ == "__main__":
    main()
