"""``bloodcells-batch export``: a finished count in the form of another program."""

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


def export(
    folder: Annotated[Path, typer.Argument(help="Output folder of a count.", show_default=False)],
    form: Annotated[
        str, typer.Option("--format", "-f", help="fhir-r4, fhir-r5, coco, voc, geojson (QuPath), parquet or csv.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the files  [default: FOLDER/FORMAT]", show_default=False),
    ] = None,
    corrections: CorrectionsOption = None,
    images: ImagesOption = None,
    wbc: WbcOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    ranges: RangesOption = None,
    intervals: IntervalsOption = "binomial",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of a former export.")] = False,
) -> None:
    """Write a finished count as FHIR, COCO, VOC, GeoJSON for QuPath, Parquet or CSV.

    FHIR carries one Observation per class (LOINC); with --wbc the absolute counts too.
    --wbc, --age and --sex are of one patient: for several samples count each folder by itself.
    """
    from rich.console import Console
    from rich.markup import escape

    from napari_bloodcells.core.report.exports import export as write
    from napari_bloodcells.core.report.inputs import from_folder

    options = report_options(wbc, age, sex, ranges, intervals)
    data = from_folder(folder, images, corrections or ())
    if form.startswith("fhir"):  # no other form says anything of a patient
        check_patient(options, data.images["image"])
    files = write(data, form, output or folder / form, options=options, overwrite=overwrite)
    word = "file" if len(files) == 1 else "files"
    place = files[0].parent if files else output or folder / form
    Console(highlight=False).print(f"{len(files)} {word} in {escape(str(place))}", soft_wrap=True)
