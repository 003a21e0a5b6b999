"""``crop``: the cells of a data set or of a count as small images in folders named after their class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_bloodcells.cli.reporting import CorrectionsOption, ImagesOption


def crop(
    data: Annotated[Path, typer.Argument(help="Folder of labeled photographs, or the output folder of a count.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the class folders.")],
    size: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16, max=1024)] = 80,
    side_um: Annotated[float, typer.Option(help="Side of a crop in micrometers.", min=1, max=200)] = 20.0,
    scheme: Annotated[str, typer.Option(help="Class scheme (wbc4, wbc5, pbc8) or a JSON file of your own.")] = "",
    white: Annotated[bool, typer.Option(help="Divide by the white of the empty ground.")] = True,
    corrections: CorrectionsOption = None,
    images: ImagesOption = None,
) -> None:
    """Cut the cells of a data set into folders, one a class.

    Data sets of single cells are cut too.  Cells without a label go to the folder "unlabeled".

    Of a count (cells.csv, and images.csv for the scale) a cell goes to the class that a reviewer gave it, or else to
    the machine's; the name of its file says which.
    """
    from napari_bloodcells.core.classes import load_scheme
    from napari_bloodcells.core.countedcells import MACHINE, REVIEWED, holds_count, read_counted
    from napari_bloodcells.core.cropfolder import write_crops
    from napari_bloodcells.core.crops import CropSpec
    from napari_bloodcells.core.datasets import load_dataset
    from napari_bloodcells.core.errors import UsageError

    counted = read_counted(data, images, corrections or ()) if holds_count(data) else None
    if counted is None and (images is not None or corrections):
        raise UsageError(f"{data}: holds no cells of a count, which --images and --corrections are for.")
    dataset = load_dataset(data, scheme or None) if counted is None else counted.dataset
    if counted is not None and scheme:
        dataset = dataset.in_scheme(load_scheme(scheme))
    spec = CropSpec(size=size, side_um=side_um, white=white)
    known = {} if counted is None else {"names": counted.names, "sizes": counted.sizes}
    with typer.progressbar(length=len(dataset.samples), label="Cutting") as bar:
        written = write_crops(dataset, spec, output, advance=bar.update, **known)
    for problem in written.problems:
        typer.echo(f"Warning: {problem}", err=True)
    for name, number in written.counts.items():
        typer.echo(f"{name:24s} {number:6d}")
    if counted is not None:
        reviewed, others = counted.n_reviewed, len(counted.names) - counted.n_reviewed
        typer.echo(
            f"{reviewed} cells by the class of a reviewer (..._{REVIEWED}.png), {others} by that of the machine "
            f"(..._{MACHINE}.png), which may be wrong."
        )
    typer.echo(f"{sum(written.counts.values())} crops of {data} are in {output}")
    if written.failed:
        raise typer.Exit(3)
