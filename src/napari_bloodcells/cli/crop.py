"""``crop``: the cells of a data set as small images in folders named after their class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def crop(
    data: Annotated[Path, typer.Argument(help="Folder of labeled photographs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the class folders.")],
    size: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16, max=1024)] = 80,
    side_um: Annotated[float, typer.Option(help="Side of a crop in micrometers.", min=1, max=200)] = 20.0,
    scheme: Annotated[str, typer.Option(help="Class scheme (wbc4, wbc5, pbc8) or a JSON file of your own.")] = "",
    white: Annotated[bool, typer.Option(help="Divide by the white of the empty ground.")] = True,
) -> None:
    """Cut the cells of a data set into folders, one a class.

    Data sets of single cells are cut too.  Cells without a label go to the folder "unlabeled".
    """
    from napari_bloodcells.core.cropfolder import write_crops
    from napari_bloodcells.core.crops import CropSpec
    from napari_bloodcells.core.datasets import load_dataset

    dataset = load_dataset(data, scheme or None)
    spec = CropSpec(size=size, side_um=side_um, white=white)
    with typer.progressbar(length=len(dataset.samples), label="Cutting") as bar:
        written = write_crops(dataset, spec, output, advance=bar.update)
    for problem in written.problems:
        typer.echo(f"Warning: {problem}", err=True)
    for name, number in written.counts.items():
        typer.echo(f"{name:24s} {number:6d}")
    typer.echo(f"{sum(written.counts.values())} crops of {data} are in {output}")
    if written.failed:
        raise typer.Exit(3)
