"""Options that ``count``, ``report`` and ``export`` share about the patient and the blood count, worded once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from napari_bloodcells.core.errors import UsageError

if TYPE_CHECKING:
    from napari_bloodcells.core.report.content import ReportOptions

WbcOption: TypeAlias = Annotated[
    float | None, typer.Option("--wbc", help="White cell count in 10^9/L, for absolute counts (7.2).")
]
AgeOption: TypeAlias = Annotated[
    float | None, typer.Option("--age", help="Age in years, which chooses the reference ranges; an adult if not given.")
]
SexOption: TypeAlias = Annotated[str | None, typer.Option("--sex", help="female or male, for the reference ranges.")]
RangesOption: TypeAlias = Annotated[
    Path | None, typer.Option("--ranges", help="Your laboratory's reference ranges, a JSON file (docs: formats).")
]
IntervalsOption: TypeAlias = Annotated[
    str, typer.Option("--intervals", help="binomial: each class alone, exact; multinomial: all classes at once.")
]
ImagesOption: TypeAlias = Annotated[
    Path | None, typer.Option("--images", help="The folder that was counted, if it has moved since.")
]
CorrectionsOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--corrections", help="A cells.csv with corrections, from a report page or the plugin; can be given again."
    ),
]


def report_options(
    wbc: float | None = None,
    age: float | None = None,
    sex: str | None = None,
    ranges: Path | None = None,
    intervals: str = "binomial",
) -> ReportOptions:
    """What the options of a command mean for a report; ``UsageError`` for a value that cannot be meant."""
    from napari_bloodcells.core.report.content import ReportOptions
    from napari_bloodcells.core.statistics.reference import Patient, load_ranges

    if wbc is not None and not 0 < wbc < 2000:
        raise UsageError(f"--wbc {wbc:g}: a white cell count in 10^9/L lies above 0 and below 2000 (7.2, not 7200).")
    if age is not None and not 0 <= age < 130:
        raise UsageError(f"--age {age:g}: give the age in years, 0 to 130.")
    if sex not in (None, "female", "male"):
        raise UsageError(f"--sex {sex}: give female or male, or leave it out.")
    if intervals not in ("binomial", "multinomial"):
        raise UsageError(f"--intervals {intervals}: give binomial or multinomial.")
    patient = Patient(age, sex)  # type: ignore[arg-type]
    own = load_ranges(ranges) if ranges else None
    return ReportOptions(wbc=wbc, patient=patient, ranges=own, intervals=intervals)  # type: ignore[arg-type]


def check_patient(options: ReportOptions, images: Iterable[str]) -> None:
    """``UsageError`` where --wbc, --age or --sex was given, and the images are of several samples."""
    from napari_bloodcells.core.statistics.reference import check_one_patient

    given = {"--wbc": options.wbc, "--age": options.patient.age, "--sex": options.patient.sex}
    check_one_patient([name for name, value in given.items() if value is not None], images)
