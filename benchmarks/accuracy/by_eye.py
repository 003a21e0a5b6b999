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

from napari_bloodcells.core.datasets import DataSet, Sample, load_dataset
from napari_bloodcells.core.evaluate import evaluate
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.localize.learned import load_learned

SOURCES = ("ankara", "pig")
TABLE = Path(__file__).parent / "read_by_eye.csv"
_NEAR = 1.0
"""Pixels by which an edge of a box in the table may differ from the source's (it is written in six digits)."""


def cells_by_eye(data: Path, source: str) -> DataSet:
    """The named cells of a source with the names of ``read_by_eye.csv``.

    Fields without boxed red cells (``pig``) get the scale that the shipped localizer measures, as in a count.
    """
    every = load_dataset(data / source)
    boxed = {}
    for sample in every.samples:
        boxed.setdefault(sample.image.relative_to(data / source).as_posix(), []).append(sample)
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    named = [replace(_at(row, boxed[row["image"]]), label=row["label"]) for row in rows]
    return replace(every, samples=tuple(_scaled(named)))


def _at(row: dict[str, str], samples: list[Sample]) -> Sample:
    corners = [float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max")]
    for sample in samples:
        if max(abs(a - b) for a, b in zip(corners, sample.box or (), strict=True)) < _NEAR:
            return sample
    raise LookupError(f"{row['source']}/{row['image']}: no box at {corners}; was the source changed?")


def _scaled(samples: list[Sample]) -> list[Sample]:
    if all(sample.um_per_pixel is not None for sample in samples):
        return samples
    localizer = load_learned()
    return [replace(s, um_per_pixel=localizer.find(read_image(s.image)).um_per_pixel) for s in samples]


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
