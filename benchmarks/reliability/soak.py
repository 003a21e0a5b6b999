"""Soak: a hundred thousand fields in one run, with memory and open files watched from outside.

    python -m benchmarks.reliability.soak --images 100000

Two hundred small drawn fields are linked under many names (the bytes are read, decoded, localized and classified each
time), and one in a thousand of the files is no image.  Prints, at every tenth of the run, how many fields are done,
the resident memory of all its processes and their open files, and in the end whether read + failed = given.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from napari_bloodcells.synthetic import SmearSettings, write_folder

SMALL = SmearSettings(height=96, width=128)
BROKEN_EVERY = 1000
EVERY_S = 2.0


@dataclass(frozen=True)
class Sample:
    """One look at the run: seconds since its start, shards that are finished, resident MB, open files."""

    seconds: float
    shards: int
    memory: int
    files: int


def make_folder(folder: Path, images: int, drawn: int = 200) -> int:
    """``images`` names for ``drawn`` drawn fields, a thousand to a sub-folder; returns how many are no images."""
    sources = write_folder(folder.parent / "drawn", drawn, seed=1, settings=SMALL, xml=False, suffix=".jpg")
    broken = folder.parent / "broken.jpg"
    broken.write_bytes(sources[0].read_bytes()[:100])
    for number in range(images):
        home = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            home.mkdir(parents=True)
        os.link(broken if number % BROKEN_EVERY == 7 else sources[number % drawn], home / f"{number:06d}.jpg")
    return len(range(7, images, BROKEN_EVERY))


def watch(process: subprocess.Popen[bytes], output: Path) -> list[Sample]:
    """Look at the process and its children every two seconds until it ends."""
    started, seen = time.monotonic(), []
    root = psutil.Process(process.pid)
    while process.poll() is None:
        shards = 0
        try:
            family = [root, *root.children(recursive=True)]
            memory = sum(one.memory_info().rss for one in family) // 2**20
            files = sum(one.num_fds() for one in family)
            shards = sum(entry.name.endswith(".jsonl") for entry in os.scandir(output / ".partial"))
        except psutil.NoSuchProcess:
            continue
        except FileNotFoundError:  # not begun, or finished
            pass
        seen.append(Sample(time.monotonic() - started, shards, memory, files))
        time.sleep(EVERY_S)
    return seen


def main() -> int:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        broken = make_folder(scratch / "in", options.images)
        command = [sys.executable, "-m", "napari_bloodcells", "count", str(scratch / "in"), "--boxes", "find"]
        process = subprocess.Popen([*command, "-o", str(scratch / "out")], stdout=subprocess.DEVNULL)
        seen = watch(process, scratch / "out")
        with (scratch / "out" / "images.csv").open(newline="", encoding="utf-8") as file:
            statuses = [row["status"] for row in csv.DictReader(file)]
    counting = [sample for sample in seen if sample.shards]
    for tenth in range(1, 11):
        at = counting[(len(counting) - 1) * tenth // 10]
        print(f"{at.seconds:7.0f} s: {at.shards:6d} shards, {at.memory:5d} MB, {at.files} open files")
    tenths = [counting[len(counting) * k // 10 : len(counting) * (k + 1) // 10 + 1] for k in range(10)]
    early, late = (max(sample.memory for sample in tenths[k]) for k in (1, 9))
    files = [max(sample.files for sample in tenths[k]) for k in (1, 9)]
    read = statuses.count("ok")
    print(
        f"{options.images} images given: {read} read + {len(statuses) - read} failed = {len(statuses)}; exit code "
        f"{process.returncode} (3); {seen[-1].seconds:.0f} s; counting took at most {early} MB in its second tenth, "
        f"{late} MB in its last, {files[0]} and {files[1]} open files; with the tables {max(s.memory for s in seen)} MB"
    )
    held = len(statuses) == options.images and len(statuses) - read == broken and process.returncode == 3
    return 0 if held and files[1] <= files[0] else 1


if __name__ == "__main__":
    sys.exit(main())
