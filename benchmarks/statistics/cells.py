"""Real cells that the shipped model was not trained on, each with its class and with what the model called it.

They are the validation and test cells of ``benchmarks/accuracy/parts.csv``.  Kept as ``calls.csv``, so that slides can
be simulated again without the data and without the model: one row per cell, classes as numbers of the model's scheme,
``called`` empty where the model's own limits made it unidentified.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.cells import SOURCES, TEST, VALIDATION, part_of_source
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.evaluate import evaluate

COLUMNS = ("source", "part", "group", "truth", "called")
PARTS = {"validation": VALIDATION, "test": TEST}
UNIDENTIFIED = -1


@dataclass(frozen=True)
class Calls:
    """N cells: ``source`` and ``part`` (N,) names, ``group`` (N,) numbers, ``truth`` and ``called`` (N,) classes."""

    source: NDArray[np.str_]
    part: NDArray[np.str_]
    group: NDArray[np.int64]
    truth: NDArray[np.int64]
    called: NDArray[np.int64]

    def of(self, source: str, part: str = "") -> Calls:
        """The cells of one source, of one part or of both."""
        return self.take(np.flatnonzero((self.source == source) & ((self.part == part) | (part == ""))))

    def take(self, at: NDArray[np.intp]) -> Calls:
        """The cells at positions ``at``."""
        return Calls(self.source[at], self.part[at], self.group[at], self.truth[at], self.called[at])

    def matrix(self, classes: int) -> NDArray[np.int64]:
        """(C, C + 1) true class by row; the last column counts those left unidentified."""
        table = np.zeros((classes, classes + 1), np.int64)
        np.add.at(table, (self.truth, np.where(self.called < 0, classes, self.called)), 1)
        return table

    def at_most(self, most: int) -> Calls:
        """At most so many of one class of one source, as ``benchmarks.accuracy.ship`` takes for the bundle."""
        seen: dict[tuple[str, int], int] = {}
        kept = []
        for i in np.random.default_rng(0).permutation(len(self.truth)).tolist():
            key = (str(self.source[i]), int(self.truth[i]))
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= most:
                kept.append(i)
        return self.take(np.sort(np.array(kept, np.intp)))


def calls_of(model: str, data: Path) -> Calls:
    """What the model calls every held-out cell of every source."""
    loaded = load_model(model, device="cpu")
    info = loaded.info
    rows = []
    for source in SOURCES:
        for part, number in PARTS.items():
            cells = part_of_source(data, source, number).in_scheme(info.class_scheme).labeled()
            if not len(cells):
                continue
            found = evaluate(loaded, cells, device="cpu")
            known = found.probabilities.max(1) >= info.min_confidence
            if info.max_distance is not None:
                known &= found.distance <= info.max_distance
            called = np.where(known, found.probabilities.argmax(1), UNIDENTIFIED)
            names = {sample.image.name: sample.group for sample in cells.samples}
            groups = np.unique([names[Path(image).name] for image in found.images], return_inverse=True)[1]
            rows += [
                (source, part, *cell)
                for cell in zip(groups.tolist(), found.truth.tolist(), called.tolist(), strict=True)
            ]
            print(f"{source} {part}: {len(known)} cells, {int((called == found.truth).sum())} right", flush=True)
    return _calls(rows)


def _calls(rows: list[tuple[str, str, int, int, int]]) -> Calls:
    source, part, group, truth, called = zip(*rows, strict=True)
    return Calls(np.array(source), np.array(part), np.array(group), np.array(truth), np.array(called))


def write_calls(calls: Calls, path: Path) -> None:
    """Write ``calls.csv``."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in zip(*(getattr(calls, name).tolist() for name in COLUMNS), strict=True):
            table.writerow(["" if value == UNIDENTIFIED else value for value in row])


def read_calls(path: Path) -> Calls:
    """Read ``calls.csv``."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    called = [int(line["called"] or UNIDENTIFIED) for line in lines]
    numbers = ((line["source"], line["part"], int(line["group"]), int(line["truth"])) for line in lines)
    return _calls([(*four, last) for four, last in zip(numbers, called, strict=True)])
