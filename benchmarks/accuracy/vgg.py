"""VGG16 in rows G and C: convolutions that this project trained without ``pbc``, frozen with a new head, or fine-tuned.

    python -m benchmarks.accuracy.trunk --arch vgg16 --without pbc ... -o convolutions.pt   # see docs/accuracy.md
    python -m benchmarks.accuracy.vgg frozen --weights convolutions.safetensors -o FOLDER
    python -m benchmarks.accuracy.trunk --arch vgg16 --home pbc --start convolutions.pt ... -o tuned.pt
    python -m benchmarks.accuracy.vgg tuned --weights tuned.pt -o FOLDER

``--weights imagenet`` gives the row of the studies to whoever has torchvision's weights.  ``frozen`` is the recipe
``vgg16`` without its flips, so that each photograph goes through the convolutions once (40 minutes of a core; 10 with
``--side 112``, where the cells are as large as in the training of the convolutions) and not once an epoch.  ``tuned``
tries a whole network that ``trunk.py`` trained, on crops as the shipped classifiers see them.
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
from torch import Tensor
from torch.nn import functional as F

from benchmarks.accuracy.cells import SCHEME, TEST, TRAIN, VALIDATION, gather, part_of_source
from benchmarks.accuracy.trunk import MEAN, STD, load_trunk
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.devices import fast_bf16
from napari_bloodcells.core.inputs import to_input
from napari_bloodcells.core.models import build
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.statistics.metrics import score
from napari_bloodcells.core.training.pack import pack_crops
from napari_bloodcells.core.training.recipe import Recipe, load_recipe

SOURCE = "pbc"
CPU = torch.device("cpu")


@torch.inference_mode()
def outputs(module: Any, crops: Tensor, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What ``module`` gives for (N, 3, S, S) uint8, brought to ``side`` pixels: (N, F) in 16 bits."""
    module = module.eval().to(memory_format=torch.channels_last)
    found = []
    for at in range(0, len(crops), 32):
        images = to_input(crops[at : at + 32].float() / 255, (side, side), tuple(mean), tuple(std))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(CPU)):
            found.append(module(images).to(torch.bfloat16))
        if at % 1600 == 0:
            print(f"{at} of {len(crops)}", flush=True)
    return torch.cat(found)


def fit_head(net: Classifier, recipe: Recipe, features: dict[int, Tensor], labels: dict[int, Tensor]) -> dict[str, Any]:
    """Train the head of ``net`` by the recipe, keeping the epoch that is best on the validation part."""
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    count = torch.bincount(labels[TRAIN])
    weights = 1.0 / count[labels[TRAIN]].double()
    optimizer = torch.optim.Adam(net.head.parameters(), lr=recipe.optimizer.lr)
    best, kept, since, epochs = -1.0, {n: t.clone() for n, t in net.head.state_dict().items()}, 0, 0
    while epochs < recipe.epochs and since < recipe.patience:
        drawn = torch.multinomial(weights, len(weights), replacement=True, generator=generator)
        for at in drawn.split(recipe.batch_size):
            seen = F.dropout(features[TRAIN][at].float(), float(recipe.options["dropout"]))
            loss = F.cross_entropy(net.head(seen), labels[TRAIN][at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = float((logits(net, features[VALIDATION]).argmax(1) == labels[VALIDATION]).float().mean())
        epochs += 1
        since = 0 if right > best else since + 1
        if right > best:
            best, kept = right, {n: t.clone() for n, t in net.head.state_dict().items()}
        print(f"epoch {epochs}: validation {100 * right:.1f} %", flush=True)
    net.head.load_state_dict(kept)
    return {"epochs": epochs, "validation": best}


@torch.inference_mode()
def logits(net: Classifier, features: Tensor) -> Tensor:
    """(N, C) of the head."""
    return torch.cat([net.head(part.float()) for part in features.split(512)])


def frozen(data: Path, weights: str, folder: Path, side: int) -> dict[str, Any]:
    """The transfer studies' way: whole images, frozen convolutions, a new head."""
    recipe, scheme = load_recipe("vgg16"), load_scheme(SCHEME)
    net = build("vgg16", len(scheme.names), mode="frozen", weights=weights)
    own = weights != "imagenet"
    features: dict[int, Tensor] = {}
    labels: dict[int, Tensor] = {}
    for part in (TRAIN, VALIDATION, TEST):
        cells = part_of_source(data, SOURCE, part)
        pack = pack_crops(cells, recipe.crop, scheme)
        labels[part] = pack.labels
        place = folder / f"features-{part}.pt"
        if place.exists():
            features[part] = torch.load(place, weights_only=True)
            continue
        mean, std = (MEAN, STD) if own else (recipe.input.mean, recipe.input.std)
        features[part] = outputs(net.body, pack.crops, side, mean, std)
        torch.save(features[part], place)
    told = fit_head(net, recipe, features, labels)
    groups = [s.group for s in part_of_source(data, SOURCE, TEST).samples]
    return told | _scores(logits(net, features[TEST]), labels[TEST].numpy(), groups)


def tuned(data: Path, weights: Path, seen: int, side: int) -> dict[str, Any]:
    """A whole network of ``trunk.py`` on the crops of the test part."""
    cells = gather(data)
    net = build("vgg16", len(load_scheme(SCHEME).names), mode="finetune")
    net.load_state_dict(load_trunk(weights))
    found = {}
    for part in (VALIDATION, TEST):
        at = np.flatnonzero((cells.sources == SOURCE) & (cells.part == part))
        edge = (cells.wide.shape[-1] - seen) // 2
        crops = cells.wide[torch.from_numpy(at)][:, :, edge : edge + seen, edge : edge + seen]
        found[part] = _scores(outputs(net, crops, side, MEAN, STD).float(), cells.labels[at], cells.groups[at].tolist())
    return found[TEST] | {"validation": found[VALIDATION]["accuracy"][0]}


def _scores(said: Tensor, truth: NDArray[np.int64], groups: Sequence[str]) -> dict[str, Any]:
    scores = score(truth, said.softmax(1).numpy(), load_scheme(SCHEME).names, list(groups), "test")
    accuracy = scores["accuracy"]
    return {"cells": scores.n, "groups": scores.groups, "accuracy": [accuracy.value, accuracy.low, accuracy.high]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one of both and put it into ``vgg.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frozen", "tuned"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", required=True, help="of trunk.py, or imagenet")
    parser.add_argument("--seen", type=int, default=64, help="tuned: pixels of the crop, as in its training")
    parser.add_argument("--side", type=int, help="pixels that go in; frozen: 224, tuned: 64")
    parser.add_argument("--told", default="", help="of the weights, for the table")
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/vgg"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    place = given.output / "vgg.json"
    found: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {}
    if given.what == "frozen":
        result = frozen(given.data, given.weights, given.output, given.side or 224)
    else:
        result = tuned(given.data, Path(given.weights), given.seen, given.side or 64)
    found[given.what] = {"weights": given.told or Path(given.weights).name} | result
    place.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(given.what, found[given.what])


if __name__ == "__main__":
    main()
