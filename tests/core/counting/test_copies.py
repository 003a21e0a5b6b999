"""Photographs that are one file under two names: told of the later one, counted all the same, looked for cheaply."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import picture as picture_module
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.result import CountResult

TOLD = "3 images are exact copies of others and are counted too (images.csv says of which); remove what is not meant, "


@pytest.fixture
def doubled(smears: Path, tmp_path: Path) -> Path:
    """Two samples; one photograph of the first lies there once more, and is the second one's whole but for one."""
    root = tmp_path / "doubled"
    shutil.copytree(smears / "a", root / "a")
    shutil.copytree(smears / "b", root / "b")
    for name in ("a/again.png", "b/9.png", "b/10.png"):
        shutil.copy(root / "a" / "smear_0001.png", root / name)
    return root


def whole(source: object, model: Path, **options: object) -> CountResult:
    return count(source, str(model), "whole", "cpu", options=CountOptions(**options))


def copies(images: pd.DataFrame) -> dict[str, str]:
    return {row["image"]: row["warnings"] for row in images.to_dict("records") if row["warnings"]}


def test_a_copy_says_of_which_image_and_is_counted(doubled: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = whole(doubled, tiny_model, output=tmp_path / "out", batch_size=2)
    same = "is the same file as a/again.png, byte for byte, and counted too."
    assert copies(result.images) == {
        "a/smear_0001.png": f"smear_0001.png: {same}",
        "b/9.png": f"9.png: {same}",
        "b/10.png": f"10.png: {same}",
    }
    assert len(result.cells) == 15
    assert result.run["warnings"] == [f"{TOLD}and count again."]
    written = pd.read_csv(tmp_path / "out" / "images.csv", keep_default_na=False)
    assert copies(written) == copies(result.images)
    resumed = whole(doubled, tiny_model, output=tmp_path / "out", resume=True, batch_size=2)
    assert resumed.run["warnings"] == result.run["warnings"]


def test_workers_find_the_same_copies(doubled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_bloodcells.core.count.FEW", 0)
    alone, shared = whole(doubled, tiny_model, workers=1), whole(doubled, tiny_model, workers=2, batch_size=4)
    assert shared.run["workers"] == 2
    assert copies(shared.images) == copies(alone.images)
    assert shared.run["warnings"] == alone.run["warnings"]


def test_a_copy_in_anonymous_results_is_named_by_its_number(doubled: Path, tiny_model: Path) -> None:
    said = copies(whole(doubled, tiny_model, anonymous=True).images)
    told = "field 1: is the same file as sample 1/field 1, byte for byte, and counted too."
    assert said["sample 2/field 1"] == told
    assert list(said) == ["sample 1/field 3", "sample 2/field 1", "sample 2/field 2"]
    assert "again" not in str(said)


def test_one_copy_is_said_in_the_singular_and_a_broken_one_is_not(tiny_model: Path, tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (60, 60), "white").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.jpg").write_text("no image at all")
    result = whole(tmp_path, tiny_model)
    assert list(copies(result.images)) == ["b.png"]
    assert result.run["warnings"][0].startswith("1 image is an exact copy of another and is counted too (images.csv")


def test_only_files_of_one_size_are_read_for_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size, color in (("a", 60, 9), ("b", 60, 99), ("c", 61, 9)):
        Image.fromarray(np.full((size, size, 3), color, np.uint8)).save(tmp_path / f"{name}.bmp")
    asked: list[str] = []
    real = picture_module.file_digest
    monkeypatch.setattr(picture_module, "file_digest", lambda path: asked.append(Path(path).name) or real(path))
    result = whole(tmp_path, tiny_model)
    assert asked == ["a.bmp", "b.bmp"]
    assert copies(result.images) == {}
    assert result.run["warnings"] == []
    named = {"one": tmp_path / "a.bmp", "two": tmp_path / "a.bmp"}
    assert list(copies(whole(named, tiny_model).images)) == ["two"]
