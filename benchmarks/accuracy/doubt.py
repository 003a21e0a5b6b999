"""How far confidence should fall far from the training, from the trainings that left a source out.

One slope for all sources together goes into the shipped bundles; what it is worth is told by slopes that were fitted
without the source they are tried on.

    python -m benchmarks.accuracy.doubt artifacts/unseen
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from benchmarks.accuracy.cells import SOURCES
from benchmarks.accuracy.ship import DOUBT, MOST_DOUBT
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.statistics.metrics import score
from napari_bloodcells.core.training.temperature import fit_doubt

Cells: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def read(file: Path) -> dict[str, Cells]:
    """Logits, distances and truth of the known and of the unseen cells of one training."""
    with np.load(file, allow_pickle=False) as arrays:
        return {
            part: (arrays[f"{part}_logits"], arrays[f"{part}_distance"], arrays[f"{part}_truth"])
            for part in ("known", "unseen")
        }


def error(cells: Cells, slope: float) -> float:
    """Expected calibration error with a slope."""
    logits, distance, truth = cells
    shares = softmax(logits / np.clip(distance, 1, MOST_DOUBT)[:, None] ** slope, axis=1)
    return score(truth, shares, load_scheme("wbc5").names, [str(i) for i in range(len(truth))])["ece"].value


def study(trainings: dict[str, dict[str, Cells]]) -> dict[str, Any]:
    """The slope of all, and for each source the errors with none and with the slope of the others."""
    found: dict[str, Any] = {"slope": 0.0, "sources": {}}
    for held, parts in trainings.items():
        slope = fit_doubt([c for s, others in trainings.items() if s != held for c in others.values()], MOST_DOUBT)
        found["sources"][held] = {
            "slope": round(slope, 3),
            **{part: [error(parts[part], 0.0), error(parts[part], slope)] for part in parts},
        }
    found["slope"] = round(fit_doubt([c for parts in trainings.values() for c in parts.values()], MOST_DOUBT), 3)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print, and write ``results/doubt.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where leave_one_out wrote")
    given = parser.parse_args(arguments)
    files = {source: given.folder / f"{source}.npz" for source in SOURCES}
    found = study({source: read(file) for source, file in files.items() if file.exists()})
    DOUBT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
