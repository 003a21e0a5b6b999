"""The commands by name, and what becomes of an error.

``bloodcells-batch --help`` must answer at once, so the table below is all that it reads: a command's module is
imported when the command is called (or asked for its own help), and torch only when it computes.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from napari_bloodcells.cli.common import reader_left, write_no_more

PROGRAM = "bloodcells-batch"
EXIT_OK, EXIT_NOTHING, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives and what the list of commands says of it."""

    module: str
    attribute: str
    help: str


COMMANDS: dict[str, LazyCommand] = {
    "count": LazyCommand("count", "count", "Count the white cells in a folder of smear photographs."),
    "demo": LazyCommand("demo", "demo", "Draw blood smears, count them, show counted beside true."),
    "compare": LazyCommand("compare", "compare", "Compare two counts: two people, or machine against person."),
    "report": LazyCommand("report", "report", "Write report pages of a finished count, with your corrections."),
    "export": LazyCommand("export", "export", "Write a count as FHIR, COCO, GeoJSON (QuPath) or VOC."),
    "evaluate": LazyCommand("evaluate", "evaluate", "Measure a model on labeled cells, with intervals."),
    "calibrate": LazyCommand("calibrate", "calibrate", "Fit a model to your own microscope with a few labeled cells."),
    "adapt": LazyCommand("adapt", "adapt", "Fit a model to your own microscope with cells that nobody labeled."),
    "train": LazyCommand("train", "train", "Train a model, on your own cells too."),
    "crop": LazyCommand("crop", "crop", "Cut the cells of a data set into folders, one a class."),
    "models": LazyCommand("models", "models_app", "List the installed models, tell about one."),
    "data": LazyCommand("data", "data_app", "List, fetch or look into public data sets."),
    "doctor": LazyCommand("doctor", "doctor", "Say what is installed, what works and what is missing."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of a command and make the command of it."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        target = getattr(import_module(f"napari_bloodcells.cli.{entry.module}"), entry.attribute)
        command = typer.main.get_command(target) if isinstance(target, typer.Typer) else _single(target)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _single(function: Any) -> Any:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    return typer.main.get_command(app)


app = typer.Typer(
    cls=LazyGroup,
    name=PROGRAM,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: drawing the list with rich would double the time of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from napari_bloodcells import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Say the version and end.", is_eager=True, callback=_say_version
    ),
) -> None:
    """Differential white-blood-cell counts from photographs of stained blood smears (research use only).

    Start with:  bloodcells-batch count FOLDER      and for each command:  bloodcells-batch COMMAND --help
    """


def run(arguments: Sequence[str] | None = None, *, guarded_main: bool = False) -> int:
    """Run the command line (``sys.argv`` unless given) and return its exit code.

    ``guarded_main`` (see ``CountOptions``) is for the command itself, whose main module calls this once only.

    0 all done, 3 some images failed, 2 wrong usage, 1 nothing could be done, 130 stopped by the user.
    """
    from napari_bloodcells.core.errors import BloodcellsError, Cancelled, UsageError
    from napari_bloodcells.core.files import whole_text

    _write_any_text()
    warnings.formatwarning = _warning_line
    try:
        app(args=None if arguments is None else list(arguments), prog_name=PROGRAM, obj=guarded_main)
    except SystemExit as end:
        if reader_left(end):
            write_no_more(sys.stdout)
            return EXIT_OK
        return end.code if isinstance(end.code, int) else EXIT_OK if end.code is None else EXIT_NOTHING
    except Cancelled as stop:
        say(str(stop))
        return EXIT_INTERRUPTED
    except UsageError as error:
        say(f"Error: {whole_text(error)}")
        return EXIT_USAGE
    except BloodcellsError as error:
        say(f"Error: {whole_text(error)}")
        return EXIT_NOTHING
    except KeyboardInterrupt:
        say("Stopped.")
        return EXIT_INTERRUPTED
    except BrokenPipeError as error:
        if not reader_left(error):
            say(f"Error: {error}.")
            return EXIT_NOTHING
        write_no_more(sys.stderr)  # click was telling of wrong usage
        return EXIT_USAGE
    except OSError as error:
        if error.filename is None:
            raise
        say(f"Error: {os.fspath(error.filename)}: {(error.strerror or str(error)).lower()}.")
        return EXIT_NOTHING
    return EXIT_OK


def _write_any_text() -> None:
    """Where the output is not UTF-8 (a pipe on Windows, ``LANG=C``), write what it lacks as escapes: a name of a
    sample, or Rümke's, must not end the work."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write one line beside the results (stderr)."""
    try:
        typer.echo(text, err=True)
    except BrokenPipeError:
        write_no_more(sys.stderr)


def _warning_line(message: Any, category: Any, *place: Any, **more: Any) -> str:
    return f"Warning: {message}\n"
