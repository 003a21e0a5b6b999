"""Faults: a run that is stopped at any moment, and what ``--resume`` makes of it.

    python -m benchmarks.reliability.faults count --moments 50
    python -m benchmarks.reliability.faults train --moments 50

An undisturbed run gives the reference.  Then run after run is stopped with SIGINT, SIGTERM or SIGKILL at a random
moment until ``--moments`` of them were truly interrupted (a run that ends before its signal is drawn again).  What
lies there then is looked at, as no half-written file may stand under its final name, and the run is resumed: its
results must be the reference's to the byte.  Every run is a process of its own, forked from one that has imported
torch and the rest already, so that the moments fall into the work and not into the imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from PIL import Image

from napari_bloodcells.core.errors import BloodcellsError
from napari_bloodcells.core.training.checkpoint import load_checkpoint
from napari_bloodcells.synthetic import SmearSettings, draw_smear, write_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
PRELOADED = (
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.ticker", "torch._dynamo"),
    "pandas",
    "scipy.special",
    *(f"napari_bloodcells.cli.{name}" for name in ("count", "train", "progress", "scores")),
    *(f"napari_bloodcells.core.{name}" for name in ("count", "train", "bundle", "localize.learned")),
)
TABLES = ("cells.csv", "images.csv", "differential.csv")


@dataclass(frozen=True)
class Study:
    """A command to disturb.

    Attributes
    ----------
    arguments : tuple of str
        The command line, without ``-o``.
    result : callable
        What must be the same in the end, by name: ``result(folder)``.
    check : callable
        ``check(folder, reference)`` says what is wrong with what a stopped run left behind, "" for nothing.
    """

    arguments: tuple[str, ...]
    result: Callable[[Path], dict[str, object]]
    check: Callable[[Path, Path], str]


@dataclass(frozen=True)
class Fault:
    """One interrupted run: the signal, the second at which it came, and what was wrong then or after ``--resume``."""

    signal: signal.Signals
    after: float
    wrong: str


def start(arguments: list[str], log: Path) -> int:
    """The command in a forked process, leader of its own group, its words in ``log``; returns its number."""
    from napari_bloodcells.cli.app import run

    log.touch()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        while os.getpgid(child) != child:  # until it can be sent a signal by itself
            time.sleep(0.001)
        return child
    code = 70
    try:
        os.setsid()
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        code = run(arguments)
    except BaseException:  # as the interpreter would end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, timeout: float) -> int | None:
    """Exit code of ``child`` (negative: killed by that signal), None where it still runs after ``timeout`` s."""
    until = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def run_to_end(arguments: list[str], log: Path, timeout: float = 600) -> str:
    """Run the command undisturbed; returns what went wrong, "" for nothing."""
    child = start(arguments, log)
    code = wait(child, timeout)
    if code is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return f"it hung for {timeout:.0f} s"
    return "" if code == 0 else f"it ended with {code}: {log.read_text(errors='replace')[-300:]}"


def disturb(study: Study, folder: Path, reference: Path, kind: signal.Signals, after: float) -> Fault | None:
    """Stop a run after ``after`` seconds, look at what it left, resume it; None where it had ended before."""
    log = folder.with_suffix(".log")
    child = start([*study.arguments, "-o", str(folder)], log)
    if wait(child, after) is not None:
        return None
    if kind == signal.SIGKILL:  # the machine loses power: workers die with their parent
        os.killpg(child, kind)
    else:
        os.kill(child, kind)
    code = wait(child, 300)
    if code is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return Fault(kind, after, f"it did not end on {kind.name}")
    if code == 0 and kind != signal.SIGKILL:  # all but ended when it was asked to stop
        return None
    words = log.read_text(errors="replace")
    wrong = f"it printed a traceback: {words[words.index('Traceback') :][-1500:]}" if "Traceback" in words else ""
    wrong = wrong or (study.check(folder, reference) if folder.exists() else "")
    wrong = wrong or run_to_end([*study.arguments, "-o", str(folder), "--resume"], log)
    if not wrong:
        expected, got = study.result(reference), study.result(folder)
        wrong = "".join(f"{name} differs " for name in expected if expected[name] != got[name])
    return Fault(kind, after, wrong)


def investigate(study: Study, scratch: Path, moments: int, seed: int = 0) -> tuple[list[Fault], int]:
    """``moments`` interrupted runs, and how many others had ended before their signal."""
    rng = random.Random(seed)
    reference = scratch / "reference"
    started = time.monotonic()
    wrong = run_to_end([*study.arguments, "-o", str(reference)], scratch / "reference.log")
    if wrong:
        raise RuntimeError(f"the undisturbed run failed: {wrong}")
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    faults: list[Fault] = []
    early = 0
    while len(faults) < moments:
        folder = scratch / f"run-{len(faults)}"
        kind, after = SIGNALS[len(faults) % len(SIGNALS)], rng.uniform(0, seconds)
        fault = disturb(study, folder, reference, kind, after)
        shutil.rmtree(folder, ignore_errors=True)
        if fault is None:
            early += 1
            continue
        faults.append(fault)
        print(f"{len(faults)}: {kind.name} after {after:.2f} s: {fault.wrong or 'the same'}", flush=True)
    return faults, early


def study_of_count(folder: Path, images: int = 60) -> Study:
    """``count`` over drawn fields in two worker processes, in shards of four: enough to be caught in every stage."""
    write_folder(folder, images, seed=11, settings=SmearSettings(height=160, width=200), xml=False, suffix=".jpg")
    arguments = ("count", str(folder), "--boxes", "find", "--workers", "2", "--batch-size", "4")
    return Study(arguments, lambda place: {name: (place / name).read_bytes() for name in TABLES}, _check_count)


def _check_count(folder: Path, reference: Path) -> str:
    for name in TABLES:
        if (folder / name).exists() and (folder / name).read_bytes() != (reference / name).read_bytes():
            return f"a half {name} stands under its name"
    for shard in sorted((folder / ".partial").glob("*.jsonl")):
        if len([json.loads(line) for line in shard.read_text().splitlines()]) != 4:
            return f"{shard.name} is not whole"
    return ""


def study_of_train(folder: Path) -> Study:
    """``train`` of the smallest published network on drawn cells: three epochs with a checkpoint after each."""
    for seed in range(16):
        smear = draw_smear(seed, SmearSettings(height=240, width=320))
        for k, (box, label) in enumerate(zip(smear.boxes.xyxy.astype(int).clip(0), smear.boxes.labels, strict=True)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            cell = smear.image[box[1] : box[3], box[0] : box[2]]
            Image.fromarray(cell).save(folder / label / f"{seed}-{k}.png")
    settings = ("--epochs", "3", "--seed", "1", "--set", "val_fraction=0.3", "--batch-size", "8")
    return Study(("train", str(folder), "--arch", "cnn3", "--scheme", "wbc5", *settings), _trained, _check_train)


def _history(folder: Path) -> list[list[str]]:
    """The rows of ``history.csv`` but for how long an epoch took."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [[value for name, value in row.items() if name != "seconds"] for row in csv.DictReader(file)]


def _trained(folder: Path) -> dict[str, object]:
    scores = json.loads((folder / "report.json").read_text())
    return {"model": (folder / "model.safetensors").read_bytes(), "history": _history(folder), "report.json": scores}


def _check_train(folder: Path, reference: Path) -> str:
    name = "model.safetensors"
    if (folder / name).exists() and (folder / name).read_bytes() != (reference / name).read_bytes():
        return f"a half {name} stands under its name"
    rows = _history(folder) if (folder / "history.csv").exists() else []
    if rows != _history(reference)[: len(rows)]:
        return "history.csv is not the beginning of the undisturbed one"
    try:
        if (folder / "checkpoint.safetensors").exists():
            load_checkpoint(folder / "checkpoint.safetensors")
    except BloodcellsError as error:
        return str(error)
    return ""


def main() -> int:
    """Run one of the studies from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("count", "train"))
    parser.add_argument("--moments", type=int, default=50)
    options = parser.parse_args()
    for module in PRELOADED:
        import_module(module)
    import torch

    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["BLOODCELLS_CACHE"] = str(scratch / "cache")
        study = study_of_count(scratch / "in") if options.what == "count" else study_of_train(scratch / "in")
        faults, early = investigate(study, scratch, options.moments)
    wrong = sum(bool(fault.wrong) for fault in faults)
    print(
        f"{options.what}: {len(faults)} interrupted runs, {wrong} wrong then or not equal after --resume; {early} more "
        f"had ended before their signal; {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
