"""A shipped model trained again by the one command that a user has, and tried on the cells that neither has seen.

    python -m benchmarks.accuracy.by_recipe --data ../shared/data --recipe wbc5 -o FOLDER

It is given the training parts of the seven sources (``parts.csv``) and nothing of what the shipped weights had besides:
no copies of Kaggle's, no cells named by eye, no second leg.  The recipe takes its own validation cells out of them.  A
training that was stopped goes on.  The table sets its figures beside the shipped model's on the same cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.accuracy.__main__ import known_cells
from benchmarks.accuracy.cells import SOURCES, TEST, TRAIN, VALIDATION, part_of_source
from napari_bloodcells.core.train import train

RECIPES = ("wbc5", "wbc4", "pbc8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, try, and write ``by-recipe-NAME.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recipe", choices=RECIPES, default="wbc5")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/by-recipe"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    place = given.output / given.recipe
    training = [part_of_source(given.data, source, TRAIN) for source in SOURCES]
    trained = train(training, given.recipe, place, resume=place.exists(), device="cpu")
    found = {
        "epochs": len(trained.history),
        "minutes": round(sum(row.seconds for row in trained.history) / 60, 1),
        "known": {
            source: known_cells(given.data, str(place), source, TEST if source in ("pbc", "bccd") else VALIDATION)
            for source in SOURCES
        },
    }
    (given.output / f"by-recipe-{given.recipe}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for source, figures in found["known"].items():
        low, high = (100 * figures["accuracy"][i] for i in (1, 2))
        print(f"{source}: {100 * figures['accuracy'][0]:.1f} % ({low:.1f}-{high:.1f}) of {figures['cells']}")


if __name__ == "__main__":
    main()
