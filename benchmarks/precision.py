"""How far the same count differs between processors that compute in different precisions, on one that can do them all.

    python -m benchmarks.precision ../shared/data/bccd

A processor or GPU that multiplies bfloat16 finds and names cells in it; a processor without finds in 8-bit whole
numbers and names in float32, a GPU without does both in float32.  Here all of it runs on this processor, so what is
left out is the order in which another one adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from napari_bloodcells.core import model
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.count import count
from napari_bloodcells.core.localize import maps

NEAR = 10.0
"""Pixels by which the middle of one cell's box may differ between two counts."""


@dataclass(frozen=True)
class Machine:
    """What a kind of processor computes in: cells named in bfloat16, found in bfloat16, found in whole numbers."""

    name: str
    names_bf16: bool
    finds_bf16: bool
    finds_int8: bool = False


BF16 = Machine("bfloat16", True, True)
PLAIN = Machine("processor without bfloat16", False, False, True)
GPU = Machine("GPU without bfloat16", False, False)


@contextmanager
def as_on(machine: Machine) -> Iterator[None]:
    """Compute as that machine would."""
    before = model.fast_bf16, maps.fast_bf16, maps.fast_int8
    model.fast_bf16 = lambda device: machine.names_bf16
    maps.fast_bf16 = lambda device: machine.finds_bf16
    maps.fast_int8 = lambda device: machine.finds_int8
    try:
        yield
    finally:
        model.fast_bf16, maps.fast_bf16, maps.fast_int8 = before


def counted(images: Sequence[Path], machine: Machine, boxes: str) -> pd.DataFrame:
    """The cells of the images, as that machine would count them."""
    with as_on(machine):
        return count([str(image) for image in images], load_model("default", "cpu"), boxes, "cpu").cells


def differences(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, int, int]:
    """Of the cells in both: largest difference of a probability, each; of how many the class differs; cells of one."""
    shares = [name for name in a if name.startswith("p_")]
    middle = [(t[["x_min", "y_min"]].to_numpy() + t[["x_max", "y_max"]].to_numpy()) / 2 for t in (a, b)]
    most, other, matched = [], 0, 0
    for i, (image, name) in enumerate(zip(a["image"], a["class"], strict=True)):
        gap = np.abs(middle[1] - middle[0][i]).max(1)
        gap[(b["image"] != image).to_numpy()] = np.inf
        if not len(gap) or gap.min() > NEAR:
            continue
        j = int(gap.argmin())
        matched += 1
        most.append(float(np.abs(a[shares].iloc[i].to_numpy() - b[shares].iloc[j].to_numpy()).max()))
        other += name != b["class"].iloc[j]
    return np.array(most), other, len(a) + len(b) - 2 * matched


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of ``docs/speed.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of VOC fields, such as bccd")
    parser.add_argument("-n", type=int, default=120, help="images")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = sorted((given.folder / "JPEGImages").iterdir())[: given.n]
    print("| boxes | two machines | cells | largest difference | above 0.01 | other class | in one only |")
    print("|---|---|---|---|---|---|---|")
    for boxes, pairs in (("xml", ((BF16, GPU),)), ("find", ((BF16, GPU), (BF16, PLAIN), (PLAIN, GPU)))):
        cache: dict[Machine, pd.DataFrame] = {}
        for pair in pairs:
            for machine in pair:
                cache.setdefault(machine, pd.DataFrame())
                if cache[machine].empty:
                    cache[machine] = counted(images, machine, boxes)
            most, other, alone = differences(*(cache[machine] for machine in pair))
            figures = f"{most.max():.3f} | {100 * (most > 0.01).mean():.1f} % | {other} | {alone}"
            print(f"| {boxes} | {pair[0].name}, {pair[1].name} | {len(most)} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
