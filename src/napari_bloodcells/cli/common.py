"""Options that several commands share, worded once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

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
