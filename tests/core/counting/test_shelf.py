"""Pictures read ahead: what lies on the shelf is what a worker would have read, and the rest is left to it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_bloodcells.core.counting import shelf as shelves
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.counting.shelf import Lent, LentShelf, Shelf
from napari_bloodcells.core.images import DEFAULT_MAX_PIXELS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory without a name")


@pytest.fixture
def jobs(tmp_path: Path) -> list[FieldJob]:
    """Photographs of two sizes, of which one may be a copy, and what cannot lie on a shelf."""
    random = np.random.default_rng(0)
    for i, size in enumerate([(30, 40), (700, 600), (50, 20)]):
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(tmp_path / f"{i}.jpg", quality=90)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    found = [FieldJob(f"{i}", str(tmp_path / f"{i}.jpg"), maybe_copy=i == 2) for i in range(3)]
    others = [str(tmp_path / "bad.jpg"), str(tmp_path / "gone.svs"), "https://nowhere/a.jpg", np.zeros((4, 4, 3))]
    return [*(FieldJob(f"other {i}", source) for i, source in enumerate(others)), *found]


def test_a_worker_finds_each_picture_once_as_it_would_have_read_it(jobs: list[FieldJob]) -> None:
    shelf = Shelf(jobs, DEFAULT_MAX_PIXELS, True)
    shelf.fill(lambda: False)
    lent = shelf.lend()
    assert lent is not None
    there = LentShelf(lent)
    for job in jobs[4:]:
        found, wanted = there.take(job.image), Picture.of_file(str(job.source), digest=job.maybe_copy)
        assert found is not None
        assert (found.pixels == wanted.pixels).all()
        assert found.pixels.flags.writeable
        assert {**vars(found), "pixels": 0} == {**vars(wanted), "pixels": 0}
        assert there.take(job.image) is None
    assert [there.take(job.image) for job in jobs[:4]] == [None] * 4
    shelf.close()
    assert not os.path.exists(lent.path)


def test_a_full_shelf_takes_no_more(jobs: list[FieldJob], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "SHELF_BYTES", 30 * 40 * 3)
    shelf = Shelf(jobs, DEFAULT_MAX_PIXELS, True)
    shelf.fill(lambda: False)
    lent = shelf.lend()
    assert lent is not None
    there = LentShelf(lent)
    assert there.take("0") is not None
    assert there.take("1") is None


def test_nothing_is_lent_where_there_was_no_time_or_no_memory(
    jobs: list[FieldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Shelf(jobs, DEFAULT_MAX_PIXELS, True)
    late.fill(lambda: True)
    assert late.lend() is None

    def no_memory(*_: object) -> int:
        raise OSError("no space")

    monkeypatch.setattr(os, "pwrite", no_memory)
    full = Shelf(jobs, DEFAULT_MAX_PIXELS, True)
    full.fill(lambda: False)
    assert full.lend() is None
    monkeypatch.delattr(os, "memfd_create")
    none = Shelf(jobs, DEFAULT_MAX_PIXELS, True)
    none.fill(lambda: False)
    assert none.lend() is None
    for shelf in (late, full, none):
        shelf.close()


def test_a_shelf_that_cannot_be_opened_holds_nothing() -> None:
    assert LentShelf(Lent("/proc/0/fd/0", 0, 10)).take("0") is None
