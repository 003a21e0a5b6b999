"""Coverage of the differential's intervals over simulated slides of real cells, written into ``docs/statistics.md``.

    python -m benchmarks.statistics [--model wbc5] [--data ../shared/data] [--slides 1000]

The model classifies all held-out cells (``cells.py``; minutes), slides are made of them (``slides.py``), and the
tables go between the markers of the page.  ``--again`` takes the calls of the last time: then neither data nor model
is needed.  What each case is stands on the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.cells import Calls, calls_of, read_calls, write_calls
from benchmarks.statistics.slides import ALL, Coverage, Simulation, Validation, simulate
from napari_bloodcells.core.bundle import read_info
from napari_bloodcells.core.report.inputs import confusion_of

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "statistics.md"
BEGIN = "<!-- coverage: written by python -m benchmarks.statistics, do not edit -->"
END = "<!-- end of coverage -->"
MOST = 60
"""Cells of one class of one source, as in the bundle."""
WORTH = 40
"""A source with fewer held-out cells makes no slides of its own."""
LEFT_OUT = "left out"
TOGETHER = "taken together"


def cases(calls: Calls, model: str, how: Simulation) -> list[Coverage]:
    """All lines, case by case."""
    info = read_info(model)
    names = info.class_names
    n = len(names)
    lines = []

    def run(case: str, validation: Validation, cells: Calls, settings: Simulation = how) -> None:
        start = time.perf_counter()
        lines.extend(simulate(case, names, validation, cells.matrix(n), settings))
        last = lines[-1]
        print(f"{case}: naive {last.naive:.3f}, corrected {last.corrected:.3f}, {time.perf_counter() - start:.0f} s")
        sys.stdout.flush()

    run("own microscope", calls.of("pbc", "validation").matrix(n)[:, :n], calls.of("pbc", "test"))
    pool = calls.at_most(MOST)
    run("redrawn", lambda rng: _redrawn(pool, rng).matrix(n)[:, :n], pool)
    shipped = confusion_of(info)
    for source in ("pbc", "bccd"):
        if shipped is not None:
            run(f"as shipped, {source}", shipped, calls.of(source, "test"))
    sources = [str(s) for s in dict.fromkeys(calls.source.tolist())]
    few = Simulation(max(1, how.slides // 5), how.cells, how.seed)
    for source in sources:
        cells = calls.of(source)
        if len(cells.truth) >= WORTH:
            others = _others(calls, source, sources, n)
            run(f"{LEFT_OUT}, {source}", others, cells, few)
            run(f"{LEFT_OUT}, {source}, {TOGETHER}", others.sum(0), cells, few)
    return lines


def _redrawn(pool: Calls, rng: np.random.Generator) -> Calls:
    """As many groups of original cells as the pool has, drawn anew from it."""
    key = np.unique(np.char.add(pool.source, pool.group.astype(str)), return_inverse=True)[1]
    times = np.bincount(rng.integers(0, key.max() + 1, key.max() + 1), minlength=key.max() + 1)
    return pool.take(np.repeat(np.arange(len(key)), times[key]))


def _others(calls: Calls, source: str, sources: Sequence[str], n: int) -> NDArray[np.int64]:
    """(S - 1, C, C) validation cells of all other sources."""
    return np.stack([calls.of(s, "validation").at_most(MOST).matrix(n)[:, :n] for s in sources if s != source])


def markdown(lines: Sequence[Coverage], calls: Calls, model: str, how: Simulation) -> str:
    """What stands between the markers."""
    info = read_info(model)
    text = [
        f"Weights `{info.name}` {info.sha256[:12]}, {len(calls.truth):,} held-out cells of "
        f"{len(set(calls.source.tolist()))} sources, {int((calls.called < 0).sum())} of them left unidentified; slides "
        f"of {how.cells} cells.",
        "",
        "| case | class | intervals | naive holds | corrected holds | naive width | corrected width | naive bias | "
        "corrected bias |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in lines:
        if c.case.startswith(LEFT_OUT) and c.name != ALL:
            continue
        held = f"{100 * c.naive:.1f} % | {100 * c.corrected:.1f} %"
        width = f"{c.naive_width:.1f} | {c.corrected_width:.1f}"
        name = f"**{c.name}**" if c.name == ALL else c.name
        bias = f"{c.naive_bias:+.2f} | {c.corrected_bias:+.2f}"
        text.append(f"| {c.case} | {name} | {c.intervals:,} | {held} | {width} | {bias} |")
    for together in (False, True):
        part = [c for c in lines if c.case.startswith(LEFT_OUT) and c.name == ALL and (TOGETHER in c.case) == together]
        if part:
            case = f"{LEFT_OUT}, mean of {len(part)} sources" + (f", {TOGETHER}" if together else "")
            held = [100 * float(np.mean([getattr(c, of) for c in part])) for of in ("naive", "corrected")]
            width = [float(np.mean([getattr(c, of) for c in part])) for of in ("naive_width", "corrected_width")]
            text.append(
                f"| {case} | **{ALL}** | {sum(c.intervals for c in part):,} | {held[0]:.1f} % | {held[1]:.1f} % | "
                f"{width[0]:.1f} | {width[1]:.1f} | | |"
            )
    return "\n".join(text) + "\n"


def into_page(page: str, text: str) -> str:
    """``page`` with ``text`` between the markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.statistics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="wbc5")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--again", action="store_true", help="take calls.csv instead of classifying")
    parser.add_argument("--slides", type=int, default=1000, help="of each case; a fifth of each source left out")
    parser.add_argument("--cells", type=int, default=200, help="of a slide")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for calls.csv and coverage.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    how = Simulation(given.slides, given.cells)
    given.output.mkdir(parents=True, exist_ok=True)
    if given.again:
        calls = read_calls(given.output / "calls.csv")
    else:
        calls = calls_of(given.model, given.data)
        write_calls(calls, given.output / "calls.csv")
    lines = cases(calls, given.model, how)
    info = read_info(given.model)
    result = {"model": info.name, "sha256": info.sha256, "simulation": asdict(how), "lines": [asdict(c) for c in lines]}
    (given.output / "coverage.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = markdown(lines, calls, given.model, how)
    print(text, end="")
    given.page.write_text(into_page(given.page.read_text("utf-8"), text), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
