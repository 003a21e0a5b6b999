"""``bloodcells-batch doctor``: what is here, what is missing and what to do about it, in words.

Each check returns findings; nothing is guessed from a version number where it can be tried (every picture format is
written and read back, every model is loaded and its hash compared).  The command exits with 1 where something that
counting needs is broken; a missing extra is only said.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from io import BytesIO
from typing import Literal

import typer

State = Literal["ok", "extra", "unusable", "broken"]
"""``unusable``: something of the user's own, which counting with a shipped model does not need."""

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "scikit-image", "pillow", "tifffile", "imagecodecs")

EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "napari": (("napari", "magicgui", "superqt", "qtpy"), "the napari plugin"),
    "parquet": (("pyarrow",), "tables as Parquet (--format parquet)"),
    "cluster": (("distributed", "dask"), "counting on many machines (--cluster)"),
    "remote": (("fsspec",), "folders on S3, HTTP and other stores"),
    "fhir": (("fhir.resources",), "FHIR reports (export -f fhir-r4)"),
    "wsi": (("openslide",), "slides of scanners (.svs, .ndpi, .mrxs)"),
}
"""Extra of ``pyproject.toml``: the modules that it brings, and what they are for."""
QT = ("PyQt6", "PySide6", "PyQt5", "PySide2")

TIFF_COMPRESSIONS = ("none", "lzw", "adobe_deflate", "zstd", "jpeg", "jpeg2000", "webp")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its name, its state, and what to know or to do."""

    area: str
    subject: str
    state: State
    words: str


def doctor() -> None:
    """Say what is installed, what works and what is missing (exit code 1 if counting cannot work)."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    findings = examine()
    marks = {
        "ok": ("ok", "green"),
        "extra": ("missing", "yellow"),
        "unusable": ("unusable", "yellow"),
        "broken": ("BROKEN", "bold red"),
    }
    for area in dict.fromkeys(finding.area for finding in findings):
        table = Table(title=area, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
        for finding in findings:
            if finding.area == area:
                word, style = marks[finding.state]
                table.add_row(Text(word, style), finding.subject, Text(finding.words))
        console.print(table)
        console.print()
    broken = [finding.subject for finding in findings if finding.state == "broken"]
    if broken:
        console.print(f"Counting cannot work before this is repaired: {', '.join(broken)}.")
        raise typer.Exit(1)
    console.print("All that counting needs is here. Try it: bloodcells-batch demo")


def examine() -> list[Finding]:
    """All findings, in the order in which they are shown.  A check that fails itself is a finding too."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (versions, machine, formats, models, extras)
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # a broken library may raise anything: the doctor has to outlive it
            findings.append(Finding("Trouble", check.__name__, "broken", f"{type(error).__name__}: {error}"))
    return findings


def versions() -> Iterator[Finding]:
    """This package, Python, and the libraries that counting needs."""
    area = "Versions"
    yield Finding(area, "napari-bloodcells", "ok", _version("napari-bloodcells") or "not installed with pip")
    old = sys.version_info < (3, 11)
    yield Finding(area, "Python", "broken" if old else "ok", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        found = _version(name)
        words = found or f'not installed: run  pip install "{name}"'
        yield Finding(area, name, "ok" if found else "broken", words)


def machine() -> Iterator[Finding]:
    """Processor, memory, and the device that ``--device auto`` takes."""
    from napari_bloodcells.core.devices import describe_device, pick_device

    area = "Machine"
    memory = total_memory()
    yield Finding(area, "processors", "ok", f"{os.cpu_count() or 1}")
    yield Finding(area, "memory", "ok", f"{memory / 2**30:.1f} GiB" if memory else "unknown on this system")
    yield Finding(area, "device", "ok", describe_device(pick_device("auto")))


def total_memory() -> int | None:
    """Bytes of memory that this process may use, or None where the system does not tell.

    The limit of a container (cgroup version 2) counts where it is lower than the machine's memory.
    """
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def formats() -> Iterator[Finding]:
    """Every picture format, tried: a small picture is written in it and read with the package's own reader."""
    import numpy as np
    import tifffile
    from PIL import Image

    from napari_bloodcells.core.images import read_image_bytes

    ramp = np.tile(np.linspace(30, 220, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))

    def tried(subject: str, name: str, write: Callable[[BytesIO], None]) -> Finding:
        try:
            file = BytesIO()
            write(file)
            error = float(np.abs(read_image_bytes(file.getvalue(), name).astype(float) - ramp).mean())
        except Exception as problem:
            return Finding("Picture formats", subject, "broken", f'{problem}: run  pip install -U "imagecodecs"')
        if error > 6:
            return Finding("Picture formats", subject, "broken", f"comes back changed by {error:.0f} grey levels")
        return Finding("Picture formats", subject, "ok", "written and read back")

    for kind, name in (("JPEG", "try.jpg"), ("PNG", "try.png"), ("BMP", "try.bmp"), ("WebP", "try.webp")):
        yield tried(kind, name, lambda file, kind=kind: Image.fromarray(ramp).save(file, kind))  # type: ignore[misc]
    for method in TIFF_COMPRESSIONS:
        options = {} if method == "none" else {"compression": method}
        yield tried(
            f"TIFF, {method.replace('adobe_', '')}",
            "try.tif",
            lambda file, options=options: tifffile.imwrite(file, ramp, photometric="rgb", **options),  # type: ignore
        )


def models() -> Iterator[Finding]:
    """Every model that is installed, loaded, so that its hash and its weights are checked."""
    from napari_bloodcells import load_model
    from napari_bloodcells.core.bundle import installed_bundles
    from napari_bloodcells.core.errors import BloodcellsError
    from napari_bloodcells.core.installed import model_homes
    from napari_bloodcells.core.localize import load_localizer

    area = "Models"
    package = next(model_homes())
    installed = installed_bundles()
    for name, folder in installed.items():
        try:
            info = load_model(folder, device="cpu").info
        except BloodcellsError as error:
            if folder.parent != package:
                yield Finding(area, name, "unusable", f"{error} Put it there anew, or remove {folder}.")
            else:
                yield Finding(area, name, "broken", f"{error} Reinstall napari-bloodcells.")
            continue
        classes = ", ".join(info.class_names)
        yield Finding(area, name, "ok", f"{info.arch}, hash {info.sha256[:12]} right; names {classes}")
    try:
        load_localizer("default")
    except BloodcellsError as error:
        yield Finding(area, "cell finder", "broken", f"{error} Reinstall napari-bloodcells.")
    else:
        yield Finding(area, "cell finder", "ok", "hash right; finds the cells of images without XML")
    if not installed:
        yield Finding(area, "no model", "broken", "none came with this installation: reinstall napari-bloodcells.")


def extras() -> Iterator[Finding]:
    """What can be added, and the command that adds it."""
    area = "Extras"
    for name, (modules, gives) in EXTRAS.items():
        missing = [module for module in modules if not _is_there(module)]
        if missing:
            yield Finding(area, name, "extra", f'for {gives}: run  pip install "napari-bloodcells[{name}]"')
            continue
        yield Finding(area, name, "ok", f"for {gives}")
    if _is_there("napari") and not any(_is_there(name) for name in QT):
        words = 'napari has no window toolkit: run  pip install "napari-bloodcells[all]"'
        yield Finding(area, "Qt", "extra", words)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
