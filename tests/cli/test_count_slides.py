"""The command ``count`` on a whole slide: the tables, the area in ``run.json``, the overview."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_bloodcells.synthetic import SmearSettings, draw_smear

COMMAND = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()", "count"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,024 x 2,048 pixels at 0.25 um: the upper half drawn with eight cells, the lower one empty."""
    smear = draw_smear(1, SmearSettings(width=512, height=512, um_per_pixel=0.25, rbc_coverage=0.4, cells=2)).image
    pixels = np.full((2048, 1024, 3), (246, 232, 217), np.uint8)
    pixels[:1024] = np.tile(smear, (2, 2, 1))
    path = tmp_path_factory.mktemp("slide") / "slide.btf"
    um = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="deflate", bigtiff=True, **um)
    return path


def test_a_slide_is_counted_by_the_same_command(slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    before = slide.read_bytes()
    out = tmp_path / "out"
    options = ["-o", str(out), "--model", str(tiny_model), "--device", "cpu", "--overlay", "--report"]
    done = subprocess.run([*COMMAND, str(slide), *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert slide.read_bytes() == before
    cells, images = pd.read_csv(out / "cells.csv"), pd.read_csv(out / "images.csv")
    assert len(cells) == 8
    assert images.loc[0, ["image", "status", "width", "height"]].tolist() == ["slide.btf", "ok", 1024, 2048]
    assert cells["y_max"].max() < 1024
    area = json.loads((out / "run.json").read_text())["slides"]["slide.btf"]
    assert area["fields"] == ["#", "."]
    assert area["counted_mm2"] == pytest.approx(0.066, abs=0.001)
    assert area["scale_from"] == "file"
    assert [path.name for path in (out / "overlay").iterdir()] == ["slide.btf-overview.jpg"]
    found = int(images.loc[0, "n_platelets"])
    assert found > 0
    assert f"platelets found {found}\n" in done.stdout, "a slide is no field, so nothing is given per field"
    assert "per field" not in (out / "differential.csv").read_text()
    page = (out / "report.html").read_text("utf-8")
    assert "</span> on 1 slide</dd>" in page
    assert "per field" not in page
    assert '<td class="n">1 slide</td>' in (out / "index.html").read_text("utf-8")


def test_wanted_cells_must_be_a_number_above_zero(slide: Path, tmp_path: Path) -> None:
    options = ["-o", str(tmp_path / "out"), "--cells-wanted", "0"]
    done = subprocess.run([*COMMAND, str(slide), *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "cells-wanted" in done.stderr
