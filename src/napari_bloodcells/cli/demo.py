"""``bloodcells-batch demo``: counts drawn smears, so that the installation shows itself without data or network.

The fields are drawn with known truth (``napari_bloodcells.synthetic``), the cells are found and named by the shipped
model through the public API, and both numbers stand side by side.  Drawn cells are easier than real ones: the demo
proves that everything is in place, not how well the model reads blood (``docs/accuracy.md`` tells that).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from napari_bloodcells.cli.common import DeviceOption, ModelOption

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from napari_bloodcells.core.counting.result import CountResult
    from napari_bloodcells.synthetic import SmearSettings

DIFFERENTIAL = {"neutrophil": 0.45, "lymphocyte": 0.25, "monocyte": 0.13, "eosinophil": 0.10, "basophil": 0.07}
"""Rare classes more often than in healthy blood, so that each is seen."""
CELLS_PER_FIELD = 4


@dataclass(frozen=True)
class Agreement:
    """Counted cells held against true ones.

    Attributes
    ----------
    pairs : tuple of (str, str)
        True and counted class of every cell that was found.
    missed : tuple of str
        True classes of the cells that were not found.
    false : int
        Boxes without a cell.
    """

    pairs: tuple[tuple[str, str], ...]
    missed: tuple[str, ...]
    false: int

    @property
    def right(self) -> int:
        """How many found cells carry their true class."""
        return sum(truth == counted for truth, counted in self.pairs)


def demo(
    fields: Annotated[int, typer.Option(min=1, max=1000, help="How many fields to draw.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Another number draws other fields.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Keep the drawn fields and the tables in this new folder."),
    ] = None,
    model: ModelOption = "default",
    device: DeviceOption = "auto",
) -> None:
    """Draw blood smears, count them, and show counted beside true (needs no data and no network)."""
    from rich.console import Console

    from napari_bloodcells import count
    from napari_bloodcells.cli.progress import TerminalProgress
    from napari_bloodcells.synthetic import write_folder

    console = Console(highlight=False)
    console.print(f"Drawing {fields} fields of {CELLS_PER_FIELD} white cells, with known truth ...")
    keep = TemporaryDirectory(prefix="bloodcells-demo-") if output is None else nullcontext(str(output))
    with keep as home:
        smears = Path(home) / "smears"
        images = write_folder(smears, fields, seed * 10_000, demo_settings(), xml=False)
        console.print("Finding and naming the cells ...")
        with TerminalProgress({"counting": "Counting"}) as progress:
            result = count(images, model=model, boxes="find", device=device, progress=progress)
        truth = read_truth(smears / "truth.csv")
        if output is not None:
            result.to_csv(Path(home) / "differential")
    _show(console, result, truth, hold_against(truth, result.cells))
    if output is not None:
        console.print(f"Kept: {output / 'smears'} and {output / 'differential'}")
    console.print("Drawn cells only show that all is in place; docs/accuracy.md tells the accuracy on real blood.")
    console.print("Next: [bold]bloodcells-batch count YOUR_FOLDER --report[/bold]")


def demo_settings() -> SmearSettings:
    """What the demo draws: some cells touch, some are cut by the border, light and stain vary a little."""
    from napari_bloodcells.synthetic import Optics, SmearSettings

    return SmearSettings(
        cells=CELLS_PER_FIELD, differential=DIFFERENTIAL, touching=0.1, border=0.1, optics=Optics(uneven_light=0.15)
    )


def read_truth(path: Path) -> pd.DataFrame:
    """The table that ``write_folder`` wrote: image, x_min, y_min, x_max, y_max (pixels), class."""
    import pandas as pd

    return pd.read_csv(path)


def hold_against(truth: pd.DataFrame, cells: pd.DataFrame) -> Agreement:
    """Pair each true cell with a counted box of the same image whose center lies inside of it (each box once)."""
    box = ["x_min", "y_min", "x_max", "y_max"]
    free = {index: (Path(str(row["image"])).name, *row[box]) for index, row in cells.iterrows()}
    pairs, missed = [], []
    for _, cell in truth.iterrows():
        inside = [
            (abs((x0 + x1) / 2 - (cell["x_min"] + cell["x_max"]) / 2), index)
            for index, (image, x0, y0, x1, y1) in free.items()
            if image == cell["image"]
            and cell["x_min"] <= (x0 + x1) / 2 <= cell["x_max"]
            and cell["y_min"] <= (y0 + y1) / 2 <= cell["y_max"]
        ]
        if not inside:
            missed.append(str(cell["class"]))
            continue
        index = min(inside)[1]
        del free[index]
        pairs.append((str(cell["class"]), str(cells.loc[index, "class"])))
    return Agreement(tuple(pairs), tuple(missed), len(free))


def _show(console: Console, result: CountResult, truth: pd.DataFrame, agreement: Agreement) -> None:
    from rich.table import Table

    from napari_bloodcells.core.differential import PLATELETS_FOUND

    block = result.differentials[result.differentials["sample"] == "all"].set_index("class")
    block = block.drop(PLATELETS_FOUND, errors="ignore")  # no cells of the truth's table
    true = truth["class"].value_counts()
    table = Table(
        title="Differential of the drawn smears", title_justify="left", caption="95 % interval: exact binomial"
    )
    table.add_column("class")
    for heading in ("true", "counted", "true %", "counted %", "95 % interval"):
        table.add_column(heading, justify="right")
    names = [*block.index, *(name for name in true.index if name not in block.index)]
    for name in names:
        n = int(true.get(name, 0))
        row = [str(name), str(n), "0", f"{100 * n / len(truth):.1f}", "", ""]
        if name in block.index:
            got = block.loc[name]
            row[2] = str(int(got["count"]))
            if got["percent"] == got["percent"]:
                row[4], row[5] = f"{got['percent']:.1f}", f"{got['ci_low']:.1f} - {got['ci_high']:.1f}"
        table.add_row(*row)
    console.print(table)
    console.print(
        f"{len(agreement.pairs)} of {len(truth)} cells found, {agreement.right} of them named right, "
        f"{agreement.false} boxes without a cell."
    )
