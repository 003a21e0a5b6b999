"""``bloodcells-batch compare``: two counts of the same smears, cell by cell and percent by percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.files import display_name, keeps_path

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme
    from napari_bloodcells.core.statistics.compare import Comparison

_SHOWN_IMAGES = 5
_CLEAR = 0.05
"""p below which it is said that one of the two gives a class more often; that of the intervals (95 %)."""


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

    The images that both counted take part, also where one found no cell (images.csv beside the cells says which).
    Prints agreement per class with Cohen's kappa, which classes one of the two gives more often to the same cells
    (McNemar), and for each class whether two counts of different cells may differ so by chance (Rümke).  With -o also
    Bland-Altman and Passing-Bablok, as tables and plots.
    """
    from napari_bloodcells.core.report.inputs import scheme_of
    from napari_bloodcells.core.statistics.compare import common_scheme
    from napari_bloodcells.core.statistics.compare import compare as compare_tables

    if not 0 < min_iou <= 1:
        raise UsageError(f"--min-iou {min_iou:g}: lies above 0 and is at most 1.")
    files = [_table(path) for path in (a, b)]
    tables = [_cells(file) for file in files]
    schemes = [scheme_of(table) for table in tables]
    scheme = common_scheme(*schemes)
    counted = tuple(_counted(file, table) for file, table in zip(files, tables, strict=True))
    found = compare_tables(tables[0], tables[1], scheme, min_iou=min_iou, images=(counted[0], counted[1]))
    _show(found)
    for line in _left_out(found, counted):
        typer.echo(line)
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


@keeps_path
def _cells(file: Path) -> pd.DataFrame:
    """The cells of a count; ``AnnotationError`` where the file is no table of them."""
    from napari_bloodcells.core.counting.cellstable import check_cells, read_cells
    from napari_bloodcells.core.counting.output import read_table

    table = read_table(file) if file.suffix in (".json", ".parquet") else read_cells(file)
    check_cells(table, display_name(file))
    return table


def _counted(file: Path, cells: pd.DataFrame) -> list[str] | None:
    """The images that a count read, by the table beside its cells; None without one, or with that of another count."""
    from napari_bloodcells.core.counting.cells import OK
    from napari_bloodcells.core.counting.output import find_table, read_table

    beside = find_table(file.parent, "images", file.suffix.removeprefix(".")) if file.stem == "cells" else None
    if beside is None:
        return None
    images = read_table(beside)
    if not {"image", "status"} <= set(images.columns):
        raise UsageError(f"{file.parent.name}/{beside.name}: has no columns image and status; count again.")
    names = [str(name) for name in images.loc[images["status"] == OK, "image"]]
    return names if set(cells["image"]) <= set(names) else None


def _left_out(found: Comparison, counted: Sequence[Sequence[str] | None]) -> Iterator[str]:
    """Lines on the images that only one of the two counted."""
    sides = (("A", "B", found.left_out_a, counted[1]), ("B", "A", found.left_out_b, counted[0]))
    for letter, other, left, known in sides:
        if not left.images:
            continue
        n, more = len(left.images), ", ..." if len(left.images) > _SHOWN_IMAGES else ""
        what = f"{n} image{'' if n == 1 else 's'} with {left.cells} cell{'' if left.cells == 1 else 's'} of {letter}"
        why = f"{other} did not count" if known is not None else f"{other} has no cell of (no images.csv beside it)"
        yield f"Left out: {what} that {why}: {', '.join(left.images[:_SHOWN_IMAGES])}{more}"


def _beside(tables: Sequence[pd.DataFrame], schemes: Sequence[ClassScheme]) -> Iterator[str]:
    """Lines on what the percents do not show: classes that one count cannot name, and how many cells were reviewed."""
    for letter, other, mine, theirs in (("A", "B", *schemes), ("B", "A", *schemes[::-1])):
        missing = [name for name in theirs.names if name not in mine.names]
        if missing:
            yield f"Classes of {other} that {letter} does not have, so that its 0 says nothing: {', '.join(missing)}."
    for letter, table in zip("AB", tables, strict=True):
        if "reviewed" in table:
            yield f"{letter}: {int(table['reviewed'].sum())} of {len(table)} cells were reviewed."


def _same_cells(found: Comparison) -> Iterator[str]:
    """Lines on the classes that one of the two gives more often to the same cells (McNemar, adjusted after Holm)."""
    if not found.matched:
        return
    cells = f"Of the {found.matched} cells in both,"
    clear = [row for row in found.agreement if row.mcnemar_p_holm < _CLEAR]
    for row in clear:
        often = "less" if row.b < row.a else "more"
        alone = f"{row.a - row.both} by A alone, {row.b - row.both} by B alone"
        yield f"{cells} B says {row.name} {often} often: {alone} (McNemar, p {_p(row.mcnemar_p_holm)} after Holm)."
    if not clear:
        least = _p(min(row.mcnemar_p_holm for row in found.agreement))
        yield f"{cells} neither says any class more often than chance explains (McNemar, least p {least} after Holm)."


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


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
    for line in _same_cells(found):
        console.print(escape(line), soft_wrap=True)
    caption = "p, Rümke: may two counts of different cells differ so?"
    percents = Table(title="Differentials, all fields", title_justify="left", caption=caption)
    percents.add_column("class")
    for heading in ("A %", "B %", "difference", "p", "Rümke"):
        percents.add_column(heading, justify="right")
    for row in found.differences:
        if row.sample != "all":
            continue
        if row.within is None:  # one of them found nothing at all
            shown = (*("-" if isnan(v) else f"{v:.1f}" for v in (row.percent_a, row.percent_b)), "-", "-", "-")
        else:
            gap = f"{row.percent_b - row.percent_a:+.1f}"
            verdict = "within" if row.within else "[bold]outside[/bold]"
            shown = (f"{row.percent_a:.1f}", f"{row.percent_b:.1f}", gap, _p(row.p_value), verdict)
        percents.add_row(escape(row.name), *shown)
    console.print(percents)
    outside = [d for d in found.differences if d.sample != "all" and d.within is False]
    for row in outside[:10]:
        console.print(f"{escape(row.sample)}: {escape(row.name)} {row.percent_a:.1f} against {row.percent_b:.1f} %.")
