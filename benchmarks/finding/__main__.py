"""The table of ``docs/finding.md``: one command measures all rows, learned and classical side by side.

    python -m benchmarks.finding DATA [--left-out benchmarks/finding/weights] [-o docs/finding.md] [-n 60]

Writes the figures of the page and ``benchmarks/finding/results.json``.  Rows of unseen sources need the localizers of
``benchmarks.finding.left_out``, those of SSDlite the weights of ``benchmarks.finding.detector`` (on unseen sources one
that saw none of them, with ``-unseen`` in its name); without these its rows are those of the former run, but for its
speed, which is of another hour or machine.  Intervals are 95 %, bootstrap over fields.  ``-n`` bounds the fields of one
row (0: all).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.finding.detector import Detector
from benchmarks.finding.false_alarms import drawn_alarms, sickle_alarms
from benchmarks.finding.left_out import KEPT, LEFT_OUT
from benchmarks.finding.measure import Candidate, Measured, classical, evenly, learned, measure
from benchmarks.finding.page import Row, write_page
from napari_bloodcells.core.localize.collect import TruthField, collect
from napari_bloodcells.core.localize.score import (
    FieldScore,
    average_precision,
    bootstrap,
    precision,
    recall,
    score_field,
)

ZOOMS = (0.4, 0.63, 1.6, 2.5, 4.0)
RESULTS = Path(__file__).parent / "results.json"


def figure(
    test: str, method: str, name: str, fields: Sequence[FieldScore], of: Callable[[Sequence[FieldScore]], float]
) -> Row:
    """A row with its interval."""
    low, high = bootstrap(fields, of, 400)
    return Row(test, method, name, of(fields), low, high, len(fields), sum(f.wanted for f in fields))


def rows_of(test: str, method: str, result: Measured, cell: str = "WBC") -> list[Row]:
    """Recall and precision at the localizer's threshold; AP50 and AP75 over all boxes."""
    sure, every = result.sure[cell], result.every[cell]
    return [
        figure(test, method, f"{cell} recall", sure, recall),
        figure(test, method, f"{cell} precision", sure, precision),
        figure(test, method, f"{cell} AP50", every, average_precision),
        figure(test, method, f"{cell} AP75", every, lambda fields: average_precision(fields, 1)),
    ]


def resized(test: str, result: Measured) -> list[Row]:
    """Recall and precision on fields that were shrunk or enlarged."""
    sure = result.sure["WBC"]
    return [
        figure(test, "learned", "WBC recall", sure, recall),
        figure(test, "learned", "WBC precision", sure, precision),
    ]


def count_error(test: str, result: Measured, cell: str) -> list[Row]:
    """How far the number found lies from the true one: mean of the fields, as a share of the mean number."""
    pairs = np.array(result.counts[cell], float)
    off, rng = np.abs(pairs[:, 0] - pairs[:, 1]), np.random.default_rng(0)
    picks = rng.integers(len(pairs), size=(1000, len(pairs)))
    values = off[picks].mean(1) / pairs[picks, 1].mean(1)
    low, high = np.percentile(values, [2.5, 97.5])
    name = f"{cell} count, mean error"
    return [Row(test, "learned", name, off.mean() / pairs[:, 1].mean(), low, high, len(pairs), int(pairs[:, 1].sum()))]


def speed(candidate: Candidate, items: Sequence[TruthField]) -> Row:
    """Processor milliseconds for a 640x480 field, best of three rounds on one thread."""
    rounds = [measure(candidate, items).seconds for _ in range(3)]
    ms = 1000 * np.min(rounds, axis=0)
    low, high = np.percentile(ms, [2.5, 97.5])
    return Row("640x480 field, one core", candidate.name, "ms", float(np.median(ms)), low, high, len(ms), 0)


def surest_threshold(candidate: Candidate, items: Sequence[TruthField]) -> Candidate:
    """The candidate with the highest threshold that finds 99 % of the white cells of validation fields, if any does,
    else with the one of the best F1."""
    every = measure(replace(candidate, thresholds=(0.0,) * 3), items).pairs
    steps = np.round(np.arange(0.05, 0.96, 0.05), 2)
    scores = [[score_field(b.take(b.scores >= t), true, ignored) for b, true, ignored in every] for t in steps]
    whole = [i for i, fields in enumerate(scores) if recall(fields) >= 0.99]
    f1 = [2 * precision(f) * recall(f) / max(precision(f) + recall(f), 1e-9) for f in scores]
    best = float(steps[max(whole) if whole else int(np.argmax(f1))])
    return replace(candidate, thresholds=(best, best, best))


def all_rows(data: Path, left_out: Path, detector: Path, n: int) -> list[Row]:
    """Every row of the table, printed as it comes."""
    rows: list[Row] = []

    def add(more: Sequence[Row]) -> None:
        rows.extend(more)
        for row in more:
            print(row.test, row.method, row.measure, row, row.n, flush=True)

    shipped, old = learned(), classical()
    bccd = [item for item in collect([data / "bccd"]) if item.part == "test"]
    inside = measure(shipped, bccd)
    add(rows_of("bccd test", "learned", inside))
    add(rows_of("bccd test", "classical", measure(old, bccd)))
    candidates = [shipped, old]
    validation = [item for item in collect([data / "bccd"]) if item.part == "val"]

    def ssdlite(weights: Path) -> Candidate:
        return surest_threshold(Candidate("SSDlite", Detector(weights), (0.0,) * 3), validation)

    if detector.exists():
        candidates.append(ssdlite(detector))
        add(rows_of("bccd test", "SSDlite", measure(candidates[-1], bccd)))
    else:
        print(f"no detector in {detector}; its rows are those of the former run", flush=True)
        former = [Row(**row) for row in json.loads(RESULTS.read_text("utf-8"))] if RESULTS.exists() else []
        add([row for row in former if row.method == "SSDlite" and row.measure != "ms"])
    without = detector.with_stem(f"{detector.stem}-unseen")
    strange = ssdlite(without) if without.exists() else None
    add([figure("bccd test", "learned", f"{c} AP50", inside.every[c], average_precision) for c in ("RBC", "Platelets")])
    add(count_error("bccd test", inside, "RBC") + count_error("bccd test", inside, "Platelets"))
    for source in LEFT_OUT:
        items = evenly(collect([data / source]), n) if n else collect([data / source])
        add(rows_of(f"{source} (unseen)", "classical", measure(old, items)))
        if strange is not None:
            add(rows_of(f"{source} (unseen)", "SSDlite", measure(strange, items)))
        if not (left_out / LEFT_OUT[source] / "localizer.json").exists():
            print(f"{source}: no localizer without it in {left_out}; row not measured", flush=True)
            continue
        unseen = learned(left_out / LEFT_OUT[source])
        result = measure(unseen, items)
        add(rows_of(f"{source} (unseen)", "learned", result))
        if result.every["RBC"]:
            add([figure(f"{source} (unseen)", "learned", "RBC AP50", result.every["RBC"], average_precision)])
        some = evenly(items, 40)
        for zoom in (1.0, *ZOOMS):
            add(resized(f"{source} (unseen) x {zoom:g}", measure(unseen, some, zoom)))
    for zoom in ZOOMS:
        add(resized(f"bccd test x {zoom:g}", measure(shipped, bccd, zoom)))
    ankara = [item for item in collect([data / "ankara"]) if item.part == "val"]
    kept = measure(shipped, ankara).every["RBC"]
    add([figure("ankara validation", "learned", "RBC AP50", kept, average_precision)])
    for candidate in candidates:
        for test, alarms in (*sickle_alarms(candidate, data / "sickle"), drawn_alarms(candidate)):
            low, high = np.percentile(np.random.default_rng(0).choice(alarms, (1000, len(alarms))).mean(1), [2.5, 97.5])
            mean = float(np.mean(alarms))
            add([Row(test, candidate.name, "false alarms a field", mean, low, high, len(alarms), 0)])
    add([speed(candidate, bccd) for candidate in candidates])
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--left-out", type=Path, default=KEPT)
    parser.add_argument("--detector", type=Path, default=Path("scratch/finding/ssdlite.safetensors"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/finding.md"))
    parser.add_argument("-n", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = all_rows(arguments.data, arguments.left_out, arguments.detector, arguments.n)
    write_page(arguments.output, rows)
    text = json.dumps([asdict(row) for row in rows], indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
