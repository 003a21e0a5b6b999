"""Soak: a hundred thousand fields in one run, with memory and open files watched from outside.

    python -m benchmarks.reliability.soak --images 100000

Two hundred drawn fields are linked under many names (the bytes are read and decoded each time).  Prints the resident
memory of the whole run at every tenth of it, the number of open files, and whether read + failed = given.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from napari_bloodcells.synthetic import SmearSettings, write_folder


def make_folder(folder: Path, images: int, drawn: int = 200) -> None:
    """``images`` names for ``drawn`` drawn fields, a thousand to a sub-folder."""
    sources = write_folder(
        folder.parent / "drawn", drawn, seed=1, settings=SmearSettings(height=240, width=320), xml=False, suffix=".jpg"
    )
    for number in range(images):
        home = folder / f"{number // 1000:04d}"
        home.mkdir(parents=True, exist_ok=True)
        os.link(sources[number % drawn], home / f"{number:06d}.jpg")


def watch(process: subprocess.Popen[bytes], every: float = 2.0) -> list[tuple[float, int, int]]:
    """(seconds, resident MB of the process and its children, open files) until the process ends."""
    started, seen = time.monotonic(), []
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [root, *root.children(recursive=True)]
            memory = sum(one.memory_info().rss for one in family) // 2**20
            seen.append((time.monotonic() - started, memory, sum(one.num_fds() for one in family)))
        except psutil.NoSuchProcess:
            continue
        time.sleep(every)
    return seen


def main() -> int:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        make_folder(scratch / "in", options.images)
        command = [sys.executable, "-m", "napari_bloodcells", "count", str(scratch / "in"), "--boxes", "find"]
        process = subprocess.Popen([*command, "-o", str(scratch / "out")], stdout=subprocess.DEVNULL)
        seen = watch(process)
        with (scratch / "out" / "images.csv").open(newline="", encoding="utf-8") as file:
            statuses = [row["status"] for row in csv.DictReader(file)]
    for tenth in range(1, 10):
        seconds, memory, handles = seen[len(seen) * tenth // 10]
        print(f"after {seconds:7.0f} s: {memory:5d} MB, {handles} open files")
    read = statuses.count("ok")
    early = max(memory for _, memory, _ in seen[len(seen) // 10 : len(seen) // 5 + 1])
    late = max(memory for _, memory, _ in seen[len(seen) * 8 // 10 :])
    print(
        f"{options.images} images: {read} read, {len(statuses) - read} failed, {len(statuses)} accounted for, "
        f"exit code {process.returncode}, memory late / early {late / early:.2f}"
    )
    return 0 if process.returncode == 0 and len(statuses) == options.images else 1


if __name__ == "__main__":
    sys.exit(main())
