"""The name of an overlay lies below its folder, whatever the image is called; what stands in its way is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from PIL import Image

from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import overlay
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.overlay import overlay_name, write_overlays
from napari_bloodcells.core.counting.result import CountResult
from napari_bloodcells.core.errors import DataWarning, DiskError


@pytest.mark.parametrize(
    ("image", "windows", "expected"),
    [
        ("D:/smears/1.jpg", True, "D/smears/1.jpg.jpg"),
        ("D:/smears/1.jpg", False, "D/smears/1.jpg.jpg"),
        ("D:", True, "D.jpg"),
        ("D:1.jpg", True, "D_1.jpg.jpg"),
        ("10:30.jpg", True, "10_30.jpg.jpg"),
        ("10:30.jpg", False, "10:30.jpg.jpg"),
        ("//server/share/1.jpg", True, "server/share/1.jpg.jpg"),
        ("..\\..\\1.jpg", True, "1.jpg.jpg"),
        ("C:\\smears\\1.jpg", True, "C/smears/1.jpg.jpg"),
        ("a\\1.jpg", False, "a\\1.jpg.jpg"),
    ],
)
def test_no_overlay_lies_outside_of_its_folder(
    image: str, windows: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "_WINDOWS", windows)
    assert overlay_name(image) == expected
    for folder in (PureWindowsPath("C:/out/overlay"), PurePosixPath("/out/overlay")) if windows else ():
        assert folder in (folder / overlay_name(image)).parents
        assert folder in (folder / overlay_name(image, slide=True)).parents


def test_long_names_that_begin_alike_have_an_overlay_each() -> None:
    stem = "\U00020000" * 60  # four bytes each: the longest that a name of sixty letters can be
    ends = [f"{stem}1", f"{stem}2", f"{stem}\udce9", f"{'x' * 230}11", f"{'x' * 230}12"]
    images = [f"{folder}/{end}.png" for folder in "ab" for end in ends]
    names = [overlay_name(image, slide) for image in images for slide in (False, True)]
    assert len(set(names)) == len(names)
    assert all(len(name.split("/")[-1].encode("utf-8", "surrogateescape")) <= 255 for name in names)
    assert overlay_name(f"{'x' * 225}.png") == f"{'x' * 225}.png.jpg"


@pytest.fixture
def counted(tmp_path: Path, tiny_model: Path) -> CountResult:
    """A photograph in a folder, and one beside it."""
    for name in ("a.png", "sub/b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), "white").save(tmp_path / "in" / name)
    return count(tmp_path / "in", str(tiny_model), "whole", "cpu")


def test_a_file_in_the_place_of_a_folder_costs_one_overlay(counted: CountResult, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("mine")
    with pytest.warns(DataWarning, match=r"sub/b\.png: is not drawn \(a file lies where"):
        assert [path.name for path in write_overlays(counted, tmp_path / "out")] == ["a.png.jpg"]
    assert (tmp_path / "out" / "sub").read_text() == "mine"


def test_a_full_disk_is_told_where_a_folder_is_to_be_made(
    counted: CountResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskError, match=r"out: cannot be made: no space left on device\. What was finished is kept"):
        write_overlays(counted, tmp_path / "out")


def test_what_a_killed_run_left_half_drawn_goes(tiny_model: Path, counted: CountResult, tmp_path: Path) -> None:
    result = count(tmp_path / "in", str(tiny_model), "whole", "cpu", options=CountOptions(output=tmp_path / "out"))
    halves = [tmp_path / "out" / "overlay" / name for name in (".part-1", "sub/.part-2")]
    for half in halves:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.touch()
    write_overlays(result, tmp_path / "out" / "overlay")
    assert not any(half.exists() for half in halves)
    halves[1].touch()
    count(
        tmp_path / "in", str(tiny_model), "whole", "cpu", options=CountOptions(output=tmp_path / "out", overwrite=True)
    )
    assert not (tmp_path / "out" / "overlay").exists()
