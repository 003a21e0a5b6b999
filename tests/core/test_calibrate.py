"""Calibration: a bundle of its own from a few labeled cells, the old one untouched, the gain told honestly."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_bloodcells.core import calibrate as module
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.calibrate import calibrate
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import DataSetError, DataWarning, OutputError
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training import finetune
from napari_bloodcells.core.training.finetune import FineTuneSettings
from napari_bloodcells.core.training.pack import pack_crops

COLORS = {
    "neutrophil": (200, 200, 60),
    "eosinophil": (150, 60, 60),
    "basophil": (60, 60, 60),
    "lymphocyte": (60, 150, 60),
    "monocyte": (90, 90, 220),
}


def draw(path: Path, kind: str, rng: np.random.Generator) -> None:
    """A cell of its kind in colors that no stain has: only calibration can know them."""
    rows, columns = np.mgrid[:100, :100]
    distance = np.hypot(rows - 50 + rng.normal(), columns - 50 + rng.normal())
    image = np.full((100, 100, 3), 235, np.uint8)
    image[distance < 30] = COLORS[kind]
    image[distance < 18 + rng.normal()] = (40, 40, 120)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as show what is done with the network; in full it is fitted where the documentation's commands run."""
    monkeypatch.setattr(finetune, "FineTuneSettings", partial(FineTuneSettings, steps=8, batch_size=16))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in COLORS:
        for i in range(6):
            draw(tmp_path / "mine" / kind / f"{kind}_{i}.png", kind, rng)
    return tmp_path / "mine"


def test_the_new_model_knows_the_labeled_cells_and_the_old_one_is_as_it_was(labeled, tmp_path):
    old = load_model("default", device="cpu")
    before = {k: v.clone() for k, v in old.module.state_dict().items()}
    found = calibrate(old, labeled, tmp_path / "new", device="cpu")
    new = load_model(tmp_path / "new", device="cpu")
    assert found.after["accuracy"].value > max(0.85, found.before["accuracy"].value)
    assert new.info.class_names == old.info.class_names
    assert new.info.name == "wbc5-calibrated"
    assert new.info.training[-1].counts == dict.fromkeys(COLORS, 6)
    assert [sum(row) for row in new.info.confusion or ()] == [6] * len(COLORS)  # of these cells, not of the old ones
    assert not new.info.confusions
    assert {metric.data for metric in new.info.metrics} == {"calibration cells"}
    assert new.info.created > old.info.created
    assert all(torch.equal(before[k], v) for k, v in old.module.state_dict().items())
    assert not torch.equal(new.module.head.weight, old.module.head.weight)
    assert not torch.equal(new.module.body.stem[0].weight, old.module.body.stem[0].weight)
    assert found.changed == "network"
    assert found.missing == ()


def test_where_each_class_is_of_one_slide_the_network_stays_and_that_is_said(labeled, tmp_path):
    cells = load_dataset(labeled)
    of_slides = replace(cells, samples=tuple(replace(s, group=f"slide of {s.label}") for s in cells.samples))
    old = load_model("default", device="cpu")
    found = calibrate(old, of_slides, tmp_path / "new", device="cpu")
    assert found.by_slide
    assert found.changed in ("nothing", "means", "layer")
    new = load_model(tmp_path / "new", device="cpu")
    assert torch.equal(new.module.body.stem[0].weight, old.module.body.stem[0].weight)
    assert not calibrate(old, cells, tmp_path / "other", device="cpu").by_slide


def test_a_network_that_is_too_large_for_a_minute_keeps_its_body(labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "LARGEST_MACS", 1_000_000)
    old = load_model("default", device="cpu")
    found = calibrate(old, labeled, tmp_path / "new", device="cpu")
    new = load_model(tmp_path / "new", device="cpu")
    assert found.changed in ("means", "layer")
    assert torch.equal(new.module.body.stem[0].weight, old.module.body.stem[0].weight)
    assert not torch.equal(new.module.head.weight, old.module.head.weight)


def test_the_classes_lie_where_the_labeled_cells_lie_so_these_are_not_far(labeled, tmp_path):
    """Colors that no stain has are far from all training; the new model has seen them."""
    old = load_model("default", device="cpu")
    calibrate(old, labeled, tmp_path / "new", device="cpu")
    new = load_model(tmp_path / "new", device="cpu")
    dataset = load_dataset(labeled)
    pack = pack_crops(dataset, old.info.crop, old.info.class_scheme, Silent())
    far, near = (torch.from_numpy(model.predict(pack.crops).distance) for model in (old, new))
    assert float(near.mean()) < 0.8 * float(far.mean())
    assert new.info.max_distance is not None
    assert float((near <= new.info.max_distance).float().mean()) > 0.9


def test_classes_without_a_labeled_cell_are_named(labeled, tmp_path):
    shutil.rmtree(labeled / "basophil")
    found = calibrate("default", labeled, tmp_path / "new", device="cpu")
    assert found.missing == ("basophil",)


def test_a_folder_that_holds_something_is_not_overwritten(labeled, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not overwritten"):
        calibrate("default", labeled, tmp_path / "new", device="cpu")
    assert (tmp_path / "new" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("keep", "says"),
    [({"lymphocyte": 2, "eosinophil": 2}, "4 labeled cells.*5 or more"), ({"lymphocyte": 6}, "one class only")],
)
def test_too_few_cells_are_refused_and_nothing_is_written(labeled, tmp_path, keep, says):
    for kind in COLORS:
        for file in sorted((labeled / kind).iterdir())[keep.get(kind, 0) :]:
            file.unlink()
    with pytest.raises(DataSetError, match=says):
        calibrate("default", labeled, tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


def test_a_published_test_part_is_not_calibrated_on_and_that_is_said(
    tiny_model: Path, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_be_fitted", lambda *_: False)  # which cells it is about, not how long
    for part, wanted in (("TRAIN", range(3)), ("Testing", range(3, 6))):
        for kind in COLORS:
            for i in wanted:
                (tmp_path / "parts" / part / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(labeled / kind / f"{kind}_{i}.png", tmp_path / "parts" / part / kind)
    told = r"parts: 15 of 30 cells are of the published test part, or of the same originals, and are left out;"
    with pytest.warns(DataWarning, match=told):
        found = calibrate(tiny_model, tmp_path / "parts", tmp_path / "new", device="cpu")
    assert found.after.n == 15
    shutil.rmtree(tmp_path / "parts" / "TRAIN")  # nothing else is left: then that is what is meant
    assert calibrate(tiny_model, tmp_path / "parts", tmp_path / "newer", device="cpu").after.n == 15
