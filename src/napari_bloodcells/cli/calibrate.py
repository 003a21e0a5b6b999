"""``bloodcells-batch calibrate``: a model fitted to your own microscope with a few labeled cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_bloodcells.cli.common import DeviceOption
from napari_bloodcells.cli.progress import TerminalProgress

CHANGED = {
    "nothing": "The classes were left as they were, as no change did better on cells that it had not seen; temperature "
    "and thresholds are new.",
    "means": "The middle of each class was moved to where your cells lie; temperature and thresholds are new.",
    "layer": "The last layer was refitted to your cells; temperature and thresholds are new.",
    "network": "The whole network was fitted to your cells; temperature and thresholds are new.",
}


def calibrate(
    model: Annotated[str, typer.Argument(help="Name of an installed model (default: the shipped one), or a folder.")],
    data: Annotated[
        list[Path], typer.Argument(help="Folder of labeled cells of your microscope: 5 or more, 100 are plenty.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the new model: new or empty.")],
    device: DeviceOption = "auto",
) -> None:
    """Fit a model to your own microscope with 5 to 100 labeled cells, in a minute or two.

    Last layer, network (from 20 cells on), temperature and thresholds are fitted anew, where cross-validation does not
    speak against it; it also tells what was gained.  The model it came from is not changed.
    A published test part among the cells is left out, so that it can still be used to measure.
    Use the new model with count --model FOLDER.
    """
    from rich.console import Console

    from napari_bloodcells.cli.scores import percent, scores_table
    from napari_bloodcells.core.calibrate import calibrate as calibrate_core

    with TerminalProgress() as progress:
        found = calibrate_core(model, list(data), output, device=device, progress=progress)
    console = Console()
    console.print(scores_table(found.after, "calibration cells, each judged without itself (cross-validation)"))
    before, after = found.before["accuracy"], found.after["accuracy"]
    console.print(f"Accuracy before {percent(before)}, after {percent(after)} in cross-validation.", soft_wrap=True)
    console.print(CHANGED[found.changed], soft_wrap=True)
    if found.missing:
        names = ", ".join(found.missing)
        console.print(f"No labeled cell of: {names}. Label a few of each, or they may be told worse.", soft_wrap=True)
    if found.by_slide:
        console.print(
            "Most cells are of a class that one slide alone gave: cells of more slides would help. So that it does not "
            "learn the slides, the network was left as it was.",
            soft_wrap=True,
        )
    console.print(f"Written: {found.output}", soft_wrap=True)
