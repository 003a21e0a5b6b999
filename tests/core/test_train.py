"""Training: it learns, resumes to the same bits, writes what it says, and leaves alone what is not its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.calibrate import _gather
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import (
    BloodcellsError,
    BundleError,
    Cancelled,
    DataSetError,
    DataWarning,
    OutputError,
)
from napari_bloodcells.core.evaluate import evaluate
from napari_bloodcells.core.images import image_size
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train
from napari_bloodcells.core.training.recipe import Recipe, SamplerSettings
from napari_bloodcells.core.training.sampler import cell_weights, epoch_order
from napari_bloodcells.core.training.traindata import gather
from napari_bloodcells.core.voc import write_voc

COLORS = {"neutrophil": (90, 40, 150), "eosinophil": (200, 60, 60), "lymphocyte": (40, 40, 200)}
QUICK: dict[str, Any] = {
    "scheme": "wbc4",
    "crop.size": 16,
    "crop.scale": "image",
    "crop.white": False,
    "epochs": 3,
    "batch_size": 8,
    "optimizer.lr": 3e-3,
    "val_fraction": 0.25,
    "precision": "float32",
}


pytestmark = pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of twelve images: disks whose color tells the class."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for i in range(12):
            image = rng.normal(235, 4, (40, 40, 3))
            center = 20 + rng.uniform(-3, 3, 2)
            image[np.hypot(y - center[0], x - center[1]) < 10] = np.array(color) + rng.normal(0, 12, 3)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{name}-{i}.png")
    return folder


class StopAfter(Silent):
    """Asks to stop when that many steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Count steps of the training, not of the packing."""
        self.left -= n if "loss" in values else 0

    def cancelled(self) -> bool:
        """Whether the steps are done."""
        return self.left <= 0


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_network_learns_three_colors(cells: Path, tmp_path: Path) -> None:
    result = train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "augment": "none", "epochs": 8})
    assert result.scores["balanced_accuracy"].value == 1.0
    model = load_model(tmp_path / "m", "cpu")
    for name in COLORS:
        image = np.asarray(Image.open(cells / name / f"{name}-0.png").resize((16, 16))).transpose(2, 0, 1)[None].copy()
        guess = model.predict(image).probabilities[0].argmax()
        assert model.info.class_names[guess] == name


def test_training_writes_a_bundle_and_its_report(cells: Path, tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="no cell of monocyte"):
        result = train(cells, "cnn3", tmp_path / "m", overrides=QUICK)
    there = {p.name for p in (tmp_path / "m").iterdir()}
    assert there == {
        *("model.safetensors", "model.json", "history.csv", "history.png", "confusion_matrix.png", "report.json"),
        *("checkpoint.safetensors", "training.json"),
    }
    rows = history(tmp_path / "m")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"train_loss", "val_loss", "val_balanced_accuracy", "learning_rate", "best"} <= set(rows[0])
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    counts = np.array(report["confusion"]["counts"])
    assert counts.sum() == report["cells"] == 9
    assert report["overall"]["accuracy"]["value"] == pytest.approx(np.trace(counts) / 9, abs=1e-6)
    info = load_model(tmp_path / "m", "cpu").info
    assert info == result.info
    assert sum(sum(s.counts.values()) for s in info.training) == 27
    assert info.confusion == tuple(map(tuple, counts.tolist()))
    assert info.recipe["optimizer.lr"] == 3e-3
    assert info.seed == 0
    for name in ("history.png", "confusion_matrix.png"):
        assert Image.open(tmp_path / "m" / name).size[0] > 300


RESUMED: list[tuple[str, dict[str, Any]]] = [
    ("plain", {"augment": "affine"}),
    ("averaged, cosine", {"ema": 0.8, "schedule.name": "cosine", "optimizer.name": "sgd", "augment": "flip"}),
    ("batch norm, L1", {"arch": "cnn5bn", "crop.size": 128, "optimizer.l1": 1e-5, "batch_size": 14, "epochs": 2}),
    ("stain", {"augment": "stain", "crop.scale": "um", "crop.size": 32, "sampler.name": "source_class"}),
]


@pytest.mark.parametrize("changes", [r[1] for r in RESUMED], ids=[r[0] for r in RESUMED])
def test_a_stopped_training_resumes_to_the_same_bits(cells: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = {**QUICK, **changes}
    whole = train(cells, "cnn3", tmp_path / "whole", overrides=settings)
    for steps in (1, 3):  # within the first epoch, and in a later one
        with pytest.raises(Cancelled, match="--resume"):
            train(cells, "cnn3", tmp_path / "parts", resume=True, overrides=settings, progress=StopAfter(steps))
    parts = train(cells, "cnn3", tmp_path / "parts", resume=True, overrides=settings)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert whole.info.sha256 == parts.info.sha256 != ""
    assert whole.info.metrics == parts.info.metrics
    assert whole.info.temperature == parts.info.temperature
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in history(tmp_path / n)] for n in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


def test_the_seed_decides(cells: Path, tmp_path: Path) -> None:
    found = [
        train(cells, "cnn3", tmp_path / f"{i}", overrides={**QUICK, "epochs": 1, "seed": seed}).info.sha256
        for i, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2]


def test_the_callers_random_numbers_are_left_alone(cells: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "epochs": 1})
    assert torch.equal(torch.rand(3), expected)


def test_resuming_with_fewer_epochs_than_done_ends_with_what_is_there(cells: Path, tmp_path: Path) -> None:
    first = train(cells, "cnn3", tmp_path / "m", overrides=QUICK)
    again = train(cells, None, tmp_path / "m", resume=True, overrides={"epochs": 1})
    assert again.info.sha256 == first.info.sha256
    assert len(history(tmp_path / "m")) == 3


def test_resuming_with_more_epochs_goes_on(cells: Path, tmp_path: Path) -> None:
    train(cells, "cnn3", tmp_path / "short", overrides={**QUICK, "epochs": 1})
    more = train(cells, None, tmp_path / "short", resume=True, overrides={"epochs": 3})
    whole = train(cells, "cnn3", tmp_path / "whole", overrides=QUICK)
    assert more.info.sha256 == whole.info.sha256


def test_resume_begins_where_there_is_nothing_yet(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert train(cells, "cnn3", tmp_path / "m", resume=True, overrides={**QUICK, "epochs": 1}).history


def test_nothing_is_overwritten(cells: Path, tmp_path: Path) -> None:
    train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "epochs": 1})
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    with pytest.raises(OutputError, match="holds a training already; go on with it by --resume"):
        train(cells, "cnn3", tmp_path / "m", overrides=QUICK)
    with pytest.raises(OutputError, match=r"began with optimizer.lr = 0.003, not 0.1"):
        train(cells, "cnn3", tmp_path / "m", resume=True, overrides={**QUICK, "optimizer.lr": 0.1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for resume in (True, False):
        with pytest.raises(OutputError, match=r"holds something else \(thesis.txt\)"):
            train(cells, "cnn3", tmp_path / "other", resume=resume, overrides=QUICK)
    with pytest.raises(OutputError, match="is a file"):
        train(cells, "cnn3", tmp_path / "other" / "thesis.txt", overrides=QUICK)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}


def test_other_data_do_not_resume(cells: Path, tmp_path: Path) -> None:
    train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "epochs": 1})
    fewer = tmp_path / "fewer"
    for name in ("neutrophil", "eosinophil"):
        (fewer / name).mkdir(parents=True)
        for file in sorted((cells / name).iterdir()):
            (fewer / name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(OutputError, match="other images or labels"):
        train(fewer, None, tmp_path / "m", resume=True)


def test_a_damaged_checkpoint_is_named(cells: Path, tmp_path: Path) -> None:
    train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "epochs": 1})
    (tmp_path / "m" / "checkpoint.safetensors").write_bytes(b"\x80\x04 not a checkpoint")
    with pytest.raises(BundleError, match=r"checkpoint.safetensors: no checkpoint"):
        train(cells, None, tmp_path / "m", resume=True)


def test_a_training_that_falls_apart_says_so(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(BloodcellsError, match="lower learning rate"):
        train(cells, "cnn3", tmp_path / "m", overrides={**QUICK, "optimizer.name": "sgd", "optimizer.lr": 1e3})


def test_early_stopping_and_the_plateau_work(cells: Path, tmp_path: Path) -> None:
    settings = {
        **QUICK,
        "epochs": 30,
        "patience": 3,
        "optimizer.lr": 1e-9,
        "schedule.patience": 0,
        "schedule.min_lr": 0,
    }
    result = train(cells, "cnn3", tmp_path / "m", overrides=settings)
    best = [row.epoch for row in result.history if row.best][-1]
    assert len(result.history) == best + 3 < 30


def test_one_class_is_not_enough(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "neutrophil").mkdir(parents=True)
    for file in (cells / "neutrophil").iterdir():
        (tmp_path / "one" / "neutrophil" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataSetError, match="only one class"):
        train(tmp_path / "one", "cnn3", tmp_path / "m", overrides=QUICK)


@pytest.mark.parametrize("test", ["TEST", "Testing", "Test Simple"])
def test_a_published_test_part_is_not_trained_on(cells: Path, tmp_path: Path, test: str) -> None:
    for part, wanted in (("TRAIN", range(8)), (test, range(8, 12))):
        for name in COLORS:
            folder = tmp_path / "parts" / part / name
            folder.mkdir(parents=True)
            for i in wanted:
                (folder / f"{name}-{i}.png").write_bytes((cells / name / f"{name}-{i}.png").read_bytes())
    recipe = Recipe("r", "cnn3").with_overrides(QUICK)
    for use_test, n in ((False, 24), (True, 36)):
        training, validation, _ = gather(tmp_path / "parts", recipe.with_overrides({"use_test": use_test}), Silent())
        assert len(training) + len(validation) == n
        assert not set(training.groups) & set(validation.groups)


def test_class_folders_may_be_named_after_classes_of_ones_own_scheme_alone(cells: Path, tmp_path: Path) -> None:
    own = {"neutrophil": "hairy cell", "eosinophil": "smudge", "lymphocyte": "sezary"}
    for name, called in own.items():
        (tmp_path / "own" / called).mkdir(parents=True)
        for file in (cells / name).iterdir():
            (tmp_path / "own" / called / file.name).write_bytes(file.read_bytes())
    scheme = tmp_path / "mine.json"
    scheme.write_text(json.dumps({"name": "mine", "classes": list(own.values())}))
    result = train(tmp_path / "own", "cnn3", tmp_path / "m", overrides={**QUICK, "scheme": str(scheme)})
    assert result.info.learned == (True, True, True)
    assert evaluate(tmp_path / "m", tmp_path / "own").scores.n == 36
    assert len(_gather(load_model(tmp_path / "m"), tmp_path / "own", Silent())[0]) == 36


def test_three_patients_are_enough_and_one_is_not(cells: Path, tmp_path: Path) -> None:
    names = [f"{name}-{i}" for name in COLORS for i in range(12)]
    for name in COLORS:
        (tmp_path / "mine" / name).mkdir(parents=True)
        for file in (cells / name).iterdir():
            (tmp_path / "mine" / name / file.name).write_bytes(file.read_bytes())
    recipe = Recipe("r", "cnn3").with_overrides({**QUICK, "val_fraction": 0.15})
    for patients, sizes in ((3, (24, 12)), (1, None)):
        rows = [f"{name},patient {i % patients}\n" for i, name in enumerate(names)]
        (tmp_path / "mine" / "groups.csv").write_text("image,group\n" + "".join(rows))
        if sizes:
            assert tuple(map(len, gather(tmp_path / "mine", recipe, Silent())[:2])) == sizes
        else:
            with pytest.raises(DataSetError, match=r"all cells are of one group \(groups\.csv\)"):
                gather(tmp_path / "mine", recipe, Silent())


def test_the_test_list_of_a_voc_folder_is_not_trained_on(cells: Path, tmp_path: Path) -> None:
    for name in COLORS:
        for i in range(12):
            image = tmp_path / "voc" / f"{name}-{i}.png"
            image.parent.mkdir(exist_ok=True)
            image.write_bytes((cells / name / image.name).read_bytes())
            height, width = image_size(image)
            boxes = Boxes(np.array([[0, 0, width, height]]), (name,))
            write_voc(image.with_suffix(".xml"), boxes, image=image, width=width, height=height)
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("".join(f"{name}-{i}\n" for name in COLORS for i in range(8, 12)))
    training, validation, _ = gather(tmp_path / "voc", Recipe("r", "cnn3").with_overrides(QUICK), Silent())
    assert len(training) + len(validation) == 24
    assert {f"{name}-{i}" for name in COLORS for i in range(8)} == {
        group.partition(":")[2] for group in (*training.groups, *validation.groups)
    }
    assert len(load_dataset(tmp_path / "voc").part("TEST")) == 12


LABELS = torch.tensor([0] * 90 + [1] * 10)
SOURCES = torch.tensor(([0] * 80 + [1] * 10) + [0] * 10)
SHARES = [
    ("natural", 0.0, [0.8, 0.1, 0.1]),
    ("class", 0.0, [0.5 * 8 / 9, 0.5 / 9, 0.5]),
    ("class", 1.0, [0.8, 0.1, 0.1]),
    ("source_class", 0.0, [0.25, 0.25, 0.5]),
    ("source_class", 1.0, [0.8, 0.1, 0.1]),
]


@pytest.mark.parametrize(("name", "temper", "shares"), SHARES)
def test_the_sampler_shares_out_classes_and_sources(name: Any, temper: float, shares: list[float]) -> None:
    settings = SamplerSettings(name, temper, 40_000)
    weights = cell_weights(LABELS, SOURCES, settings)
    assert float(weights.sum()) == pytest.approx(1)
    drawn = epoch_order(weights, settings, 3)
    assert len(drawn) == 40_000
    kinds = LABELS[drawn] * 2 + SOURCES[drawn]
    found = [float((kinds == kind).double().mean()) for kind in (0, 1, 2)]
    assert found == pytest.approx(shares, abs=0.015)


def test_a_natural_epoch_shows_every_cell_once() -> None:
    settings = SamplerSettings("natural")
    order = epoch_order(cell_weights(LABELS, SOURCES, settings), settings, 1)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))
    assert not torch.equal(order, epoch_order(cell_weights(LABELS, SOURCES, settings), settings, 2))
