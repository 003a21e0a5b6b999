"""Localizers that never saw a source, for the rows of the table that ask what happens on an unseen microscope.

    python -m benchmarks.finding.left_out DATA -o scratch/finding/left-out [--steps 1500] [--only raabin-pig]
    python -m benchmarks.finding.left_out DATA -o scratch/finding/longer --start scratch/finding/left-out
    python -m benchmarks.finding.left_out DATA -o scratch/finding/left-out --keep

``DATA`` holds the sources' folders.  Each localizer is trained by ``train_localizer`` with the shipped recipe, its
steps shortened, or goes on from a former one with ``find-on``; the sources under test are absent in every form:
fields, crops, pasted cells, and the boxes that the net gives itself halfway.  ``--keep`` puts those of a run into
``benchmarks/finding/weights`` in 16 bits, half the size; the table is drawn up from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from napari_bloodcells.core.localize.store import read_localizer, save_localizer
from napari_bloodcells.core.localize.train_find import load_find_settings, train_localizer
from napari_bloodcells.core.progress import Silent

SOURCES = ("bccd", "raabin", "ankara", "chula", "pig", "sickle", "pbc", "jtsc", "cellavision", "misp")
GROUPS = ("raabin-pig", "chula-ankara")
"""Sources left out together share one training: harder than one at a time, and half of the hours."""
LEFT_OUT = {source: group for group in GROUPS for source in group.split("-")}
"""The localizer that never saw a source, by the source."""
KEPT = Path(__file__).parent / "weights"


class Lines(Silent):
    """A line every hundred steps."""

    def __init__(self) -> None:
        self.steps = 0

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Count training steps."""
        if task == "training" and values:
            self.steps += n
            if self.steps % 100 == 0:
                print(self.steps, *(f"{key} {value:.3f}" for key, value in values.items()), flush=True)


def main() -> None:
    """Train the localizers that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("scratch/finding/left-out"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--only", choices=GROUPS)
    parser.add_argument("--start", type=Path, help="folder of a former run: each goes on from its localizer there")
    parser.add_argument("--keep", action="store_true", help=f"keep them in {KEPT.parent.name}/{KEPT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for group in [arguments.only] if arguments.only else GROUPS:
        folder = arguments.output / group
        if not (folder / "localizer.json").exists():
            print(f"without {group}", flush=True)
            if arguments.start is None:
                settings = load_find_settings("find", {"steps": arguments.steps})
            else:
                start = str(arguments.start / group)
                settings = load_find_settings("find-on", {"steps": arguments.steps, "start": start})
            resume = (folder / "checkpoint.safetensors").exists()
            others = [arguments.data / name for name in SOURCES if name not in group.split("-")]
            train_localizer(others, folder, settings, resume, Lines())
        if arguments.keep:
            info, net = read_localizer(folder)
            save_localizer(KEPT / group, net, info, half=True, overwrite=True)


if __name__ == "__main__":
    main()
