"""``bloodcells-batch count``: a folder of smear images in, the differential count out, as a table and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_bloodcells.cli.app import EXIT_NOTHING, EXIT_SOME_FAILED, say
from napari_bloodcells.cli.common import BoxesOption, DeviceOption, ModelOption, ScaleOption, reader_may_leave
from napari_bloodcells.core.files import printable

if TYPE_CHECKING:
    from napari_bloodcells.core.counting.options import CountOptions
    from napari_bloodcells.core.counting.result import CountResult

_RESULT, _SPEED, _LIMITS = "Results", "Speed and many machines", "Models and limits"
_SHOWN_FAILURES = 10


def count(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|FILES...",
            help="A folder of images or slides, image files, or an address (s3://..., https://...).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the results  [default: FOLDER-differential]", show_default=False
        ),
    ] = None,
    model: ModelOption = "default",
    boxes: BoxesOption = "auto",
    device: DeviceOption = "auto",
    recursive: Annotated[bool, typer.Option(help="Also count the folders inside; each is a sample.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the results in the output folder; its former report and overlays go too."
        ),
    ] = False,
    format: Annotated[str, typer.Option(help="Of the tables: csv, parquet or json.", rich_help_panel=_RESULT)] = "csv",
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, a page per sample.", rich_help_panel=_RESULT)
    ] = False,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="Also write each image with its cells drawn, each slide with the area counted.",
            rich_help_panel=_RESULT,
        ),
    ] = False,
    wbc: Annotated[
        float | None,
        typer.Option(
            "--wbc",
            help="White cells in 10^9/L of the one patient, for absolute counts in the report.",
            rich_help_panel=_RESULT,
        ),
    ] = None,
    anonymous: Annotated[
        bool,
        typer.Option("--anonymous", help="Numbers instead of file names in all results.", rich_help_panel=_RESULT),
    ] = False,
    um_per_pixel: ScaleOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="A cell less sure than this is unidentified (0 to 1).", rich_help_panel=_LIMITS),
    ] = None,
    find_threshold: Annotated[
        float | None,
        typer.Option(help="A found box less sure than this is left out (above 0, below 1).", rich_help_panel=_LIMITS),
    ] = None,
    cells_wanted: Annotated[
        int | None,
        typer.Option(
            "--cells-wanted",
            min=1,
            help="Of each whole slide count until so many white cells are found (200, say), the best fields of the "
            "monolayer first  [default: the whole monolayer]",
            rich_help_panel=_LIMITS,
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(help="Larger images are refused (but for slides).", rich_help_panel=_LIMITS)
    ] = 150_000_000,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images counted together; results do not depend on it.", rich_help_panel=_SPEED),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes on a CPU; 0: one per processor.", rich_help_panel=_SPEED)
    ] = 0,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Several graphics cards at once: all, or cuda:0,cuda:1; of none, all means --device.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Count on a dask cluster: the scheduler's address, or local:4.", rich_help_panel=_SPEED),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time went.", rich_help_panel=_SPEED)
    ] = False,
) -> None:
    """Count the white cells in a folder of smear photographs.

    Prints the differential and writes cells.csv, images.csv, differential.csv and run.json.
    Nothing is ever written into the folder of the images.

    Exit code: 0 all images counted, 3 some failed (named in images.csv), 2 wrong usage, 1 nothing could be done,
    130 stopped (Ctrl-C): go on with --resume.
    """
    if context.obj and not cluster and not devices:
        from napari_bloodcells.core.counting.server import start_server_for

        start_server_for(inputs, device, workers)
    from napari_bloodcells.cli.progress import TerminalProgress
    from napari_bloodcells.cli.reporting import check_patient, report_options
    from napari_bloodcells.core.count import count as count_images
    from napari_bloodcells.core.counting.jobs import collect_jobs
    from napari_bloodcells.core.counting.options import CountOptions
    from napari_bloodcells.core.counting.output import default_output
    from napari_bloodcells.core.errors import Cancelled, UsageError

    if wbc is not None and not report:
        raise UsageError(f"--wbc {wbc:g}: absolute counts stand in the report; say --report too.")
    meant = report_options(wbc) if report else None
    if meant is not None and wbc is not None:  # known now, and not after an hour of counting
        listed = collect_jobs(inputs, recursive=recursive, annotations=False, labels=False)
        check_patient(meant, (job.image for job in listed.jobs))
    place = output or default_output(inputs)
    options = CountOptions(
        output=place,
        resume=resume,
        overwrite=overwrite,
        format=format,
        recursive=recursive,
        batch_size=batch_size,
        workers=workers,
        devices=_devices(devices, device),
        cluster=cluster,
        threshold=threshold,
        find_threshold=find_threshold,
        um_per_pixel=um_per_pixel,
        max_pixels=max_pixels,
        cells_wanted=cells_wanted,
        anonymous=anonymous,
        guarded_main=bool(context.obj),
    )
    with TerminalProgress({"counting": "Counting", "slide": "Slide", "overlay": "Drawing"}) as progress:
        try:
            result = count_images(inputs, model, boxes, device, progress, options)
        except Cancelled as stop:
            raise Cancelled(f"{stop} Go on with the same command and --resume.") from None
        if overlay:
            from napari_bloodcells.core.counting.overlay import FOLDER, write_overlays

            write_overlays(result, place / FOLDER, progress)
    if meant is not None:
        from napari_bloodcells.core.report import write_reports

        write_reports(result, place, images=result.files, options=meant, overwrite=overwrite)
    with reader_may_leave():
        _show(result, place, options)
        if profile:
            from napari_bloodcells.cli.profile import show_profile

            show_profile(result)
    if len(result.failed):
        raise typer.Exit(EXIT_NOTHING if len(result.failed) == len(result.images) else EXIT_SOME_FAILED)


def _devices(text: str | None, instead: str) -> tuple[str, ...]:
    """The devices that ``--devices`` names; where there is none, a line says what counts ``instead``."""
    from napari_bloodcells.core.counting.workers import all_devices
    from napari_bloodcells.core.errors import UsageError

    found = () if text is None else all_devices(text)
    if text is not None and not found:
        if text.strip().casefold() != "all":
            raise UsageError(f"--devices {text!r}: names no device; say all, or cuda:0,cuda:1.")
        say(f"Warning: --devices all: torch finds no graphics card here; counting with --device {instead}.")
    return found


def _named(image: str, status: str) -> str:
    """What an image has for ``status``, called as in the table ``images``: of many folders, which ``1.jpg``.

    >>> _named("patient 7/1.jpg", "1.jpg: is empty (0 bytes).")
    'patient 7/1.jpg: is empty (0 bytes).'
    >>> _named("patient 7/1.jpg", "1.xml: is empty (0 bytes).")
    'patient 7/1.jpg: 1.xml: is empty (0 bytes).'
    """
    shown = " ".join(printable(image).split())  # as an error joins the words of its text
    for name in (shown, shown.rpartition("/")[2]):
        if status.startswith(f"{name}:"):
            return f"{shown}{status.removeprefix(name)}"
    return f"{shown}: {status}"


def _show(result: CountResult, place: Path, options: CountOptions) -> None:
    """The differentials with their remarks, the images that failed, what was odd, and where the files are."""
    from rich.console import Console
    from rich.markup import escape

    from napari_bloodcells.cli.counted import show_differentials

    console = Console(highlight=False)
    show_differentials(console, result, options.format)
    failed = result.failed
    read = len(result.images) - len(failed)
    samples = result.differentials["sample"].nunique() - 1
    beside = f", {samples} samples" if samples > 1 else ""
    console.print(
        f"{len(result.cells)} cells in {read} of {len(result.images)} images{beside}; {escape(result.model.name)}."
    )
    for row in failed.head(_SHOWN_FAILURES).to_dict("records"):
        console.print(f"[red]not counted:[/red] {escape(_named(row['image'], row['status']))}", soft_wrap=True)
    if len(failed) > _SHOWN_FAILURES:
        console.print(f"... and {len(failed) - _SHOWN_FAILURES} more, all in images.{options.format}.")
    told = result.run.get("warnings", [])
    for text in told[:_SHOWN_FAILURES]:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)
    if len(told) > _SHOWN_FAILURES:
        console.print(f"... and {len(told) - _SHOWN_FAILURES} more, all in run.json.")
    console.print(f"Results: {escape(str(place))}", soft_wrap=True)
