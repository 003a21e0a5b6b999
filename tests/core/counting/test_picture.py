"""A picture on its way: a JPEG is read at half size wherever it lies and whatever it is called, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.synthetic import draw_smear

KINDS = {"a.jpg": ("JPEG", 2), "a.png": ("JPEG", 2), "b.png": ("PNG", 1), "b.jpg": ("PNG", 1), "c.jpg": ("TIFF", 1)}
"""What a file is called, what it is, and what it is reduced by."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn field, large enough to be halved, under several names."""
    found = tmp_path_factory.mktemp("pictures")
    for name, (kind, _) in KINDS.items():
        Image.fromarray(draw_smear(seed=2).image).save(found / name, kind)
    return found


@pytest.fixture
def store(folder: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for file in folder.iterdir():
        system.pipe(f"/pictures/{file.name}", file.read_bytes())
    yield "memory://pictures"
    system.rm("/pictures", recursive=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_is_halved_by_its_first_bytes_on_this_disk_and_elsewhere(folder: Path, store: str, name: str) -> None:
    local, remote = Picture.of_file(str(folder / name)), Picture.of_file(f"{store}/{name}")
    assert local.reduce == remote.reduce == KINDS[name][1]
    assert (local.height, local.width) == (remote.height, remote.width)
    assert np.array_equal(local.pixels, remote.pixels)


def test_a_remote_picture_is_made_whole_of_what_was_fetched_once(folder: Path, store: str) -> None:
    half = Picture.of_file(f"{store}/a.jpg")
    fsspec.filesystem("memory").rm("/pictures/a.jpg")
    whole = half.whole()
    assert whole.reduce == 1
    assert np.array_equal(whole.pixels, Picture.of_file(str(folder / "a.jpg"), halve=False).pixels)
    assert half.held == half.pixels.nbytes + (folder / "a.jpg").stat().st_size
    assert whole.held == whole.pixels.nbytes
