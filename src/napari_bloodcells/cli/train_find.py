"""``bloodcells-batch train --task find``: boxes of cells in, a localizer of your own out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_bloodcells.cli.progress import TerminalProgress


def train_find(
    data: Sequence[Path],
    output: Path,
    recipe: str | None,
    overrides: dict[str, Any],
    resume: bool,
    unused: Sequence[str],
) -> None:
    """Train a localizer and say where it is; ``unused`` are options given that mean nothing to it."""
    import typer

    from napari_bloodcells.core.errors import UsageError
    from napari_bloodcells.core.localize.store import describe
    from napari_bloodcells.core.localize.train_find import load_find_settings, train_localizer

    if unused:
        raise UsageError(
            f"{', '.join(unused)}: not for --task find, which trains on the CPU; its settings are in the recipe find "
            "(--set steps=...)."
        )
    settings = load_find_settings(recipe or "find", overrides)
    with TerminalProgress() as progress:
        place = train_localizer(list(data), output, settings, resume, progress)
    about = describe(place)
    typer.echo(f"The localizer is {place} ({about['parameters']:,} parameters); count with: --boxes {place}")
