"""Checkpoints: a tree comes back as it was, and a file that is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from napari_bloodcells.core.errors import BundleError
from napari_bloodcells.core.training.checkpoint import load_checkpoint, save_checkpoint


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    tensor = torch.arange(6).reshape(2, 3).t()  # not contiguous
    tree: dict[str, Any] = {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": tensor}, 11: {}}, "lr": 0.1},
        "mixed": {"a": 1, "2": None},
        "history": [{"epoch": 1, "note": "ä"}, (1, 2.5), []],
        "empty": {},
        "done": False,
    }
    save_checkpoint(tmp_path / "c", tree)
    found = load_checkpoint(tmp_path / "c")
    state = found["optimizer"].pop("state")
    assert list(state) == [0, 11]
    assert torch.equal(state[0]["step"], torch.tensor(3.0))
    assert torch.equal(state[0]["exp_avg"], tensor)
    assert state[0]["exp_avg"].dtype == torch.int64
    assert state[11] == {}
    assert found == {
        "optimizer": {"lr": 0.1},
        "mixed": {"a": 1, "2": None},
        "history": [{"epoch": 1, "note": "ä"}, [1, 2.5], []],
        "empty": {},
        "done": False,
    }


def test_the_next_one_replaces_it(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path / "c", {"epoch": epoch, "weights": torch.full((2,), epoch)})
    assert load_checkpoint(tmp_path / "c")["epoch"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_what_is_trained_on_meanwhile_is_not_what_was_saved(tmp_path: Path) -> None:
    weights = torch.nn.Parameter(torch.ones(2))
    save_checkpoint(tmp_path / "c", {"a": weights, "b": weights})  # one tensor under two names
    found = load_checkpoint(tmp_path / "c")
    assert torch.equal(found["a"], torch.ones(2))
    assert torch.equal(found["b"], torch.ones(2))
    assert not found["a"].requires_grad


GOOD = save({"/w": torch.ones(2)}, {"tree": json.dumps({"w": {"__tensor__": "/w"}, "n": {"__int_keys__": {"3": {}}}})})
DAMAGED = {
    "no safetensors": b"PK\x03\x04 something",
    "cut": GOOD[:-1],
    "no tree": save({"/w": torch.ones(2)}, {"format": "pt"}),
    "no metadata": save({"/w": torch.ones(2)}),
    "a tree that is no JSON": save({}, {"tree": "{"}),
    "a tree without end": save({}, {"tree": "[" * 100_000}),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(BundleError, match=r"^checkpoint: no checkpoint that can be read \(.*\); start anew") as caught:
        load_checkpoint(tmp_path / "checkpoint")
    assert "\n" not in str(caught.value)


def test_one_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(GOOD)
    found = load_checkpoint(tmp_path / "checkpoint")
    assert torch.equal(found["w"], torch.ones(2))
    assert found["n"] == {3: {}}
