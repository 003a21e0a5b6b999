"""The fields of a layer that lies on a slow disk: what is read of them, and in which thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.napari import fields as fields_module
from napari_bloodcells.napari.fields import fields_of
from napari_bloodcells.napari.reviewed_cells import open_reviews, reviews_data

CHUNK = 256


class SlowDisk:
    """Chunks of a picture that are read one by one, each with the thread that asked for it noted down."""

    def __init__(self, seed: int = 0, seconds: float = 0.0) -> None:
        self.threads: list[threading.Thread] = []
        self._tile = np.random.default_rng(seed).integers(0, 255, (CHUNK, CHUNK, 3), dtype=np.uint8)
        self._seconds = seconds

    def array(self, n: int) -> da.Array:
        """An array of n by n chunks."""
        return da.map_blocks(self._read, chunks=((CHUNK,) * n, (CHUNK,) * n, (3,)), dtype=np.uint8)

    def _read(self, block_info: Any = None) -> np.ndarray:
        self.threads.append(threading.current_thread())
        time.sleep(self._seconds)
        return self._tile


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megapixel is large for this test."""
    monkeypatch.setattr(fields_module, "LARGE", 1_000_000)


def test_of_a_multiscale_image_the_smallest_level_that_serves_is_looked_at() -> None:
    disk, small = SlowDisk(), np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    layer = ViewerModel().add_image([disk.array(20), da.from_array(small), small[::8, ::8]], rgb=True, multiscale=True)
    disk.threads.clear()
    digest = fields_of(layer).digest()
    assert not disk.threads
    other = ViewerModel().add_image([SlowDisk().array(20), small[::-1]], rgb=True, multiscale=True)
    assert fields_of(other).digest() != digest


def test_of_a_large_lazy_image_without_levels_few_chunks_are_read() -> None:
    disk = SlowDisk()
    layer = ViewerModel().add_image(disk.array(20), rgb=True, contrast_limits=(0, 255))
    disk.threads.clear()
    fields = fields_of(layer, look=False)
    assert not disk.threads
    fields.refuse_grey()
    assert 0 < len(disk.threads) <= 4 * 25
    digest = fields.digest()
    n = len(disk.threads)
    assert fields.digest() == digest
    assert len(disk.threads) == n, "read once"
    other = ViewerModel().add_image(SlowDisk(seed=1).array(20), rgb=True, contrast_limits=(0, 255))
    assert fields_of(other).digest() != digest


def test_a_large_lazy_grey_image_is_refused() -> None:
    grey = da.zeros((5000, 5000, 3), np.uint8, chunks=(512, 512, 3))
    with pytest.raises(ImageError, match="grey image"):
        fields_of(ViewerModel().add_image(grey, rgb=True, contrast_limits=(0, 255)))


def test_the_fields_of_reviewed_cells_are_read_by_who_asks_for_the_data_and_only_those_with_cells(
    make_review: Any, tmp_path: Path
) -> None:
    from napari_bloodcells.napari.cell_shapes import cell_layer_data

    disks = [SlowDisk(seed) for seed in range(3)]
    viewer = ViewerModel()
    stack = da.stack([disk.array(2) for disk in disks])
    image = viewer.add_image(stack, rgb=True, name="smear", contrast_limits=(0, 255))
    names = tuple(f"smear [{k}]" for k in (1, 2, 3))
    review = make_review(["neutrophil", "lymphocyte", "monocyte"], names)
    review.confirm([3])
    data, keywords = cell_layer_data(review, "cells", True, image)
    viewer.add_shapes(data, **keywords)
    for disk in disks:
        disk.threads.clear()
    found = open_reviews(viewer.layers)
    assert not any(disk.threads for disk in disks)
    samples = reviews_data(found).samples
    assert [sample.label for sample in samples] == ["monocyte"]
    assert samples[0].image.is_file()
    assert not disks[1].threads


@pytest.mark.gui
def test_the_window_reads_no_chunk_of_a_slow_disk_itself_when_an_image_is_opened_and_counted(
    open_widget: Any, wait_for: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """napari itself reads what it draws, here of the levels that lie in memory."""
    viewer, widget = open_widget()
    disk = SlowDisk(seconds=0.02)
    asked: list[threading.Thread] = []
    for name in ("_coarsely", "read", "cut"):
        kept = getattr(fields_module.Fields, name)

        def noted(self: Any, *args: Any, kept: Any = kept) -> Any:
            asked.append(threading.current_thread())
            return kept(self, *args)

        monkeypatch.setattr(fields_module.Fields, name, noted)
    viewer.add_image(disk.array(12), rgb=True, contrast_limits=(0, 255), name="slow")
    wait_for(lambda: bool(asked) and not widget.turns.are_going)
    widget.run_bar.run.click()
    wait_for(lambda: len(asked) > 1)
    widget.counting.cancel()
    wait_for(lambda: not widget.counting.is_running)
    assert threading.main_thread() not in asked
