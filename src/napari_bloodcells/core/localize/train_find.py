"""Training of the learned localizer, from labeled fields to a folder that ``load_localizer`` reads.

One loop: tiles are made on the fly, their looks changed, the net learns heat maps and boxes; the weights that are
shipped are a running mean.  In the middle of the training the net itself boxes what the sources left unboxed (red
cells and platelets of sources that drew white cells only), and learns from that in the second half.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_bloodcells.core.localize.looks import change_looks
from napari_bloodcells.core.localize.net import MEAN, SPREAD, CellNet, NetSettings
from napari_bloodcells.core.localize.targets import Targets, box_loss, draw_targets, heat_loss
from napari_bloodcells.core.localize.tiles import TileMaker, TileSettings


@dataclass(frozen=True)
class FindSettings:
    """A training of the localizer (``recipes/find.toml``)."""

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
    weights: dict[str, float] = field(default_factory=dict)
    tiles: TileSettings = field(default_factory=TileSettings)
    net: NetSettings = field(default_factory=NetSettings)


class Trainer:
    """The state of a training: net, running mean, optimizer, chance; ``state``/``load_state`` for a checkpoint."""

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

    def rate(self) -> float:
        """Learning rate of the present step: a linear start, then half a cosine down to 1 %."""
        rule = self.settings
        if self.step < rule.warm_up:
            return rule.learning_rate * (self.step + 1) / rule.warm_up
        done = (self.step - rule.warm_up) / max(rule.steps - rule.warm_up, 1)
        return rule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

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
        x = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255
        x = (change_looks(x, generator, rule.looks) - MEAN) / SPREAD
        heat, known_, sides, weight = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return x.contiguous(memory_format=torch.channels_last), Targets(heat, known_, sides, weight)

    def learn(self, maker: TileMaker) -> float:
        """One step; its loss."""
        rule = self.settings
        x, targets = self.batch(maker)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.backends.mkldnn.is_available()):
            heat, sides = self.net(x)
        heat_part, box_part = heat_loss(heat, targets), box_loss(sides, targets)
        loss = heat_part + rule.box_weight * box_part
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        decay = min(rule.mean_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        self.step += 1
        self.last = (heat_part.item(), box_part.item())
        return loss.item()
