"""``bloodcells-batch compare``: two counts of the same smears, cell by cell and percent by percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_bloodcells.core.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.statistics.compare import Comparison


def compare(
    a: Annotated[Path, typer.Argument(help="First count: its output folder, or a cells.csv.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Second count: its output folder, or a cells.csv.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for tables and plots.", show_default=False)
    ] = None,
    min_iou: Annotated[
        float, typer.Option("--min-iou", help="Overlap from which two boxes are the same cell (0 to 1).")
    ] = 0.3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of a former comparison.")] = False,
) -> None:
    """Compare two counts of the same images: two reviewers, or the machine against a reviewer.

    Prints agreement per class with Cohen's kappa, and for each class whether the difference of the percents lies
    within what chance explains (Rümke).  With -o also Bland-Altman and Passing-Bablok, as tables and plots.
    """
    from napari_bloodcells.core.counting.cellstable import read_cells
    from napari_bloodcells.core.counting.output import read_table
    from napari_bloodcells.core.report.inputs import scheme_of
    from napari_bloodcells.core.statistics.compare import common_scheme
    from napari_bloodcells.core.statistics.compare import compare as compare_tables

    if not 0 < min_iou <= 1:
        raise UsageError(f"--min-iou {min_iou:g}: lies above 0 and is at most 1.")
    files = [_table(path) for path in (a, b)]
    tables = [read_table(file) if file.suffix in (".json", ".parquet") else read_cells(file) for file in files]
    schemes = [scheme_of(table) for table in tables]
    scheme = common_scheme(*schemes)
    found = compare_tables(tables[0], tables[1], scheme, min_iou=min_iou)
    _show(found)
    for line in _beside(tables, schemes):
        typer.echo(line)
    if output is not None:
        from rich.console import Console
        from rich.markup import escape

        from napari_bloodcells.core.statistics.compareplots import write_comparison

        write_comparison(found, scheme, output, (a.name, b.name), overwrite=overwrite)
        Console(highlight=False).print(f"Results: {escape(str(output))}", soft_wrap=True)


def _table(path: Path) -> Path:
    from napari_bloodcells.core.counting.output import find_table

    return (find_table(path, "cells") or path / "cells.csv") if path.is_dir() else path


def _beside(tables: Sequence[pd.DataFrame], schemes: Sequence[ClassScheme]) -> Iterator[str]:
    """Lines on what the percents do not show: classes that one count cannot name, and how many cells were reviewed."""
    for letter, other, mine, theirs in (("A", "B", *schemes), ("B", "A", *schemes[::-1])):
        missing = [name for name in theirs.names if name not in mine.names]
        if missing:
            yield f"Classes of {other} that {letter} does not have, so that its 0 says nothing: {', '.join(missing)}."
    for letter, table in zip("AB", tables, strict=True):
        if "reviewed" in table:
            yield f"{letter}: {int(table['reviewed'].sum())} of {len(table)} cells were reviewed."


def _show(found: Comparison) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    cells = Table(title=f"{found.matched} cells in both", title_justify="left")
    cells.add_column("class")
    for heading in ("A", "B", "both", "agreement", "95 % interval"):
        cells.add_column(heading, justify="right")
    for row in found.agreement:
        interval = f"{100 * row.low:.1f} - {100 * row.high:.1f}"
        agreed = f"{100 * row.agreement:.1f} %"
        cells.add_row(escape(row.name), str(row.a), str(row.b), str(row.both), agreed, interval)
    console.print(cells)
    if found.only_a or found.only_b:
        console.print(f"Without a partner: {found.only_a} of A, {found.only_b} of B.")
    kappa = found.kappa
    if kappa.value == kappa.value:
        console.print(f"Cohen's kappa {kappa.value:.3f} (95 % {kappa.low:.3f} to {kappa.high:.3f}), {kappa.n} cells.")
    percents = Table(title="Differentials, all fields", title_justify="left", caption="Rümke: explained by chance?")
    percents.add_column("class")
    for heading in ("A %", "B %", "difference", "p", "Rümke"):
        percents.add_column(heading, justify="right")
    for row in found.differences:
        if row.sample != "all":
            continue
        gap = f"{row.percent_b - row.percent_a:+.1f}"
        verdict = "within" if row.within else "[bold]outside[/bold]"
        shown = (f"{row.percent_a:.1f}", f"{row.percent_b:.1f}", gap, f"{row.p_value:.3f}", verdict)
        percents.add_row(escape(row.name), *shown)
    console.print(percents)
    outside = [d for d in found.differences if d.sample != "all" and not d.within]
    for row in outside[:10]:
        console.print(f"{escape(row.sample)}: {escape(row.name)} {row.percent_a:.1f} against {row.percent_b:.1f} %.")
