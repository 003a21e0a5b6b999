"""What ``count`` prints of its differentials: a line per sample, the table of all, what stands apart, the remarks.

The percents are formatted from the unrounded shares, as the report page formats them, not from those that
``differential.csv`` rounds to two decimals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from napari_bloodcells.core.differential import WHOLE_FOLDER, Differential, differentials, sample_of, slides_in
from napari_bloodcells.core.statistics.remarks import remarks
from napari_bloodcells.core.statistics.unnamed import unnamed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from napari_bloodcells.core.counting.result import CountResult

SHOWN_SAMPLES = 20
"""So many samples have a line and their remarks in the terminal; all are in ``differential.csv``."""


def show_differentials(console: Console, result: CountResult, format: str = "csv") -> None:
    """Print the differentials of a count; ``format`` is that of its tables, whose names are given."""
    from rich.markup import escape

    *samples, whole = differentials(result.cells, result.scheme, result.images, slides=slides_in(result.run))
    several = len(samples) > 1
    if several:
        console.print(_lines(samples[:SHOWN_SAMPLES]))
        if len(samples) > SHOWN_SAMPLES:
            console.print(f"... and {len(samples) - SHOWN_SAMPLES} more: differential.{format}")
    if whole.total:
        console.print(_table(whole, f"All {len(samples)} samples together" if several else "Differential count"))
    apart = [
        f"{part.shown} {part.count}" + (f" ({part.shown_rate})" if part.shown_rate else "")
        for part in whole.apart
        if part.count
    ]
    if apart:
        console.print(f"Apart: {escape(', '.join(apart))}")
    if whole.of_platelets:
        console.print(escape(whole.of_platelets), soft_wrap=True)
    if cannot := unnamed(result.scheme):
        console.print(escape(cannot), soft_wrap=True)
    for remark in _remarks(result, samples[:SHOWN_SAMPLES] if several else [whole]):
        console.print(f"[yellow]Note:[/yellow] {escape(remark)}", soft_wrap=True)


def _lines(samples: list[Differential]) -> Table:
    """One line per sample: its name, its classified white cells, the percent of each class."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Samples, percent of the classified white cells", title_justify="left", box=None)
    table.add_column("sample", overflow="fold")
    for heading in ("cells", *(share.name for share in samples[0].shares)):
        table.add_column(escape(heading), justify="right")
    for block in samples:
        percents = [f"{share.percent:.1f}" if block.total else "-" for share in block.shares]
        table.add_row(escape(block.sample), str(block.total), *percents)
    return table


def _table(block: Differential, title: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption="95 % interval: exact binomial")
    table.add_column("class")
    for heading in ("cells", "%", "95 % interval"):
        table.add_column(heading, justify="right")
    for share in block.shares:
        interval = f"{share.low:.1f} - {share.high:.1f}"
        table.add_row(escape(share.name), str(share.count), f"{share.percent:.1f}", interval)
    return table


def _remarks(result: CountResult, blocks: list[Differential]) -> Iterator[str]:
    """The remarks of each block, its sample named unless it is the whole folder.

    What was worked around in the files is told at the end of the run, so it is not told here too.
    """
    cells, images = (
        table.assign(_sample=[sample_of(str(name)) for name in table["image"]])
        for table in (result.cells, result.images.drop(columns="warnings", errors="ignore"))
    )
    for block in blocks:
        if block.sample == WHOLE_FOLDER:
            yield from remarks(block, cells, images)
            continue
        of_sample = (table[table["_sample"] == block.sample] for table in (cells, images))
        yield from (f"{block.sample}: {remark}" for remark in remarks(block, *of_sample))
