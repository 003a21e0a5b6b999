"""Row H of the table: ``calibrate`` with 5 to 100 cells of a source that the model has not seen.

The models are those of ``leave_one_out``, from its folder of weights: that of a source, or the first training that
three sources share.  Each is calibrated with cells drawn at random, several times, and tried on the groups (slides,
originals) that gave none of them.

    python -m benchmarks.accuracy.calibrated --data ../shared/data --weights artifacts/unseen -o artifacts/calibrated
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.cells import SOURCES, AllCells, gather
from benchmarks.accuracy.leave_one_out import MATURE, TOGETHER, trunk_of, with_copies
from benchmarks.accuracy.ship import make_bundle
from benchmarks.accuracy.trunk import load_trunk
from napari_bloodcells.core.calibrate import refit
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.training.finetune import LabeledCells

CURVE = (5, 10, 20, 50, 100)
"""Numbers of labeled cells that ``calibrate`` is tried with."""
DRAWS = 3
"""So often the cells are drawn anew."""


def weights_without(folder: Path, source: str) -> tuple[Path, tuple[str, ...]] | None:
    """The weights in ``folder`` that saw nothing of a source, and all sources that they saw nothing of."""
    together = next(sources for sources in TOGETHER if source in sources)
    for left_out in ((source,), together):
        place = trunk_of(folder, left_out)
        if place.exists() or place.with_suffix(".safetensors").exists():
            return place, left_out
    return None


def unseen_cells(cells: AllCells, source: str) -> LabeledCells:
    """All mature white cells of a source."""
    at = np.flatnonzero((cells.sources == source) & (cells.labels < MATURE))
    wide, extent = (values[torch.from_numpy(at)] for values in (cells.wide, cells.extent))
    return LabeledCells(cells.crops(at), wide, extent, cells.labels[at], cells.groups[at])


def calibrated(
    model: Model, cells: LabeledCells, before: NDArray[np.int64], n: int, draws: int = DRAWS
) -> dict[str, Any]:
    """Accuracy before and after calibrating with ``n`` cells, on cells of other groups; mean of the draws.

    ``balanced`` is the mean over the classes instead: cells are drawn evenly over these, and tested as they come.
    ``worst_change`` is that of the draw that gained least.  Not done where fewer than 20 cells would be left to test.
    ``before`` (N,) is what ``model`` says of the cells.
    """
    truth, rows = cells.labels, []
    for draw in range(draws):
        given = draw_cells(truth, cells.groups, n, draw)
        rest = np.flatnonzero(~np.isin(cells.groups, cells.groups[given]))
        if len(rest) < 20 or len(np.unique(truth[given])) < 2:
            continue
        given_alone = np.zeros(len(truth), np.bool_)
        given_alone[given] = True
        fitted = refit(model, cells.take(given_alone))
        after = Model(model.info, fitted.module, None, model.device).predict(cells.crops[torch.from_numpy(rest)])
        said = (before[rest], after.probabilities.argmax(1))
        rows.append([share for right in (s == truth[rest] for s in said) for share in _shares(right, truth[rest])])
    if not rows:
        return {"draws": 0}
    old, balanced_before, new, balanced_after = np.array(rows).T
    return {
        "worst_change": float((new - old).min()),
        "draws": len(rows),
        "before": float(old.mean()),
        "after": float(new.mean()),
        "balanced": [float(balanced_before.mean()), float(balanced_after.mean())],
        "worst": float(new.min()),
    }


def _shares(right: NDArray[np.bool_], truth: NDArray[np.int64]) -> tuple[float, float]:
    """Right answers of all, and in the mean of the classes."""
    return float(right.mean()), float(np.mean([right[truth == c].mean() for c in np.unique(truth)]))


def draw_cells(truth: NDArray[np.int64], groups: NDArray[np.str_], n: int, seed: int) -> NDArray[np.intp]:
    """``n`` cells as somebody would label them: as many of each class, from as few groups (slides) as give them."""
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    rank = {g: i for i, g in enumerate(order.tolist())}
    position = np.array([rank[g] for g in groups.tolist()])
    classes = np.unique(truth)
    queues = [np.flatnonzero(truth == c)[np.argsort(position[truth == c], kind="stable")].tolist() for c in classes]
    drawn: list[int] = []
    while len(drawn) < n and any(queues):
        for queue in queues:
            if queue and len(drawn) < n:
                drawn.append(queue.pop(0))
    return np.array(drawn, np.intp)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``SOURCE.json`` for every source of which weights are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("artifacts/unseen"), help="folder of leave_one_out")
    parser.add_argument("--sources", nargs="*", default=SOURCES, choices=SOURCES)
    parser.add_argument("--curve", nargs="*", type=int, default=CURVE, help="numbers of labeled cells")
    parser.add_argument("--draws", type=int, default=DRAWS, help="how often the cells are drawn anew")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/calibrated"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    cells = gather(given.data, copies=True)
    for source in given.sources:
        found = weights_without(given.weights, source)
        if found is None:
            print(f"{source}: no weights without it in {given.weights}", flush=True)
            continue
        place, left_out = found
        model = make_bundle(load_trunk(place), cells, "wbc5", without=with_copies(left_out)).model()
        unseen = unseen_cells(cells, source)
        before = model.predict(unseen.crops).probabilities.argmax(1)
        file = given.output / f"{source}.json"
        result: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {"curve": {}}
        if result.get("weights") != place.stem:  # points of another training are not of this curve
            result = {"weights": place.stem, "curve": {}}
        for n in given.curve:
            result["curve"][str(n)] = calibrated(model, unseen, before, n, given.draws)
            print(source, n, result["curve"][str(n)], flush=True)
            file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
