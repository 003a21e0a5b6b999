"""``bloodcells-batch adapt``: a model fitted to your own microscope by cells that nobody labeled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_bloodcells.cli.common import DeviceOption
from napari_bloodcells.cli.progress import TerminalProgress
from napari_bloodcells.cli.reporting import ImagesOption


def adapt(
    model: Annotated[str, typer.Argument(help="Name of an installed model (default: the shipped one), or a folder.")],
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of your photographs, or the results of a count: 50 cells or more, of several patients."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the new model: new or empty.")],
    images: ImagesOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Fit a model to your own microscope with cells that nobody labeled, in seconds.

    The middle of each class is moved to where your cells lie.  That helped on most microscopes that the model had never
    seen, and nobody knows how much on yours before cells of it are labeled (evaluate).  Take cells of several patients:
    where nearly all are of one class, the others cannot be seen.  The model it came from is not changed.
    Use the new model with count --model FOLDER.
    """
    from rich.console import Console
    from rich.table import Table

    from napari_bloodcells.core.adapt import adapt as adapt_core

    with TerminalProgress({"counting": "Finding cells"}) as progress:
        found = adapt_core(model, list(data), output, images=images, device=device, progress=progress)
    n = sum(found.after.values())
    table = Table(title=f"{n} cells of your microscope", title_justify="left")
    for column in ("class", "before", "after"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, count in found.after.items():
        table.add_row(name, str(found.before[name]), str(count))
    console = Console()
    console.print(table)
    console.print(f"{found.n_changed} of {n} cells have another class now.", soft_wrap=True)
    if found.n_strange:
        console.print(f"{found.n_strange} were left out: unlike anything in the training.", soft_wrap=True)
    if found.one_sided:
        console.print(
            f"Nearly all are called {found.one_sided}: take other patients too, or the others may be told worse.",
            soft_wrap=True,
        )
    console.print(
        f"Written: {found.output}. Look at some cells (count --report), or label a few (evaluate).", soft_wrap=True
    )
