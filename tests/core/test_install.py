"""Models are put where they are found by name: whole, in 16 bits, and never over another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.bundle import installed_models, load_model, read_bundle, save_bundle
from napari_bloodcells.core.errors import BundleError, OutputError, UsageError
from napari_bloodcells.core.install import install_model
from napari_bloodcells.core.model import MICRO_BATCH


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOODCELLS_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path / "models"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no cell of:UserWarning")
def test_vgg16_is_built_by_one_command_and_counts_by_its_name(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MICRO_BATCH, "cpu", 2)  # padded to 16, six cells would take minutes
    rng = np.random.default_rng(0)
    for name, color in {"neutrophil": (90, 40, 150), "eosinophil": (200, 60, 60)}.items():
        (tmp_path / "cells" / name).mkdir(parents=True)
        for i in range(3):
            image = rng.normal(color, 20, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "cells" / name / f"{i}.png")
    cells, count = str(tmp_path / "cells"), ["count", str(tmp_path / "cells"), "--boxes", "whole", "--model", "vgg16"]
    assert run([*count, "-o", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "train PBC --recipe vgg16-finetune -o FOLDER --install vgg16" in said
    assert len(said.splitlines()) == 1

    quick = ["--epochs", "1", "--set", "sampler.epoch_cells=2", "--batch-size", "2", "--set", "val_fraction=0.34"]
    built = tmp_path / "built"
    command = ["train", cells, "--recipe", "vgg16-finetune", "--weights", "none", "-o", str(built), *quick]
    assert run([*command, "--install", "vgg16", "--device", "cpu"]) == 0
    assert f"--model vgg16 (it is in {home / 'vgg16'})" in capsys.readouterr().out
    assert sorted(p.name for p in (home / "vgg16").iterdir()) == ["model.json", "model.safetensors"]
    assert {t.dtype for t in load_file(home / "vgg16" / "model.safetensors").values()} == {torch.float16}
    assert (home / "vgg16" / "model.safetensors").stat().st_size < 60e6

    full, half = read_bundle(built), read_bundle("vgg16")
    assert (half[0].name, half[0].recipe["options.mode"]) == ("vgg16", "finetune")
    for name, tensor in full[1].state_dict().items():
        assert torch.allclose(half[1].state_dict()[name], tensor, rtol=1e-3, atol=1e-6), name
    assert full[2] is not None
    assert half[2] is not None
    features = torch.relu(torch.randn(4, 512 * 7 * 7, generator=torch.Generator().manual_seed(0))) * 20
    assert torch.allclose(half[2].distance(features), full[2].distance(features), rtol=0.02)

    assert run([*count, "-o", str(tmp_path / "counted")]) == 0
    assert len((tmp_path / "counted" / "cells.csv").read_text().splitlines()) == 7
    assert "vgg16" in [info.name for info in installed_models()]


def test_a_model_that_was_fetched_is_added_under_its_name(
    tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "add", str(tiny_model)]) == 0
    assert f"--model tiny (it is in {home / 'tiny'})" in capsys.readouterr().out
    assert run(["models", "add", str(tiny_model), "--name", "mine"]) == 0
    assert [load_model(name, "cpu").info.name for name in ("tiny", "mine")] == ["tiny", "mine"]
    assert sorted(p.name for p in home.iterdir()) == ["mine", "tiny"]
    assert run(["models", "add", str(tiny_model)]) == 1
    assert "is installed already; remove that folder or choose another" in capsys.readouterr().err


WRONG = [
    ("wbc5", UsageError, "comes with the package"),
    ("default", UsageError, "is no name"),
    ("../elsewhere", UsageError, "is no name"),
    ("", BundleError, "no model bundle"),
]


@pytest.mark.parametrize(("name", "error", "words"), WRONG)
def test_names_that_cannot_be_had_are_refused(
    tiny_model: Path, tmp_path: Path, home: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        install_model(tiny_model if name else tmp_path, name or None)
    assert not home.exists()


def test_a_name_that_is_taken_is_told_before_the_training(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_model(tiny_model, "mine")
    assert run(["train", str(tmp_path), "-o", str(tmp_path / "m"), "--install", "mine"]) == 1
    assert "mine: a model of that name is installed already" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_weights_beyond_16_bits_are_refused(tiny_model: Path, tmp_path: Path, home: Path) -> None:
    info, module, _ = read_bundle(tiny_model)
    with torch.no_grad():
        module.head.bias[0] = 1e5
    save_bundle(tmp_path / "large", module, info)
    with pytest.raises(BundleError, match="large: holds weights up to 1e\\+05, too large for 16 bits"):
        install_model(tmp_path / "large", "large")
    assert not home.exists()


def test_a_home_that_is_a_file_is_named(tiny_model: Path, home: Path) -> None:
    home.write_text("mine")
    with pytest.raises(OutputError, match="models: no folder can be made there"):
        install_model(tiny_model)
    assert home.read_text() == "mine"
