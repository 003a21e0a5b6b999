"""Each source unseen in turn: rows D and F of the table.

Three sources share a first training that sees none of the three; each is then left out of a second training, which
goes on from there with all the others (``bccd`` and its copies in ``kaggle`` together).  The model that comes out is
tried on the source left out.  The weights of each training are kept, in 16 bits too
(``without-SOURCE.safetensors``); ``--start`` reads either, and ``--start FOLDER --minutes 0`` only tries them again.

    python -m benchmarks.accuracy.leave_one_out --data ../shared/data --first 9 --minutes 4.5 -o artifacts/unseen
    python -m benchmarks.accuracy.leave_one_out --start artifacts/unseen --minutes 6 -o artifacts/longer
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy.cells import SOURCES, TRAIN, AllCells, gather
from benchmarks.accuracy.copies import SOURCE as COPIES
from benchmarks.accuracy.ship import Bundle, make_bundle
from benchmarks.accuracy.trunk import TrunkSettings, load_trunk, save_trunk, train_trunk
from napari_bloodcells.core.adapt import MOST, evenly, move_model
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.statistics.metrics import score

Weights: TypeAlias = dict[str, Tensor]

MATURE = 5
SECOND_RATE = 1e-3
TOGETHER = (("chula", "raabin", "misp"), ("bccd", "jtsc", "cellavision"), ("pbc",))
"""Sources that are all left out of one first training."""


def train_without(
    cells: AllCells, sources: Sequence[str], settings: TrunkSettings, place: Path, start: Weights | None = None
) -> Weights:
    """Weights of a training that saw nothing of ``sources``, from ``place`` where that was done before."""
    trunk = trunk_of(place, sources)
    if trunk.exists() or trunk.with_suffix(".safetensors").exists():
        return load_trunk(trunk)
    # Cells of other sources' test parts stay out too: these models also stand in for the shipped one.
    keep = (cells.part == TRAIN) & ~np.isin(cells.sources, with_copies(sources))
    weights = train_trunk(cells, keep, settings, trunk.with_suffix(".checkpoint"), start)
    save_trunk(weights, trunk)
    return weights


def trunk_of(place: Path, sources: Sequence[str]) -> Path:
    """The weights of a training without ``sources`` in the folder ``place``; in 16 bits beside them, or alone."""
    return place / f"without-{'-'.join(sources)}.pt"


def with_copies(sources: Sequence[str]) -> list[str]:
    """The sources, and the copies of ``bccd`` with it."""
    return [*sources, COPIES] if "bccd" in sources else list(sources)


def run_source(cells: AllCells, source: str, weights: Weights, place: Path) -> None:
    """Try the model of a training without ``source`` on it, and write ``place/SOURCE.json``."""
    bundle = make_bundle(weights, cells, "wbc5", without=with_copies([source]))
    found = try_unseen(bundle, cells, source)
    (place / f"{source}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(source, {k: v for k, v in found.items() if k != "confusion"}, flush=True)


def try_unseen(bundle: Bundle, cells: AllCells, source: str) -> dict[str, Any]:
    """Figures of a model on all mature white cells of a source that it has not seen."""
    at = np.flatnonzero((cells.sources == source) & (cells.labels < MATURE))
    crops, truth, groups = cells.crops(at), cells.labels[at], cells.groups[at]
    model = bundle.model()
    said = model.predict(crops)
    shares = said.probabilities
    scores = score(truth, shares, model.info.class_names, groups.tolist(), f"{source}, unseen")
    confidence = shares.max(1)
    right = shares.argmax(1) == truth
    sure = np.argsort(-confidence, kind="stable")[: round(0.9 * len(at))]
    known = (confidence >= model.info.min_confidence) & (said.distance <= (model.info.max_distance or np.inf))
    names = ("accuracy", "balanced_accuracy", "ece")
    adapted = score(truth, _adapted(model, crops), model.info.class_names, groups.tolist(), f"{source}, adapted")
    return {
        "cells": len(at),
        "groups": len(set(groups.tolist())),
        **{n: [scores[n].value, scores[n].low, scores[n].high] for n in names},
        "confident_90": float(right[sure].mean()),
        "identified": float(known.mean()),
        "identified_accuracy": float(right[known].mean()) if known.any() else None,
        "confusion": scores.confusion.tolist(),
        "adapted": {n: [adapted[n].value, adapted[n].low, adapted[n].high] for n in names},
    }


def _adapted(model: Model, crops: Tensor) -> NDArray[np.float32]:
    """What the model says of crops (N, 3, S, S) after ``adapt`` to the same, whose labels it has not seen: (N, C)."""
    moved = move_model(model, crops[evenly(len(crops), MOST)])
    return Model(model.info, moved.module, moved.space, model.device).predict(crops).probabilities


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and try one model a source; what is there already is not trained again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--first", type=float, default=9.0, help="minutes of a first training without three sources")
    parser.add_argument("--minutes", type=float, default=4.5, help="of the second training, a source")
    parser.add_argument("--sources", nargs="*", default=SOURCES, choices=SOURCES)
    parser.add_argument("--start", type=Path, help="folder of a former run: each source goes on from its weights there")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/unseen"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    cells = gather(given.data, copies=True, read_by_eye=True)
    second = TrunkSettings(minutes=given.minutes, lr=SECOND_RATE, ema=0.998)
    for source in given.sources if given.start else ():
        start = load_trunk(trunk_of(given.start, [source]))
        run_source(cells, source, train_without(cells, [source], second, given.output, start), given.output)
    for together in () if given.start else TOGETHER:
        chosen = [source for source in together if source in given.sources]
        if not chosen:
            continue
        first = train_without(cells, together, TrunkSettings(minutes=given.first, ema=0.998), given.output)
        for source in chosen:
            weights = first
            if len(together) > 1:
                weights = train_without(cells, [source], second, given.output, first)
            run_source(cells, source, weights, given.output)


if __name__ == "__main__":
    main()
