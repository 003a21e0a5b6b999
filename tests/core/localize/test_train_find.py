"""Training from folders: it runs, it learns, and an interruption changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_bloodcells.core.errors import Cancelled, DataSetError, DataWarning, OutputError, UsageError
from napari_bloodcells.core.localize import load_localizer
from napari_bloodcells.core.localize.calibrate_find import fit_platt
from napari_bloodcells.core.localize.collect import collect, read_fields, read_remarks
from napari_bloodcells.core.localize.evidence import Evidence
from napari_bloodcells.core.localize.net import CellNet, NetSettings
from napari_bloodcells.core.localize.store import Calibration, LocalizerInfo, read_localizer, save_localizer
from napari_bloodcells.core.localize.tiles import TileMaker, TileSettings
from napari_bloodcells.core.localize.train_find import FindSettings, load_find_settings, train_localizer
from napari_bloodcells.core.localize.trainer import Trainer
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.synthetic import SmearSettings, write_folder

TINY = FindSettings(
    steps=6,
    batch_size=2,
    warm_up=1,
    save_every=2,
    tiles=TileSettings(side=64),
    net=NetSettings((16, 16, 16, 16), (1, 1, 1), 16),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "drawn"
    write_folder(place, 8, seed=1, settings=SmearSettings(width=240, height=180, um_per_pixel=0.25))
    return place


class StopAfter(Silent):
    """Asks to stop after some training steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        if task == "training" and values:
            self.steps -= n

    def cancelled(self) -> bool:
        return self.steps <= 0


def test_a_training_gives_a_localizer_that_loads(folder: Path, tmp_path: Path) -> None:
    place = train_localizer(folder, tmp_path / "mine", TINY)
    localizer = load_localizer(place)
    assert localizer.find(np.full((60, 60, 3), 200, np.uint8)).wbc is not None
    assert sorted(p.name for p in place.iterdir()) == ["localizer.json", "localizer.safetensors"]
    with pytest.raises(OutputError, match="holds a localizer already"):
        train_localizer(folder, place, TINY)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_training_ends_as_one_that_was_not(folder: Path, tmp_path: Path, stop: int) -> None:
    whole = train_localizer(folder, tmp_path / "whole", TINY)
    with pytest.raises(Cancelled):
        train_localizer(folder, tmp_path / "parts", TINY, progress=StopAfter(stop))
    parts = train_localizer(folder, tmp_path / "parts", TINY, resume=True)
    assert (whole / "localizer.safetensors").read_bytes() == (parts / "localizer.safetensors").read_bytes()


@pytest.mark.parametrize("rest_at", [0.0, 0.05, 1.0])
def test_a_training_without_a_second_half_can_be_resumed(folder: Path, tmp_path: Path, rest_at: float) -> None:
    settings = replace(TINY, label_rest_at=rest_at)
    with pytest.raises(Cancelled):
        train_localizer(folder, tmp_path / "parts", settings, progress=StopAfter(3))
    assert (train_localizer(folder, tmp_path / "parts", settings, resume=True) / "localizer.safetensors").exists()


class StopAt(Silent):
    """Asks to stop as soon as a task begins."""

    def __init__(self, task: str) -> None:
        self.task, self.seen, self.steps = task, False, 0

    def start(self, task: str, total: int | None) -> None:
        self.seen = self.seen or task == self.task

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.steps += n if task == "training" and values else 0

    def cancelled(self) -> bool:
        return self.seen


@pytest.mark.parametrize("task", ["measuring ranges", "calibrating"])
def test_what_follows_the_last_step_can_be_stopped_and_gone_on_with(folder: Path, tmp_path: Path, task: str) -> None:
    settings = replace(TINY, save_every=4)
    whole = train_localizer(folder, tmp_path / "whole", settings)
    with pytest.raises(Cancelled):
        train_localizer(folder, tmp_path / "parts", settings, progress=StopAt(task))
    again = StopAt("no task")
    parts = train_localizer(folder, tmp_path / "parts", settings, resume=True, progress=again)
    assert again.steps == 0  # nothing is trained again
    assert (whole / "localizer.safetensors").read_bytes() == (parts / "localizer.safetensors").read_bytes()
    assert read_localizer(whole)[0].eight_bit == read_localizer(parts)[0].eight_bit
    assert sorted(p.name for p in parts.iterdir()) == ["localizer.json", "localizer.safetensors"]


def test_what_cannot_be_resumed_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without --resume"):
        train_localizer(folder, tmp_path / "none", TINY, resume=True)
    with pytest.raises(Cancelled):
        train_localizer(folder, tmp_path / "half", TINY, progress=StopAfter(2))
    with pytest.raises(UsageError, match="other settings"):
        train_localizer(folder, tmp_path / "half", replace(TINY, seed=5), resume=True)
    with pytest.raises(OutputError, match="--resume"):
        train_localizer(folder, tmp_path / "half", TINY)


def test_the_loss_falls(folder: Path) -> None:
    torch.manual_seed(0)
    settings = replace(TINY, steps=40, batch_size=4, looks=0.0)  # 160 tiles are few for the changes of looks
    trainer = Trainer(settings)
    maker = TileMaker(read_fields([i for i in collect([folder]) if i.part == "train"], Silent()), {}, settings.tiles)
    losses = [trainer.learn(maker) for _ in range(40)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_a_folder_without_white_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError):
        collect([tmp_path])


def test_settings_come_from_the_recipe_and_can_be_replaced() -> None:
    settings = load_find_settings("find", {"steps": "12", "tiles.side": 96})
    assert (settings.steps, settings.tiles.side, settings.tiles.p_paste) == (12, 96, 0.3)


@pytest.mark.parametrize(
    ("overrides", "words"), [({"stps": 3}, "stps"), ({"tiles.size": 3}, "tiles.size"), ({"steps": "many"}, "steps")]
)
def test_a_setting_that_is_none_is_named(overrides: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_find_settings("find", overrides)


def test_a_calibrated_score_is_how_often_it_is_right() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 5000)
    true = rng.random(5000) < 1 / (1 + np.exp(-(3 * logits + 1)))
    rule = fit_platt(logits, true, np.ones(5000))
    assert rule.slope == pytest.approx(3, rel=0.1)
    assert rule.offset == pytest.approx(1, rel=0.2)


def test_what_the_field_says_counts_as_it_is_meant_to() -> None:
    rng = np.random.default_rng(0)
    n = 8000
    logits, dark = rng.normal(0, 2, n), rng.uniform(-1, 1.5, n)
    red = np.where(rng.random(n) < 0.5, rng.uniform(0, 4, n), 0.0)

    def fit(of_red: float, of_dark: float) -> Calibration:
        true = rng.random(n) < 1 / (1 + np.exp(-(2 * logits + 1 - of_red * red + of_dark * dark)))
        return fit_platt(logits, true, np.ones(n), Evidence(red, dark))

    rule = fit(0.3, 1.0)
    assert (rule.slope, rule.offset, rule.red, rule.dark) == pytest.approx((2, 1, 0.3, 1), rel=0.2)
    strong = fit(1.5, 1.0)
    assert strong.red == pytest.approx(0.2 * strong.slope)  # no more than a fifth of the net's own score
    wrong = fit(-0.5, -1.0)  # a red cell may not speak for a white one, nor paleness
    assert (wrong.red, wrong.dark) == (0, 0)


@pytest.mark.data
def test_no_photograph_of_the_published_test_part_is_trained_on(shared_data: Path) -> None:
    items = collect([shared_data / "bccd"])
    published = set((shared_data / "bccd" / "ImageSets" / "Main" / "test.txt").read_text().split())
    assert {i.truth.image.stem for i in items if i.part == "test"} >= published
    groups = {part: {i.truth.group for i in items if i.part == part} for part in ("train", "val", "test")}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["val"]


@pytest.mark.data
def test_white_cells_that_a_source_left_unboxed_are_remarked(shared_data: Path) -> None:
    remarks = read_remarks("bccd")
    assert {int(stem[-5:]) for stem in remarks} <= {103, 133, 135, 171, 178, 228, 242, 327}
    items = {i.truth.image.stem: i for i in collect([shared_data / "bccd"])}
    for stem, boxes in remarks.items():
        labels = items[stem].truth.boxes.labels
        assert sum(label in ("WBC", "ignore") for label in labels) >= len(boxes)


def test_a_training_can_go_on_from_the_shipped_weights() -> None:
    trainer = Trainer(load_find_settings("find-on"))
    info, shipped = read_localizer("default")
    for begun in (trainer.net, trainer.mean):
        assert all(torch.equal(begun.state_dict()[name], t) for name, t in shipped.state_dict().items())
    assert trainer.start == info


def test_weights_of_another_network_are_no_start() -> None:
    with pytest.raises(UsageError, match="its network is not that of the recipe"):
        Trainer(replace(TINY, start="default"))


def test_a_training_that_goes_on_keeps_the_calibration_that_it_cannot_measure(folder: Path, tmp_path: Path) -> None:
    net = CellNet(TINY.net).eval()
    rules = (Calibration(slope=1.5), Calibration(slope=2.0, offset=-0.5), Calibration(slope=3.0, offset=0.5))
    begun: dict[str, Any] = {"channels": TINY.net.channels, "blocks": TINY.net.blocks, "head": TINY.net.head}
    info = LocalizerInfo(calibration=rules, thresholds=(0.35, 0.45, 0.25), **begun)
    start = save_localizer(tmp_path / "start", net, info)
    with pytest.warns(DataWarning) as told:
        place = train_localizer(folder, tmp_path / "on", replace(TINY, steps=2, start=str(start)))
    mine = read_localizer(place)[0]
    assert mine.calibration == rules
    assert mine.thresholds == info.thresholds
    assert mine.training["began_with"] == read_localizer(start)[0].sha256
    texts = [str(warning.message) for warning in told]
    assert [sum(text.startswith(f"{name}: ") for text in texts) for name in mine.classes] == [1, 1, 1]
