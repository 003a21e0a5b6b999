"""What ``compare`` writes: tables, JSON, and the plots of Bland-Altman and Passing-Bablok, one panel per class."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from napari_bloodcells.core.counting.cellstable import neutralize_frame
from napari_bloodcells.core.errors import OutputError
from napari_bloodcells.core.files import make_folder, write_atomic
from napari_bloodcells.core.statistics.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_bloodcells.core.classes import ClassScheme

FILES = ("differences.csv", "agreement.csv", "confusion.csv", "comparison.json", "comparison.png")


def write_comparison(
    found: Comparison, scheme: ClassScheme, folder: Path | str, names: tuple[str, str], *, overwrite: bool = False
) -> list[Path]:
    """Write ``differences.csv``, ``agreement.csv``, ``confusion.csv``, ``comparison.json`` and ``comparison.png``.

    ``names`` are what A and B are called on the axes.

    Raises
    ------
    OutputError
        One of them is there already and ``overwrite`` is False, or the folder cannot be written.
    """
    import pandas as pd

    folder = Path(folder)
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder.name}: holds {there[0]} already; give another folder, or say --overwrite.")
    tables = {
        "differences.csv": pd.DataFrame([vars(d) for d in found.differences])
        .rename(columns={"name": "class"})
        .round(4),
        "agreement.csv": pd.DataFrame([vars(d) for d in found.agreement]).rename(columns={"name": "class"}).round(4),
        "confusion.csv": pd.DataFrame(found.confusion, columns=list(found.labels)),
    }
    tables["confusion.csv"].insert(0, "class", list(found.labels))
    make_folder(folder)
    files = {
        name: neutralize_frame(table).to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")
        for name, table in tables.items()
    }
    files["comparison.json"] = (json.dumps(found.to_json(), indent=1) + "\n").encode("utf-8", "backslashreplace")
    files["comparison.png"] = draw_comparison(found, scheme, names)
    return [write_atomic(folder / name, data, overwrite=overwrite) for name, data in files.items()]


def draw_comparison(found: Comparison, scheme: ClassScheme, names: tuple[str, str]) -> bytes:
    """The two plots of every white class over the samples, as PNG: agreement above, regression below."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = [entry.name for entry in found.bland_altman]
    figure = Figure(figsize=(2.9 * max(1, len(classes)), 5.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, max(1, len(classes)), squeeze=False)
    samples = [d for d in found.differences if math.isfinite(d.percent_a) and math.isfinite(d.percent_b)]
    alone = len({d.sample for d in samples}) == 1
    for column, name in enumerate(classes):
        rows = [d for d in samples if d.name == name and (alone or d.sample != "all")]
        points = [(d.percent_a, d.percent_b) for d in rows]
        _agreement_panel(axes[0][column], points, found, column, scheme.colors[name])
        _line_panel(axes[1][column], points, found, column, scheme.colors[name])
        axes[0][column].set_title(name, fontsize=10, loc="left", fontweight="bold")
        axes[0][column].set_xlabel("mean of both, %", fontsize=8)
        axes[1][column].set_xlabel(f"{names[0]}, %".replace("$", r"\$"), fontsize=8)
    axes[0][0].set_ylabel("B - A, percent points", fontsize=8)
    axes[1][0].set_ylabel(f"{names[1]}, %".replace("$", r"\$"), fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _agreement_panel(axis: Axes, points: list[tuple[float, float]], found: Comparison, place: int, color: str) -> None:
    axis.axhline(0, color="0.75", linewidth=0.8)
    axis.scatter(
        [(a + b) / 2 for a, b in points], [b - a for a, b in points], s=20, color=color, edgecolor="0.2", lw=0.5
    )
    fit = found.bland_altman[place]
    for value, style in ((fit.bias, "-"), (fit.lower, "--"), (fit.upper, "--")):
        if math.isfinite(value):
            axis.axhline(value, color="0.2", linewidth=1, linestyle=style)


def _line_panel(axis: Axes, points: list[tuple[float, float]], found: Comparison, place: int, color: str) -> None:
    fit = found.lines[place]
    top = max([max(pair) for pair in points], default=1) * 1.08 or 1
    axis.plot([0, top], [0, top], color="0.75", linewidth=0.8)
    axis.scatter([a for a, _ in points], [b for _, b in points], s=20, color=color, edgecolor="0.2", lw=0.5)
    if math.isfinite(fit.slope):
        axis.plot([0, top], [fit.intercept, fit.intercept + fit.slope * top], color="0.2", linewidth=1)
        axis.set_title(f"{fit.intercept:+.1f} + {fit.slope:.2f} A", fontsize=8, loc="right", color="0.3")
    axis.set_xlim(0, top)
    axis.set_ylim(0, top)
