"""``python -m benchmarks.accuracy``: evaluates the shipped weights and writes the table.

Rows A, C and the in-domain part of F are measured here, with the weights in the package.  Rows B, D, G, H and the
unseen part of F need trainings of their own (``leave_one_out``, ``calibrated``, ``bccd_folds``, ``published``, ``vgg``,
``by_recipe``); their results are read from ``results/``, into which ``--take FOLDER`` and ``--take-calibrated FOLDER``
copy new ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.cells import SOURCES, TEST, VALIDATION, part_of_source
from benchmarks.accuracy.fields import kaggle_test
from benchmarks.accuracy.table import BEGIN, END, markdown
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.evaluate import evaluate

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FIXED = 25
"""Cells of each source in the small fixed part, whose figures a test compares with the committed ones."""


def known_cells(data: Path, model_name: str, source: str, part: int) -> dict[str, Any]:
    """Figures of a shipped model on one part of a source that it knows."""
    found = evaluate(model_name, part_of_source(data, source, part), device="cpu")
    right = found.probabilities.argmax(1) == found.truth
    sure = np.argsort(-found.probabilities.max(1), kind="stable")[: round(0.9 * len(right))]
    scores = found.scores
    figures = {n: [scores[n].value, scores[n].low, scores[n].high] for n in ("accuracy", "balanced_accuracy", "ece")}
    return {
        "cells": scores.n,
        "groups": scores.groups,
        **figures,
        "confident_90": float(right[sure].mean()),
        "identified": found.identified.n / scores.n,
        "confusion": scores.confusion.tolist(),
    }


def fixed_part(data: Path) -> dict[str, list[int]]:
    """Right answers and cells of ``wbc5`` on a small part of the validation cells that never changes."""
    model = load_model("wbc5", device="cpu")
    found = {}
    for source in SOURCES:
        cells = part_of_source(data, source, VALIDATION).in_scheme(model.info.class_scheme).labeled()
        few = cells.take(range(min(FIXED, len(cells))))
        said = evaluate(model, few, device="cpu")
        found[source] = [int((said.probabilities.argmax(1) == said.truth).sum()), len(said.truth)]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``results/table.json`` and the tables in ``docs/accuracy.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--take", type=Path, help="folder of new results of leave_one_out and bccd_folds")
    parser.add_argument("--take-calibrated", type=Path, help="folder of new results of calibrated")
    parser.add_argument("--skip-kaggle", action="store_true", help="keep row A as it stands in results/")
    parser.add_argument("--keep", action="store_true", help="keep all that is measured here as it stands in results/")
    parser.add_argument("-o", "--output", type=Path, default=HERE.parents[1] / "docs" / "accuracy.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    (RESULTS / "calibrated").mkdir(parents=True, exist_ok=True)
    if given.take:
        for file in sorted(given.take.glob("*.json")):
            shutil.copyfile(file, RESULTS / file.name)
    if given.take_calibrated:
        for file in sorted(given.take_calibrated.glob("*.json")):
            shutil.copyfile(file, RESULTS / "calibrated" / file.name)
    before = json.loads((RESULTS / "table.json").read_text("utf-8")) if (RESULTS / "table.json").exists() else {}
    weights = {name: load_model(name, device="cpu").info.sha256 for name in ("wbc5", "pbc8", "wbc4")}
    if (given.keep or given.skip_kaggle) and before.get("weights") != weights:
        parser.error("--keep, --skip-kaggle: results/table.json is of other weights; measure these first")
    found = before if given.keep else measured(given.data, weights)
    found |= {
        "unseen": {s: _result(s) for s in SOURCES if _result(s)},
        "calibrated": {s: _result(f"calibrated/{s}") for s in SOURCES if _result(f"calibrated/{s}")},
        "bccd_folds": _result("bccd-folds"),
        "published": _result("published"),
        "vgg": _result("vgg"),
        "by_recipe": _result("by-recipe-wbc5"),
    }
    if given.skip_kaggle:
        found |= {k: before[k] for k in ("kaggle", "kaggle_originals") if k in before}
    elif not given.keep:
        found |= {"kaggle": kaggle_test(given.data, "TEST"), "kaggle_originals": kaggle_test(given.data, "TEST_SIMPLE")}
    (RESULTS / "table.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    page = given.output.read_text("utf-8")
    before_it, _, rest = page.partition(BEGIN)
    after_it = rest.partition(END)[2]
    given.output.write_text(f"{before_it}{BEGIN}\n\n{markdown(found)}\n{END}{after_it}", "utf-8")
    print(markdown(found))


def measured(data: Path, weights: dict[str, str]) -> dict[str, Any]:
    """What the shipped weights do on the known sources, all but Kaggle's pictures."""
    shipped = load_model("wbc5", device="cpu").info
    return {
        "weights": weights,
        "macs": shipped.macs,
        "parameters": shipped.n_parameters,
        "pbc8": known_cells(data, "pbc8", "pbc", TEST),
        "known": {s: known_cells(data, "wbc5", s, TEST if s in ("pbc", "bccd") else VALIDATION) for s in SOURCES},
        "fixed_part": fixed_part(data),
    }


def _result(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


if __name__ == "__main__":
    main()
