"""Training in several processes: two over Gloo give what one gives, stop together, and leave one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.models import build
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train
from napari_bloodcells.core.training.group import Group, PeerEnded, SharedProgress, joined, peers, torchrun_size

QUICK: dict[str, Any] = {
    "scheme": "wbc4",
    "options.width": 8,
    "options.dropout": 0.0,
    "crop.size": 32,
    "crop.scale": "image",
    "crop.white": False,
    "sampler.epoch_cells": 29,  # four batches of seven, and one of a single cell, of which one process gets none
    "batch_size": 7,
    "epochs": 2,
    "val_fraction": 0.25,
    "precision": "float32",
    "ema": 0.8,
    "shape": 0.0,  # fitted to features in bfloat16, which no two sums give alike to 1e-5
}
KINDS: dict[str, dict[str, Any]] = {
    "stain": {"augment": "stain", "optimizer.clip": 1.0},
    "affine": {"augment": "affine", "optimizer.name": "sgd", "schedule.name": "cosine", "label_smoothing": 0.1},
}
SCRIPT = """
import json, os, sys
from napari_bloodcells.core.errors import Cancelled
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train

data, place, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rank = int(os.environ["RANK"])

def say(*words):
    os.write(1, (" ".join(map(str, (rank, *words))) + "\\n").encode())  # one write: two share the pipe

class Stop(Silent):
    steps = 0
    def advance(self, task, n=1, **values):
        self.steps += "loss" in values
    def cancelled(self):
        return rank == 1 and self.steps >= 7   # asked of one process alone, in the second epoch

for name, settings in jobs.items():
    found = train(data, "default", f"{place}/{name}", device="cpu", overrides=settings)
    say(name, found.info.sha256, len(found.history))
try:
    train(data, "default", f"{place}/stopped", device="cpu", overrides=settings, progress=Stop())
except Cancelled as stop:
    say("stopped", stop)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four class folders of eight images: disks whose color tells the class."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    colors = {"neutrophil": (90, 40, 150), "eosinophil": (200, 60, 60), "lymphocyte": (40, 40, 200)}
    for name, color in {**colors, "monocyte": (120, 120, 160)}.items():
        (folder / name).mkdir()
        for i in range(8):
            image = rng.normal(235, 4, (40, 40, 3))
            image[np.hypot(y - 20, x - 20) < 10 + i % 3] = np.array(color) + rng.normal(0, 12, 3)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@contextmanager
def torchrun(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Two processes on this machine; they end with the block."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends those that it started
            process.communicate()


def network(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the network; the feature space beside them is an eigenbasis, in which signs mean nothing."""
    return {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("distance.")}


def assert_alike(one: Path, other: Path) -> None:
    first, second = network(one), network(other)
    assert set(first) == set(second)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_and_resume_after_a_stop(cells: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    jobs = {name: {**QUICK, **changes} for name, changes in KINDS.items()}
    with torchrun(str(script), str(cells), str(tmp_path), json.dumps(jobs)) as process:
        said, errors = process.communicate(timeout=300)
    lines = [line.split(" ", 1) for line in said.splitlines()]
    for rank in ("0", "1"):
        mine = [words for who, words in lines if who == rank]
        assert len(mine) == 3, errors
        assert f"--resume -o {tmp_path}/stopped" in mine[-1]
    assert sorted(w for who, w in lines if who == "0") == sorted(w for who, w in lines if who == "1")

    for name, settings in jobs.items():
        alone = train(cells, "default", tmp_path / f"{name}-alone", device="cpu", overrides=settings)
        assert_alike(tmp_path / f"{name}-alone", tmp_path / name)
        assert len(alone.history) == 2

    stopped = tmp_path / "stopped"
    assert sorted(p.name for p in stopped.iterdir()) == ["checkpoint.safetensors", "history.csv", "training.json"]
    before = (stopped / "history.csv").read_text().splitlines()
    assert len(before) == 2  # the title and the one epoch that was finished
    train(cells, None, stopped, resume=True, device="cpu")  # in one process: a checkpoint knows of no number of them
    assert_alike(tmp_path / "affine", stopped)


COMMAND = ("-m", "napari_bloodcells", "train")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to another process is a Unix thing")
def test_ctrl_c_stops_all_processes_and_resume_goes_on(cells: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    settings = [w for k, v in {**QUICK, "epochs": 100_000}.items() for w in ("--set", f"{k}={v}")]
    with torchrun(*COMMAND, str(cells), "-o", str(model), "--device", "cpu", *settings) as process:
        deadline = time.monotonic() + 200
        while not (model / "history.csv").exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert errors.count("Stopping ...") == 1
    assert errors.count("go on from there with --resume") == 1
    assert "epoch 1: validation loss" in errors
    assert "Traceback" not in errors.partition("go on from there with --resume")[0]
    assert said == ""
    assert not (model / ".bloodcells.lock").exists()
    done = len((model / "history.csv").read_text().splitlines()) - 1
    again = ("--resume", "--epochs", str(done + 1), "--device", "cpu")
    with torchrun(*COMMAND, str(cells), "-o", str(model), *again) as process:
        said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert said.count("the model is") == 1
    assert len((model / "history.csv").read_text().splitlines()) - 1 == done + 1


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, sys\n"
        "from napari_bloodcells.core.errors import BloodcellsError\n"
        "from napari_bloodcells.core.training import trainer\n"
        "from napari_bloodcells.core.training.trainer import Trainer\n"
        "step = Trainer._step\n"
        "def fail(self, at):\n"
        "    if self.group.rank and self.now.step == 2:\n"
        "        raise BloodcellsError('the second process has no more memory.')\n"
        "    step(self, at)\n"
        "Trainer._step = fail\n"
        "from napari_bloodcells.cli import main\n"
        "main()\n"
    )
    settings = [w for k, v in QUICK.items() for w in ("--set", f"{k}={v}")]
    script, model = str(tmp_path / "script.py"), tmp_path / "m"
    with torchrun(script, "train", str(cells), "-o", str(model), "--device", "cpu", *settings) as process:
        errors = process.communicate(timeout=200)[1]
    assert process.returncode != 0
    assert errors.count("the second process has no more memory") == 1
    assert not (model / "model.safetensors").exists()
    assert not (model / ".bloodcells.lock").exists()


def test_one_process_alone_is_its_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # without the rest it is somebody else's
    monkeypatch.delenv("RANK", raising=False)
    assert torchrun_size() == 1
    with joined("cpu") as (group, device):
        assert group == Group(0, 1)
        assert device.type == "cpu"
        assert group.sums(1.0, 2.0) == (1.0, 2.0)
        assert group.of_first(lambda: 5) == group.first_then_others(lambda: 5) == 5
        module = torch.nn.Linear(1, 1)
        assert group.spread(module, device) is module
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_cell_of_a_batch_is_one_processs(size: int) -> None:
    for n in range(1, 12):
        shares = [Group(rank, size).share(n) for rank in range(size)]
        counted = [i for part, count in shares if count for i in range(n)[part]]
        assert counted == list(range(n))
        assert all(len(range(n)[part]) == max(count, 1) for part, count in shares)


def test_batch_norm_reaches_over_gpus_and_is_refused_on_the_cpu() -> None:
    module = build("cnn5bn", 5)
    with pytest.raises(UsageError, match=r"batch norm needs each batch whole.*options\.norm=group"):
        Group(0, 2).fitted(module, torch.device("cpu"))
    assert Group(0, 1).fitted(module, torch.device("cpu")) is module
    grouped = build("cnn5bn", 5, norm="group")
    assert Group(0, 2).fitted(grouped, torch.device("cpu")) is grouped
    names = set(module.state_dict())
    over = Group(0, 2).fitted(module, torch.device("cuda"))
    assert sum(isinstance(layer, torch.nn.SyncBatchNorm) for layer in over.modules()) == 2
    assert set(over.state_dict()) == names


def test_devices_that_cannot_train_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "x", "MASTER_PORT": 1}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    for kind, words in (("mps", "cannot train together on mps"), ("cuda", r"1 GPU\(s\): start no more")):
        monkeypatch.setattr("napari_bloodcells.core.training.group.pick_device", lambda _, k=kind: torch.device(k))
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        with pytest.raises(UsageError, match=words), joined("auto"):
            pass


def test_finding_cells_is_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    from napari_bloodcells.cli.app import run

    monkeypatch.setattr("napari_bloodcells.core.training.group.torchrun_size", lambda: 2)
    assert run(["train", str(tmp_path), "-o", str(tmp_path / "m"), "--task", "find"]) == 2
    assert "without torchrun" in capsys.readouterr().err


def test_a_stop_is_that_of_any_process() -> None:
    class Two(Group):
        def sums(self, *values: float) -> tuple[float, ...]:
            return tuple(value + 1 for value in values)  # the other one was asked to stop

    assert SharedProgress(Silent(), Two(0, 2)).cancelled()
    assert not SharedProgress(Silent(), Group()).cancelled()


def test_only_a_lost_peer_is_told_as_one() -> None:
    with pytest.raises(PeerEnded, match="--resume"), peers():
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), peers():
        raise RuntimeError("shapes do not fit")
