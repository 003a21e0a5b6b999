"""Measure ``count`` side by side with decoding alone and with other ways, and write one table.

    python -m benchmarks.throughput ../shared/data/bccd/JPEGImages --images 3640 --large 20000 -o docs/throughput

All rows see the same files on the same processors, one after the other, decoding first and last.  Rates of different
machines, or of a busy one, differ; their ratios do so much less.  ``count`` is timed as a user starts it: the whole
command, imports included.  Memory is the sum over the command's processes of what each holds for itself and its share
of what they hold together (PSS; Linux), sampled ten times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

COUNT = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()", "count"]
HEADINGS = ("way", "images", "images/s", "cells/s", "share of decoding", "peak MB", "first result s", "CPU use")


@dataclass(frozen=True)
class Measured:
    """One row: ``share`` is that of the decoder's rate, ``cpu`` the mean number of busy processors over those there."""

    way: str
    images: int
    per_second: float
    cells_per_second: float
    share: float
    peak_mb: float
    first_s: float
    cpu: float
    stages: dict[str, float] | None = None


def processes(pid: int) -> list[int]:
    """``pid`` and all processes below it."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            for task in tasks:
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its children, in MB; 0 where the system does not tell."""
    total = 0
    for process in processes(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(text.split("\nPss:")[1].split()[0])
        except (OSError, IndexError):
            continue
    return total / 1024


def processor_seconds(process: int) -> float:
    """Processor time of one process so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(command: Sequence[str], first: Path | None = None) -> tuple[float, float, float, float, str]:
    """Run a command: seconds, peak MB, seconds to the first file in ``first``, processor seconds, its last line."""
    before = os.times()
    start = time.perf_counter()
    peak, seen = 0.0, 0.0
    spent: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as stream:
        running = subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL)
        while running.poll() is None:
            peak = max(peak, memory_mb(running.pid))
            for process in processes(running.pid):
                spent[process] = max(spent.get(process, 0.0), processor_seconds(process))
            if first is not None and not seen and any(first.glob("*.jsonl")):
                seen = time.perf_counter() - start
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        stream.seek(0)
        lines = stream.read().strip().splitlines()
    after = os.times()
    if running.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    cpu = max(cpu, sum(spent.values()))  # the first leaves out whom nobody waited for: the workers of a server
    return seconds, peak, seen, cpu, lines[-1] if lines else ""


def loop(way: str, name: str, folder: Path, n: int, limit: float) -> Measured:
    """A row for one of ``loops``; ``limit`` is the decoder's images a second (0 for the decoder itself)."""
    command = [sys.executable, "-m", "benchmarks.throughput.loops", name, str(folder), str(n)]
    wall, peak, _, cpu, line = watched(command)
    found = json.loads(line)
    rate = found["images"] / found["seconds"]
    used = cpu / wall / (os.cpu_count() or 1)
    cells = found["cells"] / found["seconds"]
    return Measured(
        f"{way} ({found['note']})", found["images"], rate, cells, rate / limit if limit else 1, peak, 0, used
    )


def counted(way: str, folder: Path, place: Path, limit: float, *options: str) -> Measured:
    """A row for ``count``, start-up included."""
    command = [*COUNT, str(folder), "-o", str(place), "--boxes", "find", *options]
    wall, peak, first, cpu, _ = watched(command, place / ".partial")
    run = json.loads((place / "run.json").read_text())
    rate = run["images"]["read"] / wall
    used = cpu / wall / (os.cpu_count() or 1)
    stages = run["times"]["stages"]
    return Measured(way, run["images"]["read"], rate, run["cells"] / wall, rate / limit, peak, first, used, stages)


def repeated(source: Path, folder: Path, n: int) -> Path:
    """A folder of ``n`` links to the images of ``source``, over and over."""
    folder.mkdir()
    files = sorted(p for p in source.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not files:
        raise SystemExit(f"{source}: no images")
    for i in range(n):
        file = files[i % len(files)]
        (folder / f"{i:06d}{file.suffix}").symlink_to(file.resolve())
    return folder


def random_vgg16(folder: Path) -> Path:
    """A bundle of VGG16 with random weights: its time is that of any weights."""
    from napari_bloodcells.core.bundle import save_bundle
    from napari_bloodcells.core.classes import load_scheme
    from napari_bloodcells.core.crops import CropSpec
    from napari_bloodcells.core.models import architecture
    from napari_bloodcells.core.schema import BundleInfo, scheme_info

    scheme = load_scheme("wbc5")
    module = architecture("vgg16").skeleton(len(scheme)).to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.data.normal_(std=0.01)
    info = BundleInfo(
        name="vgg16", arch="vgg16", scheme=scheme_info(scheme), crop=CropSpec(size=224), input_size=(224, 224)
    )
    return save_bundle(folder, module, info, half=True)


def measure(source: Path, n: int, large: int) -> list[Measured]:
    """All rows; slow ways see fewer images, as their rate does not depend on how many there are."""
    with tempfile.TemporaryDirectory() as home:
        place = Path(home)
        folder = repeated(source, place / "in", n)
        few = repeated(source, place / "few", 200)
        before = loop("(a) decoding only", "decode", folder, n, 0)
        count = counted("(b) count", folder, place / "b", before.per_second)
        after = loop("(a) decoding only, again", "decode", folder, n, 0)
        limit = (before.per_second + after.per_second) / 2
        with_pillow = loop("(a) decoding only", "pillow", folder, n, limit)
        rows = [before, after, with_pillow, rescaled(count, limit)]
        rows.append(counted("(b) count, 200 images", few, place / "b200", limit))
        if large:
            rows.append(
                counted(f"(b) count, {large} images", repeated(source, place / "large", large), place / "bl", limit)
            )
        vgg = repeated(source, place / "vgg", 40)
        model = str(random_vgg16(place / "vgg16"))
        rows.append(counted("(c) count, vgg16", vgg, place / "c", limit, "--model", model))
        rows.append(loop("(d) Faster R-CNN and VGG16", "detector", folder, 8, limit))
        rows.append(loop("(e) cnn6 at 200 x 200", "keras", folder, 200, limit))
    return rows


def rescaled(row: Measured, limit: float) -> Measured:
    """The row with its share of another limit."""
    return Measured(**{**asdict(row), "share": row.per_second / limit})


def markdown(rows: Sequence[Measured]) -> str:
    """The table, and where the time of ``count`` went."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for row in rows:
        shown = (
            row.way,
            f"{row.images:,}",
            f"{row.per_second:.1f}",
            f"{row.cells_per_second:.1f}",
            f"{row.share:.3f}",
            f"{row.peak_mb:.0f}" if row.peak_mb else "",
            f"{row.first_s:.1f}" if row.first_s else "",
            f"{100 * row.cpu:.0f} %",
        )
        lines.append(f"| {' | '.join(shown)} |")
    count = next(row for row in rows if row.way == "(b) count")
    detector = next(row for row in rows if row.way.startswith("(d)"))
    with_pillow = next(row for row in rows if "pillow" in row.way)
    lines += ["", f"`count` is {count.per_second / detector.per_second:.0f} times as fast as (d)"]
    lines[-1] += f", and has {count.per_second / with_pillow.per_second:.2f} of the rate of decoding with Pillow."
    if count.stages:
        total = sum(count.stages.values()) or 1
        parts = ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in count.stages.items())
        lines.append(f"Where its time goes, start-up apart: {parts}.")
    lines.append(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors; load {os.getloadavg()[0]:.1f}."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write ``OUT.md`` and ``OUT.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of images, repeated as often as needed")
    parser.add_argument("--images", type=int, default=3640)
    parser.add_argument("--large", type=int, default=20_000, help="images of the large run; 0 leaves it out")
    parser.add_argument("-o", "--output", type=Path, default=None, help="write OUTPUT.md and OUTPUT.json")
    options = parser.parse_args()
    rows = measure(options.source, options.images, options.large)
    text = markdown(rows)
    print(text)
    if options.output is not None:
        options.output.with_suffix(".md").write_text(text)
        options.output.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
