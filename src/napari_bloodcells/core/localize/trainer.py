"""The training loop of the localizer: settings, net, running mean, one step after the other.

Tiles are made on the fly and their looks changed; the net learns heat maps and boxes.  Each batch depends on the seed,
the step and the fields alone, so that a training that was interrupted ends as one that was not.
"""

from __future__ import annotations

import copy
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from napari_bloodcells.core.devices import fast_bf16
from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import display_name, read_regular
from napari_bloodcells.core.localize.looks import change_looks
from napari_bloodcells.core.localize.net import MEAN, SPREAD, CellNet, NetSettings
from napari_bloodcells.core.localize.store import LocalizerInfo, read_localizer
from napari_bloodcells.core.localize.targets import Targets, box_loss, draw_targets, heat_loss
from napari_bloodcells.core.localize.tiles import TileMaker, TileSettings

RECIPES = {"default": "find", "find": "find", "find-on": "find-on"}
"""Names of the recipes that come with the package, and their files."""


@dataclass(frozen=True)
class FindSettings:
    """A training of the localizer (``recipes/localize/find.toml``).

    ``start`` is the localizer whose weights it begins with (``default``: the shipped one; empty: none).
    """

    start: str = ""
    steps: int = 9000
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: int = 200
    mean_decay: float = 0.998
    box_weight: float = 1.0
    looks: float = 1.0
    label_rest_at: float = 0.45
    seed: int = 0
    save_every: int = 500
    weights: dict[str, float] = field(default_factory=dict)
    tiles: TileSettings = field(default_factory=TileSettings)
    net: NetSettings = field(default_factory=NetSettings)


class Trainer:
    """The state of a training: net, running mean, optimizer, chance; ``state``/``load_state`` for a checkpoint.

    Raises
    ------
    BundleError, UsageError
        If the localizer to begin with cannot be read, or is another network.
    """

    def __init__(self, settings: FindSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.net = CellNet(settings.net).to(memory_format=torch.channels_last)
        self.mean = copy.deepcopy(self.net).eval()
        decay = [p for p in self.net.parameters() if p.ndim == 4 and p.shape[1] > 1]
        rest = [p for p in self.net.parameters() if not (p.ndim == 4 and p.shape[1] > 1)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
        )
        self.step = 0
        self.last = (math.nan, math.nan)
        self.start = LocalizerInfo()
        """What the localizer says that it began with; without one, what is so before anything is measured."""
        if settings.start:
            self._begin_with(settings.start)

    def rate(self) -> float:
        """Learning rate of the present step: a linear start, then half a cosine down to 1 %."""
        rule = self.settings
        if self.step < rule.warm_up:
            return rule.learning_rate * (self.step + 1) / rule.warm_up
        done = (self.step - rule.warm_up) / max(rule.steps - rule.warm_up, 1)
        return rule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def _begin_with(self, name: str | Path) -> None:
        info, net = read_localizer(name)
        if info.net != self.settings.net:
            raise UsageError(f"{display_name(name)}: its network is not that of the recipe; the weights do not fit.")
        self.net.load_state_dict(net.state_dict())
        self.mean.load_state_dict(net.state_dict())
        self.start = info

    def batch(self, maker: TileMaker) -> tuple[Tensor, Targets]:
        """The batch of the present step; it depends on the seed and the step alone."""
        rule = self.settings
        rng = np.random.default_rng((rule.seed, self.step))
        generator = torch.Generator().manual_seed(rule.seed * 1_000_003 + self.step)
        tiles, drawn = [], []
        for _ in range(rule.batch_size):
            pixels, (boxes, labels), known = maker.tile(rng)
            tiles.append(pixels)
            drawn.append(draw_targets(boxes, labels, known, rule.tiles.side))
        x = change_looks(np.stack(tiles), generator, rule.looks).sub_(MEAN).div_(SPREAD)
        heat, known_, sides, weight = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return x, Targets(heat, known_, sides, weight)

    def learn(self, maker: TileMaker) -> float:
        """One step; its loss."""
        rule = self.settings
        x, targets = self.batch(maker)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(torch.device("cpu"))):
            heat, sides = self.net(x)
        heat_part, box_part = heat_loss(heat, targets), box_loss(sides, targets)
        loss = heat_part + rule.box_weight * box_part
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        decay = min(rule.mean_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        self.step += 1
        self.last = (heat_part.item(), box_part.item())
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "settings": json.loads(json.dumps(asdict(self.settings))),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state``.

        Raises
        ------
        UsageError
            If it belongs to a training with other settings.
        """
        if state["settings"] != json.loads(json.dumps(asdict(self.settings))):
            raise UsageError("The checkpoint belongs to a training with other settings; start anew without --resume.")
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def load_find_settings(name_or_path: str | Path = "find", overrides: Mapping[str, Any] | None = None) -> FindSettings:
    """Settings from a recipe (``find``, ``find-on``, a TOML file), some replaced: ``{"steps": 100, "tiles.side": 96}``.

    Raises
    ------
    UsageError
        If there is no such recipe, or a field of it cannot be used.

    Examples
    --------
    >>> load_find_settings(overrides={"steps": 100}).steps
    100
    """
    path = Path(name_or_path)
    if str(name_or_path) in RECIPES:
        path = Path(str(files("napari_bloodcells") / "recipes" / "localize" / f"{RECIPES[str(name_or_path)]}.toml"))
    try:
        tree = tomllib.loads(read_regular(path, 10**6, UsageError).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{display_name(path)}: no TOML ({error}).") from None
    tree.pop("task", None)
    tree.pop("description", None)
    for key, value in (overrides or {}).items():
        section, _, name = key.partition(".")
        if name:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    try:
        return _validated(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{display_name(path)}: {where}: {first['msg']}.") from None


def _validated(tree: dict[str, Any]) -> FindSettings:
    for prefix, part, kind in (
        ("", tree, FindSettings),
        ("tiles.", tree.get("tiles", {}), TileSettings),
        ("net.", tree.get("net", {}), NetSettings),
    ):
        unknown = sorted(set(part) - {f.name for f in dataclass_fields(kind)})
        if unknown:
            raise UsageError(f"{prefix}{unknown[0]} is no setting of a localizer's training.")
    return TypeAdapter(FindSettings).validate_python(tree)
