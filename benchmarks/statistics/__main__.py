"""Coverage of the differential's intervals over simulated slides, as a table.

A slide has true proportions, drawn around a normal adult's; 200 cells are drawn from them, each a real test cell of
its class with what the model really called it.  Then the true proportions are asked for: by the exact binomial
interval of the machine's count (which knows nothing of the model's errors), and by the corrected one.  Held is the
share of slides whose interval contains the truth.

    python -m benchmarks.statistics wbc5 --data DATASET [--slides 1000] [-o FOLDER]
    python -m benchmarks.statistics --confusion VALIDATION.json --test TEST.json

With ``--data`` the model classifies the data set once; half of its originals (groups) stand for validation, the other
half are the test cells that slides are made of.  ``as shipped`` uses the confusion matrix of the bundle instead of
that half.  With matrices (JSON: {"classes": [...], "confusion": [[...]]}, true class by row) no model is needed: a
test cell of a class is then its row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.correction import Sampling, correct
from napari_bloodcells.core.intervals import clopper_pearson

ADULT = {"neutrophil": 0.60, "lymphocyte": 0.28, "monocyte": 0.07, "eosinophil": 0.04, "basophil": 0.01}
SPREAD = 25.0
"""Weight of the Dirichlet distribution around the adult's proportions: neutrophils from 40 to 78 % in 95 of 100."""
SAMPLING = Sampling(chains=60, burn=60, keep=60)


@dataclass(frozen=True)
class Coverage:
    """One line of the table: share of slides held and mean width (percent points), naive and corrected."""

    case: str
    name: str
    slides: int
    naive: float
    corrected: float
    naive_width: float
    corrected_width: float
    naive_bias: float
    corrected_bias: float


@dataclass(frozen=True)
class Simulation:
    """How slides are made: so many, of so many cells each, from one seed."""

    slides: int = 1000
    cells: int = 200
    seed: int = 0


def simulate(
    case: str, classes: list[str], validation: NDArray[np.int64] | None, test: NDArray[np.int64], how: Simulation
) -> list[Coverage]:
    """Coverage for one pair of matrices; ``validation`` None draws a new one from the test rows for every slide."""
    rng = np.random.default_rng(how.seed)
    rows = test / test.sum(1, keepdims=True)
    weights = np.array([ADULT.get(name, 0.01) for name in classes])
    truth = rng.dirichlet(SPREAD * weights / weights.sum(), how.slides)
    naive, better = np.zeros((2, how.slides, len(classes), 3))
    for i, share in enumerate(truth):
        cells = rng.multinomial(how.cells, share)
        called = sum(rng.multinomial(n, row) for n, row in zip(cells, rows, strict=True))
        matrix = validation
        if matrix is None:
            matrix = np.stack([rng.multinomial(int(n), row) for n, row in zip(test.sum(1), rows, strict=True)])
        low, high = clopper_pearson(called, how.cells)
        naive[i] = np.stack([called / how.cells, low, high], 1)
        fit = correct(called, matrix, sampling=Sampling(**{**asdict(SAMPLING), "seed": i}))
        better[i] = np.stack([fit.mean, fit.low, fit.high], 1)
    return [
        *(_line(case, name, truth[:, k], naive[:, k], better[:, k]) for k, name in enumerate(classes)),
        _line(case, "all classes", truth.ravel(), naive.reshape(-1, 3), better.reshape(-1, 3)),
    ]


def _line(
    case: str, name: str, truth: NDArray[np.float64], naive: NDArray[np.float64], better: NDArray[np.float64]
) -> Coverage:
    held = [float(((t[:, 1] <= truth) & (truth <= t[:, 2])).mean()) for t in (naive, better)]
    width = [float(100 * (t[:, 2] - t[:, 1]).mean()) for t in (naive, better)]
    bias = [float(100 * (t[:, 0] - truth).mean()) for t in (naive, better)]
    return Coverage(case, name, len(truth), *held, *width, *bias)


def matrices_of(
    model: str, data: str
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None]:
    """Classes, the confusion matrices of two halves of a data set (split by group), and the bundle's own if any."""
    from napari_bloodcells.core.datasets import load_dataset
    from napari_bloodcells.core.evaluate import evaluate

    done = evaluate(model, data)
    names = list(done.info.class_names)
    dataset = load_dataset(Path(data))
    group = {str(sample.image): sample.group for sample in dataset.samples}
    by_name = {Path(str(sample.image)).name: sample.group for sample in dataset.samples}
    groups = np.array([group.get(name, by_name.get(Path(name).name, name)) for name in done.images])
    order = np.unique(groups)
    np.random.default_rng(0).shuffle(order)
    first = np.isin(groups, order[: len(order) // 2])
    called = done.probabilities.argmax(1)
    halves = []
    for mask in (first, ~first):
        table = np.zeros((len(names), len(names)), np.int64)
        np.add.at(table, (done.truth[mask], called[mask]), 1)
        halves.append(table)
    keep = np.array([halves[0][i].sum() > 0 and halves[1][i].sum() > 0 for i in range(len(names))])
    own = None if done.info.confusion is None else np.asarray(done.info.confusion, np.int64)[np.ix_(keep, keep)]
    kept = [name for name, k in zip(names, keep, strict=True) if k]
    return kept, halves[0][np.ix_(keep, keep)], halves[1][np.ix_(keep, keep)], own


def markdown(lines: list[Coverage]) -> str:
    """The table as it stands in the docs."""
    text = [
        "| case | class | slides | naive holds | corrected holds | naive width | corrected width | naive bias | "
        "corrected bias |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in lines:
        held = f"{100 * c.naive:.1f} % | {100 * c.corrected:.1f} %"
        width = f"{c.naive_width:.1f} | {c.corrected_width:.1f}"
        slides = c.slides if c.name != "all classes" else f"{c.slides} intervals"
        text.append(
            f"| {c.case} | {c.name} | {slides} | {held} | {width} | {c.naive_bias:+.2f} | {c.corrected_bias:+.2f} |"
        )
    return "\n".join(text) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("model", nargs="?", help="name or folder of a model bundle")
    parser.add_argument("--data", help="folder of a labeled data set: the real test cells")
    parser.add_argument("--confusion", type=Path, help="JSON of the validation matrix, instead of a model")
    parser.add_argument("--test", type=Path, help="JSON of the test matrix")
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, help="folder for coverage.json and coverage.md")
    args = parser.parse_args(arguments)
    how = Simulation(args.slides, args.cells)
    own = None
    if args.confusion and args.test:
        read = [json.loads(path.read_text("utf-8")) for path in (args.confusion, args.test)]
        if read[0]["classes"] != read[1]["classes"]:
            parser.error("the two matrices name different classes")
        classes = list(read[0]["classes"])
        validation, test = (np.asarray(part["confusion"], np.int64) for part in read)
    elif args.model and args.data:
        classes, validation, test, own = matrices_of(args.model, args.data)
    else:
        parser.error("give MODEL and --data, or --confusion and --test")
    start = time.perf_counter()
    lines = simulate("validation redrawn", classes, None, test, how)
    lines += simulate("other half", classes, validation, test, how)
    if own is not None:
        lines += simulate("as shipped", classes, own, test, how)
    print(markdown(lines), end="")
    print(f"{how.slides} slides of {how.cells} cells, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        matrices = {
            "validation": validation.tolist(),
            "test": test.tolist(),
            "own": None if own is None else own.tolist(),
        }
        result = {
            "model": args.model,
            "data": args.data,
            "classes": classes,
            **matrices,
            "lines": [asdict(line) for line in lines],
        }
        (args.output / "coverage.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (args.output / "coverage.md").write_text(markdown(lines), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
