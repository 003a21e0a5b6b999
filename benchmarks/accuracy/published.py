"""Row G: each published network trained by its own recipe on its own data, and tested on the part it has not seen.

    python -m benchmarks.accuracy.published --data ../shared/data --networks cnn3 cnn4 --minutes 10

``cnn6`` and ``cnn4bn`` learn from Kaggle's TRAIN without copies of the originals in its TEST, on which they are tested;
``cnn4`` and ``cnn5bn`` from the training part of ``pbc``; ``cnn3``, whose study names no source that is at hand, from
boxed cells of ``bccd`` and their copies in Kaggle's TRAIN.  The shipped model's figures on the same test cells stand
beside it in the table.  ``--minutes`` ends a training before its recipe's epochs do; how many it had is written down.
VGG16 is not among them: it takes a GPU (``bloodcells-batch train --recipe vgg16``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.cells import TEST, TRAIN, part_of_source
from benchmarks.accuracy.copies import training_copies
from napari_bloodcells.core.datasets import DataSet, load_dataset
from napari_bloodcells.core.evaluate import evaluate
from napari_bloodcells.core.train import train


@dataclass(frozen=True)
class Study:
    """The data that a network was published on, and the accuracies that its study gives."""

    source: str
    published: str


STUDIES = {
    "cnn6": Study("kaggle", "80 %"),
    "cnn4bn": Study("kaggle", "75.7 % (validation 86.5 %)"),
    "cnn4": Study("pbc", "85.4 %"),
    "cnn5bn": Study("pbc", "90.5 %"),
    "cnn3": Study("bccd", "96.1 %"),
}


def parts(data: Path, source: str) -> tuple[list[DataSet], DataSet]:
    """Training and test cells, no original in both."""
    if source != "kaggle":
        training, test = part_of_source(data, source, TRAIN), part_of_source(data, source, TEST)
        return [training] + ([training_copies(data, test.groups)] if source == "bccd" else []), test
    every = load_dataset(data / source).labeled()
    tested = {s.group for s in every.samples if s.split != "TRAIN"}
    return [every.where(lambda s: s.split == "TRAIN" and s.group not in tested)], every.part("TEST").labeled()


def run(network: str, data: Path, minutes: float, folder: Path) -> dict[str, Any]:
    """Train and test one network; a training that was stopped goes on."""
    study = STUDIES[network]
    training, test = parts(data, study.source)
    place = folder / network
    result = train(training, network, place, resume=place.exists(), device="cpu", overrides={"max_minutes": minutes})
    scores = evaluate(result.output, test, device="cpu").scores
    return {
        "source": study.source,
        "published": study.published,
        "epochs": len(result.history),
        "minutes": round(sum(row.seconds for row in result.history) / 60, 1),
        "cells": scores.n,
        "groups": scores.groups,
        "accuracy": [scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high],
        "validation": max(row.val_accuracy for row in result.history),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the networks that are not there yet, and write ``published.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--networks", nargs="+", default=tuple(STUDIES), choices=tuple(STUDIES))
    parser.add_argument("--minutes", type=float, default=0.0, help="at most so long a network; 0: as its recipe says")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/published"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    place = given.output / "published.json"
    found: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {}
    for network in given.networks:
        if network not in found:
            found[network] = run(network, given.data, given.minutes, given.output)
            place.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(network, found[network], flush=True)


if __name__ == "__main__":
    main()
