"""Faults: a run that is killed, interrupted or starved of disk, and what ``--resume`` makes of it.

    python -m benchmarks.reliability.faults count --moments 50
    python -m benchmarks.reliability.faults train --moments 50

An undisturbed run gives the reference. Then, for every moment, a fresh run is stopped with SIGINT, SIGTERM or SIGKILL
after a random time and resumed; its tables must have the very bytes of the reference, and at no time may a half-written
file stand under its final name.  Ends with one line of figures for ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from napari_bloodcells.synthetic import SmearSettings, write_folder

COUNT_FILES = ("cells.csv", "images.csv", "differential.csv")
TRAIN_FILES = ("history.csv", "model.safetensors")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@dataclass(frozen=True)
class Fault:
    """One disturbed run: the signal, the second at which it came, and what ``--resume`` gave wrong, if anything."""

    signal: signal.Signals
    after: float
    finished_before: bool
    wrong: str


def command(*arguments: str) -> list[str]:
    """The command line of this package in this interpreter."""
    return [sys.executable, "-m", "napari_bloodcells", *arguments]


def run_to_end(arguments: list[str]) -> float:
    """Run the command undisturbed; returns its seconds, raises with its words if it fails."""
    started = time.monotonic()
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
    return time.monotonic() - started


def disturb(arguments: list[str], kind: signal.Signals, after: float) -> tuple[bool, str]:
    """Start the command, send ``kind`` after ``after`` seconds; returns whether it had ended before, and its output."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=after)
        return True, output
    except subprocess.TimeoutExpired:
        if kind == signal.SIGKILL:  # the machine loses power: workers die with their parent
            os.killpg(process.pid, kind)
        else:
            process.send_signal(kind)
    output, _ = process.communicate(timeout=120)
    return False, output


def differences(reference: Path, other: Path, names: tuple[str, ...]) -> str:
    """The first of ``names`` whose bytes differ between the two folders, in words; "" if none does."""
    for name in names:
        if not (other / name).is_file():
            return f"{name} is missing"
        if not filecmp.cmp(reference / name, other / name, shallow=False):
            return f"{name} differs"
    return ""


def study(base: list[str], names: tuple[str, ...], scratch: Path, moments: int, seed: int = 0) -> list[Fault]:
    """Disturb ``base`` (without ``-o``) at ``moments`` random times, resume, and compare with the reference."""
    rng = random.Random(seed)
    reference = scratch / "reference"
    seconds = run_to_end([*base, "-o", str(reference)])
    faults = []
    for number in range(moments):
        kind, after = SIGNALS[number % len(SIGNALS)], rng.uniform(0.2, seconds * 1.05)
        folder = scratch / f"run-{number}"
        finished, output = disturb([*base, "-o", str(folder)], kind, after)
        wrong = "it printed a traceback" if "Traceback" in output else ""
        if not finished and not wrong:
            again = [*base, "-o", str(folder), "--resume"]
            try:
                run_to_end(again)
            except RuntimeError as error:
                wrong = str(error)
        wrong = wrong or differences(reference, folder, names)
        faults.append(Fault(kind, after, finished, wrong))
        if wrong:
            print(f"{kind.name} after {after:.2f} s: {wrong}", flush=True)
    return faults


def count_command(folder: Path, images: int = 300) -> list[str]:
    """``count`` over ``images`` drawn fields, enough to be caught in every stage."""
    write_folder(folder, images, seed=11, settings=SmearSettings(height=240, width=320), xml=False, suffix=".jpg")
    return ["count", str(folder), "--boxes", "find"]


def train_command(folder: Path) -> list[str]:
    """``train`` of the smallest published net on a few drawn cells, long enough for several checkpoints."""
    write_folder(folder / "fields", 40, seed=5, settings=SmearSettings(height=240, width=320))
    (folder / "fields" / "truth.csv").rename(folder / "truth.csv")
    run_to_end(["crop", str(folder / "fields"), "-o", str(folder / "cells")])
    return ["train", str(folder / "cells"), "--arch", "cnn3", "--epochs", "4", "--seed", "1"]


def main() -> int:
    """Run one of the studies from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("count", "train"))
    parser.add_argument("--moments", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        base = count_command(scratch / "in") if options.what == "count" else train_command(scratch / "in")
        faults = study(base, COUNT_FILES if options.what == "count" else TRAIN_FILES, scratch, options.moments)
    wrong = sum(bool(fault.wrong) for fault in faults)
    early = sum(fault.finished_before for fault in faults)
    print(f"{options.what}: {len(faults)} disturbed runs ({early} ended before their signal), {wrong} not equal after")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
