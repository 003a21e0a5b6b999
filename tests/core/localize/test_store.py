"""Localizers on disk: what was saved comes back, what was damaged is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from napari_bloodcells.core.bundle import hash_tensors
from napari_bloodcells.core.errors import BundleError, OutputError
from napari_bloodcells.core.localize.net import CellNet, NetSettings
from napari_bloodcells.core.localize.store import METADATA, WEIGHTS, LocalizerInfo, read_localizer, save_localizer

SMALL = NetSettings((16, 16, 16, 16), (1, 1, 1), 16)
INFO = LocalizerInfo(name="small", channels=SMALL.channels, blocks=SMALL.blocks, head=SMALL.head)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_localizer(tmp_path / "small", CellNet(SMALL), INFO)


def test_what_was_saved_comes_back(folder: Path) -> None:
    torch.manual_seed(0)
    saved = CellNet(SMALL).state_dict()
    info, net = read_localizer(folder)
    assert info.model_copy(update={"sha256": ""}) == INFO
    for name, tensor in saved.items():
        assert torch.equal(net.state_dict()[name], tensor)


def test_in_16_bits_it_takes_half_and_comes_back_rounded(folder: Path, tmp_path: Path) -> None:
    info, net = read_localizer(folder)
    small = save_localizer(tmp_path / "half", net, info, half=True)
    assert (small / WEIGHTS).stat().st_size < 0.6 * (folder / WEIGHTS).stat().st_size
    for name, tensor in read_localizer(small)[1].state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name].half().float())


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(OutputError, match="holds a localizer already"):
        save_localizer(folder, CellNet(SMALL), INFO)


def _change(folder: Path, **fields: object) -> None:
    text = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(text | fields))


def _other_weights(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["stem.bias"] = tensors["stem.bias"] + 1
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / METADATA).unlink(), "holds no localizer.json"),
        (lambda f: (f / METADATA).write_text("{"), "metadata cannot be used"),
        (lambda f: _change(f, surprise=1), "surprise"),
        (lambda f: _change(f, thresholds=[0.3, 0.3, 7]), "thresholds"),
        (lambda f: _change(f, channels=[10**9, 8, 8, 8]), "channels"),
        (lambda f: _change(f, classes=["WBC", "RBC", "Parasites"]), "Parasites"),
        (lambda f: _change(f, head=32), "do not fit the network"),
        (_other_weights, "SHA-256"),
        (lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04"), "no whole safetensors"),
        (lambda f: (f / WEIGHTS).unlink(), WEIGHTS),
    ],
)
def test_what_is_damaged_is_refused_by_name(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=words) as caught:
        read_localizer(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [torch.full((16,), 1e300, dtype=torch.float64), torch.full((16,), 1j)])
def test_a_weight_that_the_network_cannot_hold_is_refused(folder: Path, values: torch.Tensor) -> None:
    if values.dtype not in safetensors.torch._SIZE:
        pytest.skip("this safetensors knows no complex numbers, and so reads none")
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()} | {"stem.bias": values}
    save_file(tensors, folder / WEIGHTS)
    _change(folder, sha256=hash_tensors(tensors))
    with pytest.raises(BundleError, match="no number"):
        read_localizer(folder)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    net = CellNet(SMALL)
    with torch.no_grad():
        net.stem.bias[0] = float("nan")
    with pytest.raises(BundleError, match="no number"):
        read_localizer(save_localizer(tmp_path / "nan", net, INFO))
