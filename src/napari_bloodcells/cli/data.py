"""``data``: list the public data sets, bring one here, and say what a folder of data holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(no_args_is_help=True, help="List, fetch or look into public data sets.", rich_markup_mode=None)


@data_app.command("list")
def list_data() -> None:
    """List the public data sets, and which of them can be downloaded."""
    from rich.console import Console
    from rich.table import Table

    from napari_bloodcells.core.sources import sources

    table = Table("name", "what", "license", "fetch")
    for source in sources():
        table.add_row(source.name, source.title, source.license, "download" if source.url else "mirror only")
    Console().print(table)
    typer.echo('"mirror only": get it by hand, then: bloodcells-batch data fetch NAME --mirror FOLDER')
    for source in sources():
        typer.echo(f"{source.name}: {source.home}\n    {source.note}")


@data_app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="Name of the data set (see: data list).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New folder for it.  [default: NAME]")] = None,
    mirror: Annotated[Path | None, typer.Option(help="Copy it from this folder instead of the network.")] = None,
) -> None:
    """Bring a public data set here; every file is checked against its known SHA-256."""
    from napari_bloodcells.core.sources import fetch, find_source, known_files

    source = find_source(name)
    length = source.files if mirror or not source.url else len(known_files(source.name))
    with typer.progressbar(length=length, label=source.name) as bar:
        folder = fetch(source.name, output or Path(source.name), mirror=mirror, advance=bar.update)
    typer.echo(f"{source.name} is in {folder} ({source.license}; {source.home})")
    if mirror is None:
        typer.echo(source.note)


@data_app.command("info")
def data_info(folder: Annotated[Path, typer.Argument(help="Folder of labeled photographs.")]) -> None:
    """Say what a folder of data holds: layout, cells of each class, originals, defects."""
    from napari_bloodcells.core.datasets import load_dataset

    dataset = load_dataset(folder)
    labeled = sum(dataset.counts().values())
    typer.echo(f"{dataset.name}: read as {dataset.reader}; {len(dataset)} cells, {labeled} with a label,")
    typer.echo(f"{len(set(dataset.groups))} originals or slides, {len(dataset.fields)} fields with boxes")
    for label, number in dataset.counts().items():
        typer.echo(f"    {label:24s} {number:6d}")
    for problem in dataset.problems:
        typer.echo(f"    {problem}")
