"""``bloodcells-batch models``: which models are installed, and what is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from napari_bloodcells.core.schema import BundleInfo, TrainingSource

models_app = typer.Typer(no_args_is_help=True, help="List the installed models, tell about one.", rich_markup_mode=None)


@models_app.command("list")
def list_models(
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List the networks that can be trained instead.")
    ] = False,
) -> None:
    """List the installed models, and what is wrong with one that cannot be read."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    if architectures:
        from napari_bloodcells.core.models import architectures as all_architectures

        _columns(table, "network", "input", "parameters", "MMAC a cell", "from")
        for arch in all_architectures():
            size = f"{arch.input_size[0]} x {arch.input_size[1]}"
            table.add_row(arch.name, size, f"{arch.n_parameters(5):,}", f"{arch.macs(5) / 1e6:,.0f}", arch.published)
        Console().print(table)
        typer.echo("Parameters and multiply-accumulates with 5 classes.")
        return
    from napari_bloodcells.core.bundle import installed_bundles, read_info
    from napari_bloodcells.core.errors import BundleError

    found = installed_bundles()
    if not found:
        typer.echo("No model is installed; train one with: bloodcells-batch train DATA -o FOLDER")
        return
    _columns(table, "model", "classes", "network", "parameters", "MMAC a cell", "validation")
    problems: list[str] = []
    for name, folder in found.items():
        try:
            info = read_info(folder)
        except BundleError as error:
            table.add_row(escape(name), "-", "cannot be read", "-", "-", "-")
            problems.append(f"{error} Its folder is {folder}.")
            continue
        macs = f"{info.macs / 1e6:,.0f}"
        table.add_row(
            escape(name), str(len(info.class_names)), info.arch, f"{info.n_parameters:,}", macs, _accuracy(info)
        )
    Console().print(table)
    for problem in problems:
        typer.echo(f"Warning: {problem}", err=True)
    from napari_bloodcells.core.localize.store import describe

    finder = describe()
    typer.echo(
        f"{finder['name']}: finds the cells (--boxes find); {finder['parameters']:,} parameters, "
        f"{finder['macs_640x480'] / 1e9:.3f} GMAC a 640x480 field, {finder['bytes'] / 1e6:.1f} MB"
    )


@models_app.command("info")
def info(model: Annotated[str, typer.Argument(help="Name of an installed model, or the folder of your own.")]) -> None:
    """Tell what a model is, what it learned from, and how well it does."""
    from rich.console import Console
    from rich.table import Table

    from napari_bloodcells.cli.scores import percent
    from napari_bloodcells.core.bundle import read_info
    from napari_bloodcells.core.localize.store import is_localizer

    if is_localizer(model):
        Console().print(_finder(model))
        typer.echo("For research use only.")
        return
    found = read_info(model)
    facts = Table.grid(padding=(0, 2))
    rows = {
        "model": found.name,
        "": found.description,
        "classes": ", ".join(found.class_names),
        "network": f"{found.arch}, {found.n_parameters:,} parameters, {found.macs / 1e9:.3f} GMAC a cell",
        "input": f"{found.input_size[0]} x {found.input_size[1]} pixels, {_crop(found)}",
        "unidentified": _unidentified(found),
        "trained on": "; ".join(_source(s) for s in found.training) or "not known",
        "made": f"{found.created or 'not known'}, version {found.version or 'not known'}, seed {found.seed}",
        "license": found.license or "not stated",
        "SHA-256": found.sha256,
    }
    for name, value in rows.items():
        if value:
            facts.add_row(name, value)
    console = Console()
    console.print(facts)
    if found.metrics:
        table = Table(title="measured (95 % interval)", title_justify="left")
        _columns(table, "on", "figure", "value", "cells")
        for metric in found.metrics:
            figure = metric.name.replace("_", " ") + (f", {metric.of}" if metric.of else "")
            table.add_row(metric.data, figure, percent(metric), f"{metric.n:,}")
        console.print(table)
    typer.echo("For research use only.")


@models_app.command("add")
def add(
    model: Annotated[str, typer.Argument(help="Folder or .safetensors file of a model that was trained or fetched.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it. Default: as it calls itself.")] = None,
) -> None:
    """Put a model where it is found by its name (count --model NAME), its weights in 16 bits."""
    from napari_bloodcells.core.install import install_model

    place = install_model(model, name)
    typer.echo(f"Installed: use it with --model {place.name} (it is in {place})")


def _finder(model: str) -> Table:
    from rich.table import Table

    from napari_bloodcells.core.localize.store import describe

    about = describe(model)
    photographs = {source: sum(parts.values()) for source, parts in about["training"].get("photographs", {}).items()}
    facts = Table.grid(padding=(0, 2))
    for name, value in {
        "model": f"{about['name']}, a localizer (--boxes find)",
        "finds": ", ".join(about["classes"]),
        "network": f"{about['parameters']:,} parameters, {about['macs_640x480'] / 1e9:.3f} GMAC a 640x480 field",
        "size": f"{about['bytes'] / 1e6:.1f} MB",
        "thresholds": ", ".join(f"{kind} {value:.2f}" for kind, value in about["thresholds"].items()),
        "data": "; ".join(f"{source}: {n:,} images" for source, n in photographs.items()) or "not known",
        "SHA-256": about["sha256"],
    }.items():
        facts.add_row(name, value)
    return facts


def _columns(table: Table, *names: str) -> None:
    for name in names:
        right = name in ("parameters", "MMAC a cell", "value", "cells", "classes")
        table.add_column(name, justify="right" if right else "left")


def _accuracy(info: BundleInfo) -> str:
    from napari_bloodcells.cli.scores import percent

    return percent(next((m for m in info.metrics if m.name == "balanced_accuracy" and not m.of), None))


def _crop(info: BundleInfo) -> str:
    crop = info.crop
    if crop.scale == "image":
        return "the whole image"
    wide = f"{crop.side_um:g} um" if crop.scale == "um" else f"{crop.context:g} times the cell's box"
    return f"a square of {wide} around the cell" + (", divided by the white of the ground" if crop.white else "")


def _source(source: TrainingSource) -> str:
    """A source of training cells and how many; without their number where it says none (cells without labels)."""
    n = sum(source.counts.values())
    return f"{source.source}: {n:,} cells" if n else source.source


def _unidentified(info: BundleInfo) -> str:
    said = f"confidence below {info.min_confidence:.2f}"
    return said + (f", or distance above {info.max_distance:.2f}" if info.max_distance is not None else "")
