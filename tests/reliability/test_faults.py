"""Runs that meet a real fault: a full disk, a folder that is taken away, dead workers, no memory, a clock set back.

After each: one line that says how to go on, no half-written file under its final name, and ``resume`` ends with the
bytes of an undisturbed run.  Signals at random moments are ``benchmarks.reliability.faults`` and ``tests/cli``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.core.errors import BloodcellsError, DiskError
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.train import train

CSVS = ("cells.csv", "images.csv", "differential.csv")
PAGE = 4096
QUICK: dict[str, Any] = {
    **{"scheme": "wbc4", "crop.size": 16, "crop.scale": "image", "crop.white": False, "precision": "float32"},
    **{"epochs": 3, "batch_size": 8, "val_fraction": 0.25},
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, which can be filled and made read-only: a tmpfs of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("a small disk for the test is a tmpfs, which only Linux has")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a full disk needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill the disk but for ``left`` bytes; returns the file to remove to make room."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - left)
    return ballast


class At(Silent):
    """Calls ``action`` once, when ``n`` steps of a task are done."""

    def __init__(self, n: int, action: Callable[[], object]) -> None:
        self.left, self.action = n, action

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Count the step."""
        before, self.left = self.left, self.left - n
        if before > 0 >= self.left:
            self.action()


def run(source: Path, model: Path, output: Path, progress: Silent | None = None, **options: object) -> CountResult:
    settings = CountOptions(output=output, batch_size=1, **options)
    return count(source, str(model), "xml", "cpu", progress, settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CSVS}


@pytest.fixture(scope="module")
def reference(smears: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    run(smears, tiny_model, folder)
    return folder


def no_half_file(folder: Path, reference: Path) -> bool:
    """Whether each table that is there is whole, and each shard."""
    tables = [name for name in CSVS if (folder / name).exists()]
    shards = [path.read_text() for path in (folder / ".partial").glob("*.jsonl")]
    return (
        all((folder / name).read_bytes() == (reference / name).read_bytes() for name in tables)
        and all(json.loads(text)["image"] for text in shards)
        and not list(folder.rglob(".part-*"))
    )


# Pages of 4 kB: the lock, the plan, twelve shards, then the tables, while the lock and the shards are still there.
@pytest.mark.parametrize("pages", [0, 1, 2, 5, 13, 14, 15, 16])
def test_a_count_on_a_full_disk_says_how_to_go_on_and_goes_on(
    smears: Path, tiny_model: Path, reference: Path, disk: Path, pages: int
) -> None:
    out = disk / "out"
    ballast = fill(disk, pages * PAGE)
    with pytest.raises(DiskError, match=r"(?i)no space left") as caught:
        run(smears, tiny_model, out)
    assert "\n" not in str(caught.value)
    assert ("--resume" in str(caught.value)) == (pages > 0), "the way to go on"
    assert no_half_file(out, reference)
    if pages == 5:
        assert len(list((out / ".partial").glob("*.jsonl"))) == 3, "the lock, the plan and three shards"
    ballast.unlink()
    run(smears, tiny_model, out, resume=True)
    assert contents(out) == contents(reference)
    assert sorted(path.name for path in out.iterdir()) == sorted([*CSVS, "run.json"])


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four class folders of eight small images."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("neutrophil", "eosinophil", "lymphocyte", "monocyte")):
        (folder / name).mkdir()
        for i in range(8):
            image = rng.integers(60 * k, 60 * k + 70, (30, 30, 3), np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(colors, tmp_path_factory.mktemp("trained") / "m")


def learn(colors: Path, place: Path, **more: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODCELLS_CACHE", str(colors.parent / "cache"))
        return train(colors, "cnn3", place, device="cpu", overrides=QUICK, **more).output


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("megabytes", [0, 1, 30])  # the lock; the first checkpoint (20 MB); the second beside it
def test_a_training_on_a_full_disk_says_how_to_go_on_and_goes_on(
    colors: Path, trained: Path, disk: Path, megabytes: int
) -> None:
    ballast = fill(disk, megabytes * 2**20)
    with pytest.raises(DiskError, match=r"(?i)no space left") as caught:
        learn(colors, disk / "m")
    assert "\n" not in str(caught.value)
    assert ("--resume" in str(caught.value)) == (megabytes > 0)
    assert not list((disk / "m").glob(".part-*"))
    assert (disk / "m" / "checkpoint.safetensors").exists() == (megabytes == 30)
    ballast.unlink()
    assert weights(learn(colors, disk / "m", resume=True)) == weights(trained)


def test_a_count_whose_folder_is_removed_says_so_and_begins_anew(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DiskError, match="no such file or directory"):
        run(smears, tiny_model, out, At(4, lambda: shutil.rmtree(out)))
    assert not out.exists()
    run(smears, tiny_model, out, resume=True)
    assert contents(out) == contents(reference)


def test_a_count_whose_disk_becomes_read_only_goes_on_when_it_can_be_written_again(
    smears: Path, tiny_model: Path, reference: Path, disk: Path
) -> None:
    out = disk / "out"

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)

    with pytest.raises(DiskError, match=r"read-only file system.*--resume"):
        run(smears, tiny_model, out, At(4, lambda: remount("ro")))
    remount("rw")
    assert len(list((out / ".partial").glob("*.jsonl"))) == 4
    assert no_half_file(out, reference)
    run(smears, tiny_model, out, resume=True)
    assert contents(out) == contents(reference)


@pytest.fixture(scope="module")
def many(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six fields: enough for worker processes."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(3):
        for file in smears.rglob("*.png"):
            for source in (file, file.with_suffix(".xml")):
                os.link(source, folder / f"{file.parent.name}_{i}_{source.name}")
    return folder


def kill_a_worker() -> None:
    for child in psutil.Process().children():
        if "resource_tracker" not in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
            return


def test_a_worker_that_is_killed_costs_nothing_but_time(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    run(many, tiny_model, tmp_path / "alone", workers=1)
    run(many, tiny_model, tmp_path / "killed", At(5, kill_a_worker), workers=2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_workers_that_die_again_and_again_end_the_run_in_one_line(
    many: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.counting.pipeline.FieldCounter.count", lambda *_: os._exit(9))
    # A spawned worker, as there would be beside threads of other tests, would not have the fault.
    monkeypatch.setattr("napari_bloodcells.core.counting.workers._start_method", lambda _: "fork")
    with pytest.raises(BloodcellsError, match=r"died 5 times.*--workers"):
        run(many, tiny_model, tmp_path / "out", workers=2)


def out_of_memory(above: int) -> Callable[[Model, torch.Tensor], Any]:
    """``Model._forward`` on a device whose memory ends above so many crops at a time."""
    real = Model._forward

    def forward(self: Model, part: torch.Tensor) -> Any:
        if self.micro_batch > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation.")
        return real(self, part)

    return forward


def test_a_count_that_runs_out_of_device_memory_gives_the_same_cells(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "_forward", out_of_memory(1))
    run(smears, tiny_model, tmp_path / "out")
    found, expected = (pd.read_csv(folder / "cells.csv") for folder in (tmp_path / "out", reference))
    pd.testing.assert_frame_equal(found, expected, check_exact=False, atol=2e-3)
    assert (found["class"] == expected["class"]).all()


def test_a_device_too_small_for_one_cell_ends_the_run_in_one_line_and_keeps_nothing_wrong(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Model, "_forward", out_of_memory(0))
        with pytest.raises(BloodcellsError, match=r"memory of cpu.*--device cpu") as caught:
            run(smears, tiny_model, tmp_path / "out")
    assert "\n" not in str(caught.value)
    run(smears, tiny_model, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(reference)


def test_a_clock_that_goes_backwards_changes_no_result_and_no_duration(
    smears: Path, tiny_model: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr("time.time", backwards)
    result = run(smears, tiny_model, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(reference)
    assert result.run["times"]["seconds"] > 0
    assert min(result.run["times"]["stages"].values()) >= 0
