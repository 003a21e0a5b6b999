"""``bloodcells-batch evaluate``: how well a model does on labeled cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_bloodcells.cli.common import DeviceOption
from napari_bloodcells.cli.progress import TerminalProgress


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of an installed model (default: the shipped one), or a folder.")],
    data: Annotated[list[Path], typer.Argument(help="Folder of labeled cells; several are taken together.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the report to this JSON file.")
    ] = None,
    boxes: Annotated[
        str, typer.Option("--boxes", help="auto: the boxes of the data set; find: find the cells, as in a count.")
    ] = "auto",
    part: Annotated[str | None, typer.Option("--part", help="Only this part of the data set, such as TEST.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure a model on labeled cells: each figure with its 95 % interval, copies of one cell taken as one."""
    from rich.console import Console
    from rich.markup import escape

    from napari_bloodcells import evaluate as evaluate_core
    from napari_bloodcells.cli.scores import percent, scores_table
    from napari_bloodcells.core.errors import OutputError
    from napari_bloodcells.core.files import make_folder

    if output is not None:  # before the evaluation, not after
        if output.exists():
            raise OutputError(f"{output}: is already there and is not overwritten; give another name with -o.")
        make_folder(output.parent)
    with TerminalProgress() as progress:
        found = evaluate_core(model, list(data), boxes=boxes, part=part, device=device, progress=progress)
    console = Console()
    console.print(scores_table(found.scores, f"cells of {', '.join(found.data)}, {found.scores.groups} originals"))
    share = f"{found.identified.n} of {found.scores.n} cells identified"
    if found.identified.n:
        console.print(f"{share}; of these right: {percent(found.identified['accuracy'])}", soft_wrap=True)
    else:
        console.print(f"{share}: all are beyond the model's limits (models info {escape(model)}).", soft_wrap=True)
    for reason, n in found.left_out.items():
        console.print(f"Left out: {n} cells, {reason}.", soft_wrap=True)
    if output is not None:
        found.to_json(output)
        console.print(f"Written: {output}", soft_wrap=True)
