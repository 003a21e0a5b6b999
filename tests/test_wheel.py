"""The manifest is inside the wheel and is found in an editable install: napari sees the plugin after either."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASK = (
    "from npe2 import PluginManager; pm = PluginManager.instance(); pm.discover(); "
    "m = pm.get_manifest('napari-bloodcells'); import napari_bloodcells; "
    "print(m.display_name, len(m.contributions.widgets), napari_bloodcells.__file__)"
)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs, without a copied manifest, so that the build has to make it."""
    import shutil

    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "hatch_build.py", "napari.yaml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    left_out = shutil.ignore_patterns("__pycache__", "napari.yaml")
    shutil.copytree(ROOT / "src", folder / "src", ignore=left_out)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an empty environment that sees the packages of this one (by a path file), but not this project."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    import npe2

    (site / "borrowed.pth").write_text(f"{Path(npe2.__file__).parents[1]}\n")
    return python


def site_of(python: Path) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


@pytest.mark.slow
def test_the_manifest_is_in_the_wheel_and_validates_where_it_is_installed(
    source: Path, environment: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        assert packed.read("napari_bloodcells/napari.yaml") == (ROOT / "napari.yaml").read_bytes()
    assert names.count("napari_bloodcells/napari.yaml") == 1
    assert any(name.endswith("entry_points.txt") for name in names)
    target = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", target, wheel)
    (site_of(environment) / "aaa-project.pth").write_text(f"import sys; sys.path.insert(0, {str(target)!r})\n")
    said = run(environment, "-m", "npe2", "validate", "napari-bloodcells", "--imports", cwd=tmp_path)
    assert "valid" in said
    title, widgets, file = run(environment, "-c", ASK, cwd=tmp_path).rsplit(maxsplit=2)
    assert (title, widgets) == ("Blood cells", "3")
    assert Path(file).is_relative_to(target)


@pytest.mark.slow
def test_an_editable_install_finds_the_manifest(source: Path, environment: Path, tmp_path: Path) -> None:
    target = tmp_path / "editable"
    run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-q"),
        *("--target", target, "-e", source),
    )
    code = f"import sys; sys.path.insert(0, {str(target)!r}); sys.path.insert(0, {str(source / 'src')!r})\n"
    (site_of(environment) / "aaa-project.pth").write_text(code)
    assert (source / "src" / "napari_bloodcells" / "napari.yaml").read_bytes() == (ROOT / "napari.yaml").read_bytes()
    title, widgets, file = run(environment, "-c", ASK, cwd=tmp_path).rsplit(maxsplit=2)
    assert (title, widgets) == ("Blood cells", "3")
    assert Path(file).is_relative_to(source)
