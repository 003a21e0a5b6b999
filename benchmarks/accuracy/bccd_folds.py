"""Row B: five-fold cross-validation on BCCD, grouped by original cell.

Starts from the model that never saw BCCD (``leave_one_out``), and trains on with four folds, which make half of the
cells drawn, and the small sources; stain and camera are changed less than where a model is to serve everywhere.  The
fifth fold is tested once.

    python -m benchmarks.accuracy.bccd_folds --data ../shared/data --minutes 6 -o artifacts/unseen
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.cells import TEST, TRAIN, gather
from benchmarks.accuracy.ship import make_bundle
from benchmarks.accuracy.trunk import TrunkSettings, load_trunk, train_trunk
from napari_bloodcells.core.statistics.metrics import score

FOLDS = 5
AT_HOME = TrunkSettings(lr=6e-4, ema=0.998, zoom=0.2, stain=0.2, ground=0.3, camera=0.7, home=("bccd",), home_share=0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test the five folds, and write ``bccd-folds.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=6.0, help="of training a fold")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/unseen"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells = gather(given.data)
    start = load_trunk(given.output / "without-bccd.pt")
    bccd = cells.sources == "bccd"
    names = np.unique(cells.groups[bccd])
    fold_of = dict(
        zip(np.random.default_rng(0).permutation(names).tolist(), np.arange(len(names)) % FOLDS, strict=True)
    )
    fold = np.array([fold_of.get(g, -1) for g in cells.groups.tolist()])
    others = (cells.part == TRAIN) & ~bccd & (cells.sources != "pbc")
    at, shares = [], []
    for held in range(FOLDS):
        settings = replace(AT_HOME, minutes=given.minutes, seed=held)
        keep = others | (bccd & (fold != held))
        weights = train_trunk(cells, keep, settings, given.output / f"bccd-fold-{held}.checkpoint", start)
        part = np.where(bccd, np.where(fold == held, TEST, TRAIN), cells.part)
        # The source's own names are asked for, so they are learned as well where the eye would give another.
        parted = replace(cells, part=part, doubtful=np.zeros_like(cells.doubtful))
        bundle = make_bundle(weights, parted, "wbc5")
        tested = np.flatnonzero(bccd & (fold == held))
        at.append(tested)
        shares.append(bundle.model().predict(cells.crops(tested)).probabilities)
    tested, said = np.concatenate(at), np.concatenate(shares)
    scores = score(cells.labels[tested], said, bundle.info.class_names, cells.groups[tested].tolist(), "bccd, 5 folds")
    names_ = ("accuracy", "balanced_accuracy", "ece")
    found = {
        "cells": scores.n,
        "groups": scores.groups,
        **{n: [scores[n].value, scores[n].low, scores[n].high] for n in names_},
        "confusion": scores.confusion.tolist(),
    }
    (given.output / "bccd-folds.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(found)


if __name__ == "__main__":
    main()
