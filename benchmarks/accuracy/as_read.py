"""How right a network that never saw ``bccd`` is on its training cells, as they are labeled and as the eye reads them.

    python -m benchmarks.accuracy.as_read --data ../shared/data

Which cells were read otherwise, and how, is told in ``readings.py``; those that leave a doubt are left out of the
second figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy.cells import SCHEME, TRAIN, gather
from benchmarks.accuracy.readings import read_otherwise
from benchmarks.accuracy.ship import make_bundle
from benchmarks.accuracy.trunk import load_trunk
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.statistics.metrics import score

UNSEEN = Path(__file__).parent / "weights" / "without-bccd-jtsc-cellavision.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how a network that never saw ``bccd`` does on its training cells, as labeled and as read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=UNSEEN, help="of a training that never saw bccd")
    given = parser.parse_args(arguments)
    cells = gather(given.data, copies=True, read_by_eye=True)
    model = make_bundle(load_trunk(given.weights), cells, "wbc5", without=("bccd", "kaggle")).model()
    at = np.flatnonzero((cells.sources == "bccd") & (cells.part == TRAIN))
    shares = model.predict(cells.crops(at)).probabilities
    names = list(model.info.class_names)
    samples = load_dataset(given.data / "bccd").in_scheme(load_scheme(SCHEME)).labeled().samples
    first = int(np.flatnonzero(cells.sources == "bccd")[0])
    read = cells.labels[at].copy()
    for i, label in read_otherwise(samples).items():
        read[at == first + i] = names.index(label) if label else -1
    for title, truth in (("as labeled", cells.labels[at]), ("as read", read)):
        known = truth >= 0
        scores = score(truth[known], shares[known], names, cells.groups[at][known].tolist())
        value = scores["accuracy"]
        print(f"{title}: {value.value:.1%} ({value.low:.1%} to {value.high:.1%}) of {value.n}\n{scores.confusion}")


if __name__ == "__main__":
    main()
