"""What is taken for a white cell where there is none: sickle-cell fields looked through by eye, and drawn dirt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.finding.measure import Candidate, measure
from napari_bloodcells.core.localize.collect import read_parts
from napari_bloodcells.synthetic import Ground, SmearSettings, draw_smear


def sickle_alarms(candidate: Candidate, folder: Path) -> list[tuple[str, list[int]]]:
    """False alarms on each field of ``sickle``, those kept for validation and those trained on apart.

    True and doubtful cells (debris, smudges, bare nuclei) are those of ``remarks.csv``, looked at one by one.
    """
    result = []
    for part, name in (("val", "sickle, not trained on"), ("train", "sickle, trained on")):
        items = [item for item in read_parts(folder) if item.part == part]
        scores = measure(candidate, items).sure["WBC"]
        result.append((name, [score.found - score.good for score in scores]))
    return result


def drawn_alarms(candidate: Candidate, n: int = 60) -> tuple[str, list[int]]:
    """White cells found on drawn fields that hold red cells, platelets, clumps, dirt and writing only."""
    alarms = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        ground = Ground(dirt=int(rng.integers(2, 9)), platelet_clumps=int(rng.integers(1, 4)), writing="100x  10 um")
        field = draw_smear(50_000 + seed, SmearSettings(cells=0, platelets=6, ground=ground))
        found = candidate.localizer.find(field.image).wbc
        alarms.append(int((found.scores >= candidate.thresholds[0]).sum()))
    return "drawn dirt, clumps, writing", alarms
