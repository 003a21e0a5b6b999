"""Fuzzing of the readers that meet files of strangers: VOC XML, cells tables, class schemes and model bundles (the
file as a whole, the JSON in its head, and the metadata beside it).

    python -m benchmarks.reliability.fuzz voc --inputs 1000000          plain seeded mutation, runs anywhere
    python -m benchmarks.reliability.fuzz voc --atheris --seconds 600       coverage-guided (pip install atheris)

A target takes bytes and may raise nothing but ``BloodcellsError``; whatever else escapes is printed with the input
that caused it, kept as ``crash-TARGET-HASH`` in the current folder, and becomes a line of ``tests/reliability``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.annotations import EXTERNAL, GOOD, voc

Target = Callable[[bytes], None]
CORPUS = Path(__file__).with_name("corpus")
"""Where atheris begins, beside ``SEEDS``: one small input for every answer of a reader in a long run."""

CELLS = (
    "image,cell,x_min,y_min,x_max,y_max,class,confidence,p_neutrophil,p_lymphocyte,box_source\r\n"
    "a/field 1.jpg,1,10,20,90.5,100,neutrophil,0.9312,0.9312,0.0688,xml\r\n"
    "'=b.jpg,2,0,0,64,64,unidentified,0.51,0.49,0.51,found\r\n"
)
SCHEME = {"name": "mine", "classes": [{"name": "blast", "key": "b", "aliases": ["blasts"], "kind": "wbc"}]}


METADATA = {
    **{"name": "mine", "arch": "stainnet", "input_size": [80, 80], "temperature": 1.1},
    "options": {"width": 64, "depth1": 1, "dropout": 0.1},
    "sha256": "a1cfa5c6f300f0365128045082ad0c5882572110dff3bda1299823fc3471cca6",  # of HEADER's tensor, all zeros
    "scheme": {"name": "mine", "classes": [{"name": "blast", "key": "b"}, {"name": "lymphocyte", "color": "#0072B2"}]},
    "crop": {"size": 80, "side_um": 20.0, "context": 1.43, "scale": "um", "white": True},
    "confusion": [[12, 1], [0, 9]],
    "training": [{"source": "pbc", "counts": {"blast": 12}}],
    "metrics": [{"name": "recall", "of": "blast", "value": 0.9, "low": 0.8, "high": 1.0, "n": 12}],
    "recipe": {"epochs": 3, "optimizer.lr": 0.001},
}
HEADER = {
    "__metadata__": {"bloodcells": json.dumps(METADATA)},
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
}


def as_bundle(header: bytes) -> bytes:
    """A safetensors file with this header and one tensor of zeros."""
    return len(header).to_bytes(8, "little") + header + bytes(8)


SEEDS: dict[str, tuple[bytes, ...]] = {
    "voc": (
        voc(GOOD).encode(),
        voc(GOOD, (1, 2, 3, 4), head='<?xml version="1.0"?>').encode(),
        voc(head=EXTERNAL).encode(),
    ),
    "cells": (CELLS.encode(), CELLS.replace("0.9312", "nan").encode()),
    "scheme": (json.dumps(SCHEME).encode(),),
    "bundle": (as_bundle(json.dumps(HEADER).encode()), as_bundle(json.dumps({"a": HEADER["a"]}).encode())),
    "header": (json.dumps(HEADER).encode(),),
    "metadata": (json.dumps(METADATA).encode(),),
}
DICTIONARY = (
    b"<object>", b"</object>", b"<bndbox>", b"&amp;", b"&x;", b"<!ENTITY", b"<![CDATA[", b"]]>", b"NaN", b"inf",
    b"-1", b"1e308", b"9" * 40, b'"', b",", b"\r\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"=1+1", b"{", b"}",
    b"[" * 40, b"null", b"\\ud800", b"unidentified", b"x_min", b"__metadata__", b"data_offsets",
)  # fmt: skip


def readers() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """The readers by target, and the name of the file that each is given."""
    from napari_bloodcells.core.bundle import load_model, read_info
    from napari_bloodcells.core.classes import load_scheme
    from napari_bloodcells.core.counting.cellstable import read_cells
    from napari_bloodcells.core.voc import read_voc

    return {
        "voc": ("input.xml", read_voc),
        "cells": ("input.csv", read_cells),
        "scheme": ("input.json", load_scheme),
        "bundle": ("input.safetensors", lambda path: load_model(path, device="cpu")),
        "header": ("input.safetensors", lambda path: load_model(path, device="cpu")),
        "metadata": ("model.json", lambda path: read_info(path.parent)),
    }


def make_target(name: str) -> Target:
    """The function that feeds bytes to one reader; only ``BloodcellsError`` is allowed out of the reader."""
    from napari_bloodcells.core.errors import BloodcellsError

    file, reader = readers()[name]
    memory = Path("/dev/shm")  # spares the disk where there is one
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    path = folder / file

    def target(data: bytes) -> None:
        path.write_bytes(as_bundle(data) if name == "header" else data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader(path)
        except BloodcellsError as error:
            text = str(error)
            if "\n" in text or not text:
                raise AssertionError(f"the error is not one line: {text!r}") from error

    return target


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to eight random edits of ``data``: bits, cuts, copies, and words of ``DICTIONARY``."""
    body = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(body) + 1)
        kind = rng.randrange(5)
        if kind == 0 and body:
            body[at % len(body)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del body[at : at + rng.randint(1, 40)]
        elif kind == 2:
            body[at:at] = body[at : at + rng.randint(1, 200)]
        elif kind == 3:
            body[at:at] = rng.choice(DICTIONARY)
        else:
            body[at : at + rng.randint(1, 8)] = rng.choice(DICTIONARY)
    return bytes(body)


def fuzz(name: str, inputs: int, seed: int = 0) -> tuple[int, float]:
    """Feed ``inputs`` mutations to the target ``name``; returns crashes and the slowest input (s)."""
    target, rng = make_target(name), random.Random(seed)
    target(SEEDS[name][0])  # imports all that the reader needs
    crashes, slowest = 0, 0.0
    for _ in range(inputs):
        data = mutate(rng.choice(SEEDS[name]), rng)
        started = time.perf_counter()
        try:
            target(data)
        except Exception as error:  # the point of the exercise: anything but BloodcellsError is a finding
            crashes += 1
            kept = Path(f"crash-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
            kept.write_bytes(data)
            print(f"{kept}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        slowest = max(slowest, time.perf_counter() - started)
    return crashes, slowest


def fuzz_with_atheris(name: str, inputs: int, seconds: int, found: Path) -> None:
    """The same with coverage feedback, from the committed corpus on; atheris ends the process itself, and at once with
    the first crash.  Inputs that reach something new are kept in the folder ``found``."""
    import atheris

    with atheris.instrument_imports(include=["napari_bloodcells", "defusedxml"]):
        target = make_target(name)
        for data in SEEDS[name]:
            target(data)  # so that what a reader imports on the way is instrumented too
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(SEEDS[name]):
        (found / f"seed-{number}").write_bytes(data)
    words = found.with_name(f"{found.name}.dict")
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in DICTIONARY)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    limits = [f"-runs={inputs}", f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=3000"]
    folders = [os.fspath(folder) for folder in (found, CORPUS / name) if folder.is_dir()]
    atheris.Setup([sys.argv[0], *limits, f"-dict={words}", "-print_final_stats=1", *folders], target)
    atheris.Fuzz()


def main() -> int:
    """Fuzz one target from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", choices=sorted(SEEDS))
    parser.add_argument(
        "--inputs", type=int, help="how many (default: 100,000; with atheris as many as there is time for)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="coverage-guided; needs atheris")
    parser.add_argument("--seconds", type=int, default=0, help="with atheris: how long (default: without end)")
    parser.add_argument("--found", type=Path, help="with atheris: folder for inputs that reach something new")
    options = parser.parse_args()
    if options.atheris:
        found = options.found or Path(tempfile.mkdtemp(prefix="fuzz-")) / options.target
        fuzz_with_atheris(options.target, options.inputs or -1, options.seconds, found)
        return 0
    started = time.monotonic()
    inputs = options.inputs or 100_000
    crashes, slowest = fuzz(options.target, inputs, options.seed)
    seconds = time.monotonic() - started
    print(f"{options.target}: {inputs} inputs, {crashes} crashes, slowest {slowest:.2f} s, {seconds:.0f} s in all")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
