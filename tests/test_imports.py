"""What may be imported by what: no Qt in the core and the command, no torch for ``--help``, no Qt from pip."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "napari_bloodcells"
WINDOWS = {"napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "superqt", "vispy", "npe2"}


def modules_after(code: str) -> set[str]:
    """Top-level names of all modules that a fresh Python has loaded after ``code``."""
    report = "\nimport sys, json\nprint('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def module_names(*rooms: str) -> list[str]:
    """Every module of these rooms of the package, dotted."""
    files = [path for room in rooms for path in sorted((SOURCE / room).rglob("*.py"))]
    names = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in names]


def test_the_core_the_command_and_the_smears_import_neither_napari_nor_qt() -> None:
    names = module_names("core", "cli", "synthetic")
    assert len(names) > 40
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert loaded & WINDOWS == set()


def test_the_core_does_not_import_the_command_line() -> None:
    loaded = modules_after("\n".join(f"import {name}" for name in module_names("core")))
    assert loaded & {"typer", "rich"} == set()


def test_the_public_names_come_without_qt() -> None:
    names = "load_model, count, train, evaluate, read_voc, write_voc"
    assert modules_after(f"from napari_bloodcells import {names}") & WINDOWS == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "scipy", "matplotlib", "skimage", "numpy"}
    assert modules_after("import napari_bloodcells") & heavy == set()


@pytest.mark.parametrize("arguments", [["--help"], ["count", "--help"], ["demo", "--help"], ["doctor", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"from napari_bloodcells.cli.app import run\nassert run({arguments!r}) == 0"
    assert (
        modules_after(code) & ({"torch", "torchvision", "pandas", "scipy", "matplotlib", "skimage"} | WINDOWS) == set()
    )


def requirements(distribution: str, extra: str = "") -> set[str]:
    """All distributions that installing this one brings, of those that are installed here (transitively)."""
    seen: set[str] = set()
    todo = [distribution]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        todo.extend(
            re.split(r"[<>=!~;\[\( ]", line)[0].lower().replace("_", "-") for line in lines if "extra ==" not in line
        )
    return seen


def test_the_base_dependencies_bring_neither_qt_nor_napari() -> None:
    brought = requirements("napari-bloodcells")
    assert {"torch", "numpy", "typer"} <= brought
    unwanted = {name for name in brought if re.match(r"(pyqt|pyside|qtpy|napari$|magicgui|superqt|npe2)", name)}
    assert unwanted == set()


def test_only_the_extra_all_brings_a_window_toolkit_to_users() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with_qt = {
        name for name, lines in extras.items() if any(re.search(r"napari\[all\]|(?i:pyqt|pyside)", x) for x in lines)
    }
    assert with_qt == {"all", "test"}
