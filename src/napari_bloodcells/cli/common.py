"""Options that several commands share, worded once; and what becomes of text whose reader has gone (``| head``)."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, TextIO, TypeAlias

import typer

ModelOption: TypeAlias = Annotated[
    str, typer.Option("--model", help="Name of an installed model (see: models list), or the folder of your own.")
]
DeviceOption: TypeAlias = Annotated[
    str, typer.Option("--device", help="What computes: auto takes a graphics card where there is one; cpu, cuda, mps.")
]
BoxesOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--boxes",
        help="Where the cells are. auto: from the image's XML file where there is one, else found. xml: only from XML. "
        "find: always found. classical: found by the stain alone. whole: each image is one cell.",
    ),
]
ScaleOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--um-per-pixel", help="Micrometers per pixel, if you know it; else measured from the red cells."),
]


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print in this block as if the text were read, also where its reader goes: the exit code is that of the work."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as end:
        if not reader_left(end):
            raise
        write_no_more(sys.stdout)


def reader_left(end: BaseException) -> bool:
    """Whether this is a broken pipe of printed text, which rich and click turn into ``SystemExit(1)``.

    That of a worker process or a cluster, which comes in the same clothes, is none.
    """
    problem = end.__context__ if isinstance(end, SystemExit) else end
    if not isinstance(problem, BrokenPipeError):
        return False
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(problem.__traceback__)]
    return bool(frames) and frames[-1].partition(".")[0] in ("rich", "click", "typer")


def write_no_more(stream: TextIO) -> None:
    """Lead what is still written into ``stream`` nowhere, or Python would end with an exit code of its own (120)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
