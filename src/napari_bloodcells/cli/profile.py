"""Where the time of a count went, stage by stage, as ``count --profile`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_bloodcells.core.counting.result import CountResult


def show_profile(result: CountResult) -> None:
    """Print the seconds of each stage, per image and as a share, and the images a second of the whole run."""
    from rich.console import Console
    from rich.table import Table

    times = result.run["times"]
    stages: dict[str, float] = times["stages"]
    total = sum(stages.values()) or 1.0
    n = max(len(result.images), 1)
    table = Table(title="Where the time went", title_justify="left", caption="stages: summed over all processes")
    table.add_column("stage")
    for heading in ("seconds", "ms per image", "share"):
        table.add_column(heading, justify="right")
    for name, seconds in stages.items():
        table.add_row(name, f"{seconds:.2f}", f"{1000 * seconds / n:.2f}", f"{100 * seconds / total:.0f} %")
    console = Console(highlight=False)
    console.print(table)
    rate = times["images_per_second"]
    console.print(f"{n} images in {times['seconds']:.1f} s, start-up included: {rate or 0:.1f} images a second.")
