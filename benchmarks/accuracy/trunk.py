"""Trains the network behind the shipped classifiers: all classes of ``pbc8``, all sources at once.

``wbc5`` and ``wbc4`` are the same network with fewer outputs, so one long training makes three models, and the cells
of ``pbc`` that are no mature white cells teach their features too.  The length is given in minutes of computing: on two
shared cores a number of steps would tell little of when it ends.  Stopped and called again, it goes on
from its checkpoint.

    python -m benchmarks.accuracy.trunk --data ../shared/data --minutes 50 -o trunk.pt

``--home`` makes most of the cells those of some sources, for a model that is to be best on these; with ``--stain``,
``--ground``, ``--camera`` and ``--zoom`` they are changed less than for a model that is to serve everywhere.
``--own-look`` shows cells whose label the eye does not share (``readings.py``) in their own stain and camera alone:
what a source calls its cells is learned of that source, and not of all microscopes.
``--arch vgg16`` trains the convolutions that ``vgg.py`` then freezes or fine-tunes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy import by_eye
from benchmarks.accuracy.cells import SCHEME, SEEN, SOURCES, TRAIN, AllCells, gather
from benchmarks.accuracy.copies import SOURCE as COPIES
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.devices import fast_bf16
from napari_bloodcells.core.inputs import to_input
from napari_bloodcells.core.models import build
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.training.augment import AugmentSettings, augment

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_KEEP_EVERY = 2000
_VGG_HEAD = 0.02
_CHANGES = ("zoom", "stain", "ground", "camera")
"""Strengths that a training gives to ``AugmentSettings``."""


@dataclass(frozen=True)
class TrunkSettings:
    """What a training does: see the fields of ``core.recipe.Recipe`` of the same names."""

    minutes: float = 50.0
    arch: str = "stainnet"
    seen: int = SEEN
    """Pixels of the crop that are shown, 4 a micrometer."""
    side: int = SEEN
    """Pixels to which these are brought."""
    batch_size: int = 32
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    ema: float = 0.9995
    label_smoothing: float = 0.05
    clip: float = 2.0
    warmup: float = 0.05
    zoom: float = 0.3
    stain: float = AugmentSettings.stain
    ground: float = AugmentSettings.ground
    camera: float = AugmentSettings.camera
    home: tuple[str, ...] = ()
    """Sources that make ``home_share`` of the cells drawn, for a model that is to be best on these."""
    home_share: float = 0.7
    own_look: bool = False
    """Cells that the eye reads otherwise are turned and zoomed, and not changed in stain, ground and camera."""
    seed: int = 0


def draw_weights(
    labels: NDArray[np.int64], sources: NDArray[np.str_], home: Sequence[str] = (), share_at_home: float = 0.0
) -> Tensor:
    """Chance of each cell to be drawn: sources by the root of their size (at most 1,500; ``pbc`` 45 %; the copies of
    ``bccd`` as much as itself), the classes of a source by its cells ** 0.35, and all classes brought together (** 0.3)
    at the end; then the sources of ``home``, if any, to ``share_at_home`` of all: (N,) float64."""
    weights = np.zeros(len(labels))
    names, sizes = np.unique(sources, return_counts=True)
    share = {str(n): math.sqrt(min(int(s), 1500)) for n, s in zip(names, sizes, strict=True)}
    if COPIES in share:
        share[COPIES] = share.get("bccd", share[COPIES])
    if "pbc" in share and len(share) > 1:
        share["pbc"] = 0.45 / 0.55 * sum(v for k, v in share.items() if k != "pbc")
    for name, weight in share.items():
        here = sources == name
        count = np.bincount(labels[here], minlength=8).astype(float)
        by_class = np.where(count > 0, np.minimum(count, 400) ** 0.35, 0)
        by_class[5:] *= 0.6
        weights[here] = (weight * by_class / by_class.sum() / np.maximum(count, 1))[labels[here]]
    total = np.bincount(labels, weights, minlength=8)
    weights *= (np.maximum(total, 1e-12) ** 0.3 / np.maximum(total, 1e-12))[labels]
    at_home = np.isin(sources, home)
    if home and not at_home.all():
        weights[at_home] *= share_at_home / weights[at_home].sum()
        weights[~at_home] *= (1 - share_at_home) / weights[~at_home].sum()
    return torch.from_numpy(weights / weights.sum())


def train_trunk(
    cells: AllCells,
    keep: NDArray[np.bool_],
    settings: TrunkSettings,
    place: Path,
    start_from: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train on the cells of ``keep`` (N,) and return the averaged weights; ``place`` holds the checkpoint."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    at = np.flatnonzero(keep)
    weights = draw_weights(cells.labels[at], cells.sources[at], settings.home, settings.home_share)
    options = {"mode": "finetune", "dropout": 0.5} if settings.arch == "vgg16" else {}
    module = build(settings.arch, len(load_scheme(SCHEME).names), **options).to(memory_format=torch.channels_last)
    if start_from is not None:
        module.load_state_dict(dict(start_from))
    state = _State(module, settings, generator)
    state.restore(place)
    changes = AugmentSettings(size=settings.seen, **{name: getattr(settings, name) for name in _CHANGES})
    plain = AugmentSettings(size=settings.seen, zoom=settings.zoom, stain=0, ground=0, camera=0)
    start = time.process_time() - state.seconds
    while (spent := time.process_time() - start) < 60 * settings.minutes:
        state.set_rate(spent / (60 * settings.minutes))
        drawn = at[torch.multinomial(weights, settings.batch_size, replacement=True, generator=generator).numpy()]
        index = torch.from_numpy(drawn)
        images = augment(cells.wide[index], cells.extent[index], changes, generator)
        own = torch.from_numpy(np.flatnonzero(cells.doubtful[drawn])) if settings.own_look else index[:0]
        if len(own):
            images[own] = augment(cells.wide[index[own]], cells.extent[index[own]], plain, generator)
        state.step(to_input(images, (settings.side, settings.side), MEAN, STD), torch.from_numpy(cells.labels[drawn]))
        if state.steps % 200 == 0:
            rate = state.steps * settings.batch_size / (time.process_time() - start)
            print(f"{spent / 60:.1f} min, step {state.steps}, loss {state.loss:.3f}, {rate:.0f} cells/s", flush=True)
        if state.steps % _KEEP_EVERY == 0:
            state.seconds = time.process_time() - start
            state.keep(place)
    state.seconds = time.process_time() - start
    state.keep(place)
    return {name: t.detach().clone() for name, t in state.average.state_dict().items()}


class _State:
    """Network, averaged network, optimizer and counters of one training."""

    def __init__(self, module: Classifier, settings: TrunkSettings, generator: torch.Generator) -> None:
        self.module, self.settings, self.generator = module, settings, generator
        self.average = deepcopy(module)
        kernels = [p for n, p in module.named_parameters() if p.ndim > 1 and n != "head.weight"]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [
            {"params": kernels, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
            {"params": [module.head.weight], "weight_decay": settings.weight_decay},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr)
        self.steps, self.seconds, self.loss = 0, 0.0, 0.0

    def set_rate(self, done: float) -> None:
        warm = min(1.0, done / self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done))) + 1e-6
        if self.settings.arch == "vgg16":  # 25,088 inputs move its answers that much more in a step of Adam
            self.optimizer.param_groups[-1]["lr"] *= _VGG_HEAD

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.module.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(torch.device("cpu"))):
            logits = self.module(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.settings.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()
        self.steps += 1
        self.loss += (float(loss.detach()) - self.loss) / min(self.steps, 200)
        decay = min(self.settings.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.module.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

    def keep(self, place: Path) -> None:
        state: dict[str, Any] = {
            "net": self.module.state_dict(),
            "ema": self.average.state_dict(),
            "opt": self.optimizer.state_dict(),
            "g": self.generator.get_state(),
            "n": self.steps,
            "spent": self.seconds,
        }
        new = place.with_suffix(".new")
        torch.save(state, new)
        new.replace(place)

    def restore(self, place: Path) -> None:
        if not place.exists():
            return
        state = torch.load(place, weights_only=True)
        self.module.load_state_dict(state["net"])
        self.average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["opt"])
        self.generator.set_state(state["g"])
        self.steps, self.seconds = state["n"], state["spent"]


def save_trunk(weights: Mapping[str, Tensor], place: Path) -> None:
    """Write weights to ``place`` (``.pt``, in full), and beside it as safetensors in 16 bits, half the size: so they
    are kept with a result, which can then be had again without its training."""
    torch.save(dict(weights), place)
    save_file({name: t.half().contiguous() for name, t in weights.items()}, place.with_suffix(".safetensors"))


def load_trunk(place: Path) -> dict[str, Tensor]:
    """Weights in float32 from ``place``, or from the safetensors file of its name beside it where it is not there.

    The weights of a shipped ``pbc8`` are a trunk as well; what measures distances in it is left out.
    """
    if not place.exists() and place.with_suffix(".safetensors").exists():
        place = place.with_suffix(".safetensors")
    if place.suffix == ".safetensors":
        return {name: t.float() for name, t in load_file(place).items() if not name.startswith("distance.")}
    weights: dict[str, Tensor] = torch.load(place, weights_only=True)
    return weights


def averaged(trunks: Sequence[Mapping[str, Tensor]], shares: Sequence[float] | None) -> dict[str, Tensor]:
    """The weighted mean of the weights of several trunks."""
    given = shares or [1.0] * len(trunks)
    total = sum(given)
    return {
        name: torch.stack([trunk[name] * (share / total) for trunk, share in zip(trunks, given, strict=True)]).sum(0)
        for name in trunks[0]
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on everything but validation and test parts, or leave sources out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=TrunkSettings.minutes)
    parser.add_argument("--arch", choices=("stainnet", "vgg16"), default=TrunkSettings.arch)
    parser.add_argument("--seen", type=int, default=SEEN, help="pixels of the crop that are shown, 4 a micrometer")
    parser.add_argument("--side", type=int, default=SEEN, help="pixels to which these are brought")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=(*SOURCES, *by_eye.SOURCES), help="sources to leave out"
    )
    parser.add_argument("--start", type=Path, nargs="+", help="weights of a former training, or several, to go on from")
    parser.add_argument("--shares", type=float, nargs="+", help="of each of --start in their mean; alike by default")
    parser.add_argument("--home", nargs="*", default=[], help="sources that the model is to be best on")
    for name in ("home_share", *_CHANGES):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=getattr(TrunkSettings, name))
    parser.add_argument("--own-look", action="store_true", help="of cells that the eye reads otherwise")
    parser.add_argument("--lr", type=float, default=TrunkSettings.lr)
    parser.add_argument("--ema", type=float, help="of the averaged weights; else 0.9995, in short trainings 0.998")
    parser.add_argument("--seed", type=int, default=TrunkSettings.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("trunk.pt"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cells = gather(given.data, copies="bccd" not in given.without, read_by_eye=True)
    keep = (cells.part == TRAIN) & ~np.isin(cells.sources, given.without)
    ema = given.ema or (0.9995 if given.minutes > 25 else 0.998)
    same = ("minutes", "arch", "seen", "side", "lr", "seed", *_CHANGES, "home_share", "own_look")
    settings = TrunkSettings(ema=ema, home=tuple(given.home), **{name: getattr(given, name) for name in same})
    start = None
    if given.start is not None:
        start = averaged([load_trunk(place) for place in given.start], given.shares)
    weights = train_trunk(cells, keep, settings, given.output.with_suffix(".checkpoint"), start)
    save_trunk(weights, given.output)


if __name__ == "__main__":
    main()
