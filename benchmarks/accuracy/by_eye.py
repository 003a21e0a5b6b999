"""White cells of ``ankara`` and ``pig`` whose types were read by eye, for training.

Both sources box white cells without naming them.  Each cell was looked at on a sheet of crops before any classifier had
named it, once and not by an expert; those that leave a doubt (smudged, out of focus, between two types) are not in
``read_by_eye.csv``: 86 of 103 in ``ankara``, 141 of 324 drawn at random in ``pig``.  Nearly all are neutrophils and
lymphocytes, so they say nothing on the rare classes.

Weights that were not trained on them, as those of version 0.1 up to 2026-11-29 (``git log``), can be tried on them:

    python -m benchmarks.accuracy.by_eye --data ../shared/data --model wbc5
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_bloodcells.core.datasets import DataSet, load_dataset
from napari_bloodcells.core.evaluate import evaluate

SOURCES = ("ankara", "pig")
TABLE = Path(__file__).parent / "read_by_eye.csv"


def cells_by_eye(data: Path, source: str) -> DataSet:
    """The named cells of a source with the names of ``read_by_eye.csv``, which lists their boxes in six digits."""
    every = load_dataset(data / source)
    boxed = {
        (sample.image.relative_to(data / source).as_posix(), *(f"{v:g}" for v in sample.box or ())): sample
        for sample in every.samples
    }
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    place = ("image", "x_min", "y_min", "x_max", "y_max")
    named = [replace(boxed[tuple(row[name] for name in place)], label=row["label"]) for row in rows]
    return replace(every, samples=tuple(named))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what a model makes of the cells of each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="wbc5")
    given = parser.parse_args(arguments)
    for source in SOURCES:
        found = evaluate(given.model, cells_by_eye(given.data, source), device="cpu")
        accuracy = found.scores["accuracy"]
        print(
            f"{source}: {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) of {accuracy.n} cells, "
            f"identified {found.identified.n}, of these right {found.identified['accuracy'].value:.1%}"
        )
        for name, row in zip(found.scores.names, found.scores.confusion.tolist(), strict=True):
            called = ", ".join(f"{n} {other}" for n, other in zip(row, found.scores.names, strict=True) if n)
            print(f"  {name}: {called or 'none'}")


if __name__ == "__main__":
    main()
