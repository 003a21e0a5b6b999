"""Count a drawn whole slide of 40,000 x 40,000 pixels, and say how long it took and how much memory.

    python -m benchmarks.throughput.slides -o benchmarks/throughput/slide.json

The slide is a BigTIFF of JPEG tiles without smaller copies of itself (the hardest case: the look over it decodes it
all), drawn from few fields that are repeated, so that writing it is quick: empty ground, a thin end, a monolayer and a
thick end, side by side.  Memory is sampled as in ``benchmarks.throughput`` (PSS of the command and its children).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.throughput.__main__ import COUNT, watched

FIELD, TILE = 1024, 512
UM_PER_PIXEL = 0.25
GROUND = (246, 232, 217)
ZONES = (("empty", 0.45), ("thin", 0.10), ("monolayer", 0.25), ("thick", 0.20))
"""From left to right, as shares of the width."""


@dataclass(frozen=True)
class Result:
    """What was measured, and what was counted."""

    pixels: str
    file_mb: int
    fields: dict[str, int]
    cells: int
    seconds: float
    cpu_seconds: float
    peak_mb: int
    processors: int


def drawn_field(seed: int, coverage: float, cells: int) -> NDArray[np.uint8]:
    """A field of 256 um as a scanner sees it."""
    from napari_bloodcells.synthetic import SmearSettings, draw_smear

    settings = SmearSettings(
        width=FIELD, height=FIELD, um_per_pixel=UM_PER_PIXEL, cells=cells, rbc_coverage=coverage, platelets=10
    )
    return draw_smear(seed, settings).image


def zone_fields() -> dict[str, list[NDArray[np.uint8]]]:
    """A few fields of each zone; the thick end is three layers of the monolayer on each other."""
    single = [drawn_field(seed, 0.4, 4) for seed in range(3)]
    thick = single[0] / 255
    for shift, layer in ((301, single[1]), (643, single[2])):
        thick = thick * np.roll(layer, shift, axis=(0, 1)) / 255
    return {
        "empty": [np.full((FIELD, FIELD, 3), GROUND, np.uint8)],
        "thin": [drawn_field(10, 0.04, 1)],
        "monolayer": single,
        "thick": [(thick * 255).astype(np.uint8)],
    }


def write_slide(path: Path, side: int) -> None:
    """Write the slide; every different tile is compressed once."""
    import tifffile
    from imagecodecs import jpeg_encode

    def encoded(field: NDArray[np.uint8]) -> list[list[bytes]]:
        return [
            [jpeg_encode(field[y : y + TILE, x : x + TILE].copy(), level=85) for x in range(0, FIELD, TILE)]
            for y in range(0, FIELD, TILE)
        ]

    zones = {name: [encoded(field) for field in fields] for name, fields in zone_fields().items()}
    ends = np.cumsum([share for _, share in ZONES]) * side

    def tiles() -> Iterator[bytes]:
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                zone = zones[ZONES[min(int(np.searchsorted(ends, x, side="right")), len(ZONES) - 1)][0]]
                field = zone[(x // FIELD + 7 * (y // FIELD)) % len(zone)]
                yield field[y % FIELD // TILE][x % FIELD // TILE]

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(
            tiles(),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            resolution=(1e4 / UM_PER_PIXEL, 1e4 / UM_PER_PIXEL),
            resolutionunit="CENTIMETER",
            metadata=None,
        )


def measure(folder: Path, side: int) -> Result:
    """Write the slide and count it as a user would."""
    slide = folder / "slide.btf"
    began = time.perf_counter()
    write_slide(slide, side)
    print(f"written in {time.perf_counter() - began:.0f} s, {slide.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    seconds, peak, _, cpu, _ = watched([*COUNT, str(slide), "-o", str(folder / "out")])
    run = json.loads((folder / "out" / "run.json").read_text())
    letters = "".join(run["slides"][slide.name]["fields"])
    fields = {name: letters.count(letter) for name, letter in (("counted", "#"), ("looked at", "o"), ("empty", "."))}
    return Result(
        pixels=f"{side} x {side}",
        file_mb=round(slide.stat().st_size / 1e6),
        fields=fields,
        cells=run["cells"],
        seconds=round(seconds, 1),
        cpu_seconds=round(cpu, 1),
        peak_mb=round(peak),
        processors=os.cpu_count() or 1,
    )


def main() -> None:
    """Measure and print; write the figures where ``-o`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_000, help="of the slide in pixels")
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slide-") as folder:
        result = measure(Path(folder), arguments.side)
    text = json.dumps(asdict(result), indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
