"""``bloodcells-batch report``: the report pages of a finished count, with a reviewer's corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_bloodcells.cli.reporting import (
    AgeOption,
    CorrectionsOption,
    ImagesOption,
    IntervalsOption,
    RangesOption,
    SexOption,
    WbcOption,
    check_patient,
    report_options,
)


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a count.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the pages  [default: FOLDER]", show_default=False)
    ] = None,
    corrections: CorrectionsOption = None,
    images: ImagesOption = None,
    wbc: WbcOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    ranges: RangesOption = None,
    intervals: IntervalsOption = "binomial",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace pages also where the new ones lack corrections or pictures.")
    ] = False,
) -> None:
    """Write the report pages of a finished count, one per sample, and an index.

    With --corrections the classes that a reviewer gave count, and the machine's are kept beside them.
    Earlier pages are replaced, but not by pages without the corrections or the pictures that they have.
    --wbc, --age and --sex are of one patient: for several samples count each folder by itself.
    """
    from rich.console import Console
    from rich.markup import escape

    from napari_bloodcells.core.report.inputs import from_folder
    from napari_bloodcells.core.report.page import write_reports

    options = report_options(wbc, age, sex, ranges, intervals)
    data = from_folder(folder, images, corrections or ())
    check_patient(options, data.images["image"])
    pages = write_reports(data, output or folder, options=options, overwrite=overwrite)
    console = Console(highlight=False)
    for page in pages:
        console.print(escape(str(page)), soft_wrap=True)
