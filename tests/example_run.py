"""A run to make reports and exports of: drawn fields in samples, with classes, probabilities and a model's errors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.counting.cellstable import cell_columns
from napari_bloodcells.core.report.inputs import ReportInput, loader
from napari_bloodcells.synthetic import Smear, SmearSettings, draw_smear

CONFUSION = np.array(
    [[480, 6, 1, 5, 8], [4, 190, 2, 2, 2], [1, 2, 96, 1, 0], [3, 0, 1, 290, 6], [6, 1, 0, 8, 185]], np.int64
)


@cache
def _small(seed: int) -> Smear:
    """A small field, drawn once for all tests."""
    return draw_smear(seed, SmearSettings(width=300, height=240, um_per_pixel=0.16))


def make_run(
    samples: dict[str, int] | None = None, seed: int = 0, settings: SmearSettings | None = None, repeat: int = 1
) -> ReportInput:
    """A run of drawn fields: ``samples`` says how many fields each sample has ("" is the folder itself).

    ``repeat`` lists every cell that often, to make large tables of few drawings.
    """
    rng = np.random.default_rng(seed)
    scheme = load_scheme("wbc5")
    names = list(scheme.names)
    pixels: dict[str, np.ndarray] = {}
    rows = []
    number = 0
    for sample, fields in (samples or {"sample A": 3, "sample B": 2, "sample C": 2}).items():
        for field in range(fields):
            number += 1
            smear = draw_smear(seed * 1000 + number, settings) if settings else _small(seed * 1000 + number)
            image = str(Path(sample) / f"field_{field + 1:02d}.png") if sample else f"field_{field + 1:02d}.png"
            pixels[image] = smear.image
            for k in range(len(smear.boxes) * repeat):
                place = k % len(smear.boxes)
                truth = names.index(smear.boxes.labels[place])
                p = rng.dirichlet(np.where(np.arange(len(names)) == truth, 12.0, 0.35)).round(4)
                label = names[int(p.argmax())] if p.max() > 0.5 else "unidentified"
                box = [float(v) for v in smear.boxes.xyxy[place]]
                rows.append(
                    (image, k + 1, *box, label, float(p.max()), *p, "found", round(float(rng.gamma(4, 0.1)), 4))
                )
    cells = pd.DataFrame(rows, columns=cell_columns(names))
    images = pd.DataFrame({"image": list(pixels), "status": "ok", "problems": ""})
    run = {
        "model": {"name": "wbc5-example", "sha256": "5f2c9a7be1d0" + "0" * 52},
        "times": {"started": "2026-11-21T15:02:11+00:00"},
        "versions": {"napari-bloodcells": "0.1.0"},
        "input": "smears",
    }
    return ReportInput(cells, images, scheme, run, CONFUSION, loader(pixels))
