"""``bloodcells-batch train``: labeled cells in, a model of your own out."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_bloodcells.cli.app import EXIT_INTERRUPTED, EXIT_NOTHING, EXIT_USAGE
from napari_bloodcells.cli.common import DeviceOption
from napari_bloodcells.cli.progress import TerminalProgress


def train(
    data: Annotated[list[Path], typer.Argument(help="Folder of labeled cells; several are taken together.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the model: new or empty.")],
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="Network to train by its own recipe (see: models list --architectures)."),
    ] = None,
    task: Annotated[
        str,
        typer.Option("--task", help="cells: a model that names cells. find: one that finds them, from boxes."),
    ] = "cells",
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Recipe by name, or your own TOML file. Default: that of the shipped model."),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="Classes to tell apart: wbc4, wbc5, pbc8, or your own JSON file.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=0, help="Times through the data, at most.")] = None,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", min=0, help="Training time, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Cells in one step.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Another number draws other random numbers.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="vgg16 only: imagenet, none (from scratch), or a VGG16 model trained here."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting of the recipe, as optimizer.lr=0.001.")
    ] = None,
    install: Annotated[
        str | None,
        typer.Option("--install", help="Also put the model, in 16 bits, where count --model finds it by this name."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in the output folder.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a model on labeled cells: class folders, VOC with labels.csv, YOLO text, or tables.

    Ctrl-C stops after the present step and keeps everything; the same command with --resume goes on from there with the
    same result as if nothing had happened.  The output folder is the model: use it with count --model FOLDER.
    Several GPUs: torchrun --nproc-per-node 2 -m napari_bloodcells train ...
    """
    named = _overrides(settings or [])
    given = {"epochs": epochs, "max_minutes": max_minutes, "batch_size": batch_size, "seed": seed, "scheme": scheme}
    given["options.weights"] = weights
    if task not in ("cells", "find"):
        from napari_bloodcells.core.errors import UsageError

        raise UsageError(f"--task must be cells or find, not {task}.")
    if task == "find":
        from napari_bloodcells.cli.train_find import train_find
        from napari_bloodcells.core.errors import UsageError
        from napari_bloodcells.core.training.group import torchrun_size

        if torchrun_size() > 1:
            raise UsageError("--task find trains in one process; start it without torchrun.")
        own = {key: given.pop(key) for key in ("batch_size", "seed")}
        named |= {key: value for key, value in own.items() if value is not None}
        others = {"--device": None if device in ("auto", "cpu") else device, "--arch": arch}
        others["--install"] = install
        others |= {f"--{key.split('.')[-1].replace('_', '-')}": v for key, v in given.items()}
        train_find(data, output, recipe, named, resume, [key for key, value in others.items() if value is not None])
        return
    named |= {key: value for key, value in given.items() if value is not None}

    from napari_bloodcells import train as train_core
    from napari_bloodcells.core.install import check_installable, install_model
    from napari_bloodcells.core.training.group import torchrun_rank

    if install is not None:
        check_installable(install)  # before hours of training, not after
    with _Others() if torchrun_rank() else _Lines() as progress:
        result = train_core(
            list(data),
            _choose(arch, recipe, resume, "options.weights" in named),
            output,
            resume=resume,
            device=device,
            progress=progress,
            overrides=named,
        )
    if torchrun_rank():
        return
    _show(result)
    if install is not None:
        typer.echo(f"Installed: use it with --model {install} (it is in {install_model(result.output, install)})")


def _choose(arch: str | None, recipe: str | None, resume: bool, weights_named: bool) -> Any:
    """The recipe by ``--arch`` or ``--recipe``; None leaves it to the core.  No download follows from a network's name
    alone: with ``--arch`` the weights that it begins with must be named too."""
    from dataclasses import replace

    from napari_bloodcells.core.errors import UsageError
    from napari_bloodcells.core.models import architecture
    from napari_bloodcells.core.training.recipe import load_recipe, recipe_names

    if arch and recipe:
        raise UsageError("give --arch or --recipe, not both: a recipe names its network.")
    if arch is None:
        return recipe if recipe or resume else "default"
    if arch in recipe_names():
        if load_recipe(arch).options.get("weights") == "imagenet" and not weights_named:
            raise UsageError(
                f"--arch {arch}: name the weights to begin with: --weights imagenet (528 MB from download.pytorch.org, "
                "unless they are here), --weights none (from scratch), or a VGG16 model trained here."
            )
        return arch
    known = architecture(arch)
    return replace(load_recipe("default"), arch=known.name, name=known.name, options={})


def _overrides(settings: list[str]) -> dict[str, Any]:
    from napari_bloodcells.core.errors import UsageError

    found: dict[str, Any] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not (key.strip() and sign and value.strip()):
            raise UsageError(f"--set {setting}: give it as NAME=VALUE, such as --set optimizer.lr=0.001.")
        found[key.strip()] = value.strip()
    return found


class _Lines(TerminalProgress):
    """The progress bar, and a line an epoch where there is no terminal to draw a bar on (a log file, a cluster)."""

    def start(self, task: str, total: int | None) -> None:
        """Show a bar; in a run without a terminal a download is told in a line before it begins."""
        super().start(task, total)
        if task.startswith("fetching") and not sys.stderr.isatty():
            print(f"{task} ...", file=sys.stderr, flush=True)

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        """Move the bar on; at the end of an epoch of a run without a terminal say how it went."""
        super().advance(task, n, **values)
        if "val_accuracy" in values and not sys.stderr.isatty():
            print(
                f"epoch {values['epoch']:.0f}: validation loss {values['val_loss']:.4f}, "
                f"accuracy {values['val_accuracy']:.1%}",
                file=sys.stderr,
                flush=True,
            )


class _Others(TerminalProgress):
    """Of all processes but the first: hears the same signals, and says only what went wrong in itself; what is wrong in
    the command is said once a machine."""

    def __enter__(self) -> TerminalProgress:
        from napari_bloodcells.core.errors import DataWarning

        warnings.simplefilter("ignore", DataWarning)
        return super().__enter__()

    def __exit__(self, kind: Any, value: BaseException | None, traceback: Any) -> None:
        from napari_bloodcells.core.errors import Cancelled, UsageError
        from napari_bloodcells.core.training.group import PeerEnded

        super().__exit__(kind, value, traceback)
        if isinstance(value, Cancelled):
            raise typer.Exit(EXIT_INTERRUPTED)
        if isinstance(value, PeerEnded):
            raise typer.Exit(EXIT_NOTHING)
        if isinstance(value, UsageError) and os.environ["LOCAL_RANK"] != "0":
            raise typer.Exit(EXIT_USAGE)

    def start(self, task: str, total: int | None) -> None:
        """Show nothing."""

    def say_stopping(self) -> None:
        """Say nothing."""


def _show(result: Any) -> None:
    from rich.console import Console

    from napari_bloodcells.cli.scores import scores_table

    console = Console()
    best = [row.epoch for row in result.history if row.best]
    console.print(scores_table(result.scores, "validation cells (one cell of several pictures counts once)"))
    console.print(
        f"Kept epoch {best[-1] if best else 0} of {len(result.history)}; the model is {result.output}", soft_wrap=True
    )
