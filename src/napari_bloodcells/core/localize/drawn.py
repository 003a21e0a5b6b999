"""Drawn smears as one more source of training: what real fields seldom show, with a truth that is exact.

Touching and border cells, platelet clumps, stain dirt, writing, the eyepiece's border, strange magnifications, fields
without a white cell.  They are seldom drawn (see the recipe): the looks of cells are learned from photographs.
"""

from __future__ import annotations

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.localize.fields import labeled_field
from napari_bloodcells.core.localize.net import CLASSES
from napari_bloodcells.core.localize.tiles import LabeledField
from napari_bloodcells.core.progress import Progress, check_cancelled
from napari_bloodcells.synthetic import Ground, Optics, SmearSettings, Stain, draw_smear

SOURCE = "synthetic"
FIELDS = 96
_WORDS = ("", "", "100x", "10 um", "A-17", "L. 3")


def drawn_fields(seed: int, progress: Progress, n: int = FIELDS) -> list[LabeledField]:
    """``n`` drawn fields of all kinds; the same for the same ``seed``."""
    progress.start("drawing", n)
    fields = []
    for number in range(n):
        check_cancelled(progress)
        rng = np.random.default_rng((seed, number))
        smear = draw_smear(10_000 + seed * n + number, _settings(rng))
        boxes = Boxes(
            np.concatenate([smear.boxes.xyxy, smear.rbc.xyxy, smear.platelets.xyxy]),
            ("WBC",) * len(smear.boxes) + ("RBC",) * len(smear.rbc) + ("Platelets",) * len(smear.platelets),
        )
        red_cell = 7.5 / smear.um_per_pixel
        fields.append(labeled_field(smear.image, boxes, frozenset(CLASSES), SOURCE, red_cell))
        progress.advance("drawing")
    return fields


def _settings(rng: np.random.Generator) -> SmearSettings:
    return SmearSettings(
        width=480,
        height=360,
        um_per_pixel=float(np.exp(rng.uniform(np.log(0.14), np.log(0.3)))),
        cells=int(rng.integers(0, 5)),
        rbc_coverage=float(rng.choice([0.0, 0.2, 0.4, 0.6], p=[0.08, 0.22, 0.4, 0.3])),
        platelets=int(rng.integers(0, 14)),
        touching=float(rng.choice([0.0, 0.7])),
        border=float(rng.choice([0.0, 0.5])),
        stain=Stain(strength=float(rng.uniform(0.6, 1.4)), shift=0.15),
        optics=Optics(
            uneven_light=float(rng.uniform(0, 0.3)),
            blur_um=float(rng.uniform(0.05, 0.4)),
            eyepiece=float(rng.uniform(0.7, 1.1)) if rng.random() < 0.15 else None,
        ),
        ground=Ground(
            dirt=int(rng.integers(0, 9)),
            platelet_clumps=int(rng.choice([0, 0, 1, 3])),
            writing=str(rng.choice(_WORDS)),
        ),
    )
