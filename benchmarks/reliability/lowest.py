"""The lowest versions that ``pyproject.toml`` allows: installed by themselves, and tested.

    python -m benchmarks.reliability.lowest

Needs ``uv`` (pip install uv) and some 6 GB: a fresh environment with ``--resolution lowest-direct``, so that every
bound of the core is a version that was really run; then the given tests, and one line that says with what.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "parquet,cluster,remote,fhir"
TOOLS = ("pytest>=8.3", "hypothesis>=6.115", "psutil>=6.0")
SHOWN = ("torch", "torchvision", "numpy", "pandas", "scipy", "pillow", "pydantic", "typer")


def install(folder: Path) -> Path:
    """Make the environment in ``folder``; returns its interpreter."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is missing: pip install uv")
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    lowest = [uv, "pip", "install", "-q", "--python", python, "--resolution", "lowest-direct"]
    subprocess.run([*lowest, "-e", f"{ROOT}[{EXTRAS}]", *TOOLS], check=True)
    return python


def versions(python: Path) -> str:
    """What is installed there, in a line."""
    code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {SHOWN!r}), sep=', ')"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Install and test from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tests", nargs="*", default=["tests/core", "tests/cli", "tests/reliability"])
    parser.add_argument("--environment", type=Path, help="one that was made before; else a fresh one, removed after")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        python = options.environment / "bin" / "python" if options.environment else install(Path(scratch) / "lowest")
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", *options.tests]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False)
        print(f"exit code {done.returncode} of {' '.join(options.tests)} with {versions(python)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
