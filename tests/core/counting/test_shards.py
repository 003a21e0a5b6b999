"""Shards on disk: whole or not at all, of one run only, complete before they are believed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from napari_bloodcells.core.counting.cells import CellRecord, FieldRecord
from napari_bloodcells.core.counting.shards import (
    PARTIAL,
    PLAN,
    ShardPlan,
    ShardStore,
    check_same_run,
    digest_of,
    shard_size,
    write_or_tell,
)
from napari_bloodcells.core.errors import OutputError

PLAN_A = ShardPlan({"model": "abc", "threshold": 0.5}, 5, 2)
CELL = CellRecord((1.0, 2.5, 30.25, 40.0), "neutrophil", 0.9, (0.9, 0.1), "found", 0.31, None)


def record(i: int) -> FieldRecord:
    return FieldRecord(f"ä {i}.jpg", width=8, height=6, um_per_pixel=0.1, warnings=("no \u2028 break",), cells=(CELL,))


def fill(store: ShardStore, shards: tuple[int, ...] = (0, 1, 2)) -> None:
    for shard in shards:
        span = store.plan.images_of(shard)
        store.write(shard, [record(i) for i in range(span.start, span.stop)])


def test_records_come_back_as_they_were_and_in_the_order_of_the_images(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, PLAN_A)
    fill(store, (2, 0, 1))
    assert list(store.records()) == [record(i) for i in range(5)]


def test_the_shards_that_are_missing_are_those_without_a_file(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, PLAN_A)
    assert store.missing() == [0, 1, 2]
    fill(store, (1,))
    assert ShardStore(tmp_path, PLAN_A, resume=True).missing() == [0, 2]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (ShardPlan({"model": "xyz", "threshold": 0.5}, 5, 2), "the model differs"),
        (ShardPlan({"model": "abc", "threshold": 0.6}, 5, 2), "the threshold differs"),
        (ShardPlan({"model": "abc"}, 5, 2), "the threshold differs"),
    ],
)
def test_another_run_cannot_be_resumed(tmp_path: Path, plan: ShardPlan, words: str) -> None:
    fill(ShardStore(tmp_path, PLAN_A), (0,))
    with pytest.raises(OutputError, match=words):
        ShardStore(tmp_path, plan, resume=True)
    assert ShardStore(tmp_path, PLAN_A, resume=True).missing() == [1, 2]


def test_an_unfinished_run_is_not_started_over_unasked(tmp_path: Path) -> None:
    fill(ShardStore(tmp_path, PLAN_A), (0,))
    with pytest.raises(OutputError, match="--resume"):
        ShardStore(tmp_path, PLAN_A)
    assert ShardStore(tmp_path, PLAN_A, overwrite=True).missing() == [0, 1, 2]


def test_a_resumed_run_keeps_its_size_of_shards(tmp_path: Path) -> None:
    fill(ShardStore(tmp_path, PLAN_A), (0,))
    resumed = ShardStore(tmp_path, ShardPlan(PLAN_A.fingerprint, 5, 4), resume=True)
    assert resumed.plan.size == 2
    assert resumed.missing() == [1, 2]


def test_shards_without_a_plan_belong_to_nobody(tmp_path: Path) -> None:
    fill(ShardStore(tmp_path, PLAN_A))
    (tmp_path / PARTIAL / PLAN).unlink()
    assert ShardStore(tmp_path, PLAN_A, resume=True).missing() == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b'{"image": 3}\n', b"\xff\xff", b'{"image": "a"', b"[]\n[]\n"])
def test_a_damaged_shard_is_named_and_never_counted(tmp_path: Path, damage: bytes) -> None:
    store = ShardStore(tmp_path, PLAN_A)
    fill(store)
    store.path(1).write_bytes(damage)
    with pytest.raises(OutputError, match=r"000001\.jsonl"):
        list(store.records())


def test_a_shard_with_a_line_less_is_incomplete(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, PLAN_A)
    fill(store)
    lines = store.path(0).read_bytes().splitlines(keepends=True)
    store.path(0).write_bytes(lines[0])
    with pytest.raises(OutputError, match="incomplete"):
        list(store.records())


@pytest.mark.parametrize("damage", ["", "[]", '{"size": 2}', '{"fingerprint": {}, "size": 0}'])
def test_a_damaged_plan_is_an_error_with_a_way_out(tmp_path: Path, damage: str) -> None:
    fill(ShardStore(tmp_path, PLAN_A))
    (tmp_path / PARTIAL / PLAN).write_text(damage)
    with pytest.raises(OutputError, match="remove"):
        ShardStore(tmp_path, PLAN_A, resume=True)


def test_a_disk_that_is_full_leaves_no_half_file_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"no space left.*--resume"):
        write_or_tell(tmp_path / "cells.csv", b"x" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_is_replaced_whole(tmp_path: Path) -> None:
    for data in (b"first and longer", b"second"):
        write_or_tell(tmp_path / "cells.csv", data)
        assert (tmp_path / "cells.csv").read_bytes() == data


def test_a_run_of_single_images_is_resumed(tmp_path: Path) -> None:
    plan = ShardPlan(PLAN_A.fingerprint, 5, 1)
    ShardStore(tmp_path, plan).write(3, [record(3)])
    assert ShardStore(tmp_path, plan, resume=True).missing() == [0, 1, 2, 4]


def test_the_plan_goes_first_so_that_shards_left_behind_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ShardStore(tmp_path, PLAN_A)
    fill(store)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed in the midst of it
        store.remove()
    assert not (tmp_path / PARTIAL / PLAN).exists()
    assert ShardStore(tmp_path, PLAN_A, resume=True).missing() == [0, 1, 2]


@pytest.mark.parametrize(("length", "shown"), [(40, "x" * 40), (41, "x" * 37 + "...")])
def test_what_differs_between_two_runs_is_said_in_short(tmp_path: Path, length: int, shown: str) -> None:
    with pytest.raises(OutputError, match=rf"the model differs \({re.escape(shown)} then, None now\)"):
        check_same_run(tmp_path, {"model": "x" * length}, {})


def test_the_digest_of_a_list_tells_its_lines_apart() -> None:
    assert digest_of(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()
    assert len({digest_of(lines) for lines in (["a", "b"], ["b", "a"], ["ab"], ["a\udce9"], ["aé"])}) == 5


def test_the_size_of_shards_shares_the_work_among_the_workers() -> None:
    assert [shard_size(320, workers) for workers in (0, 1, 2, 4, 64)] == [20, 20, 10, 5, 1]


@pytest.mark.parametrize(("n", "workers"), [(1, 1), (3, 8), (100, 2), (20_000, 2), (10**8, 64)])
def test_shards_cover_every_image_once(n: int, workers: int) -> None:
    plan = ShardPlan({}, n, shard_size(n, workers))
    assert 1 <= plan.size <= 64
    spans = [plan.images_of(shard) for shard in (0, plan.n_shards // 2, plan.n_shards - 1)]
    assert spans[0].start == 0
    assert spans[-1].stop == n
    assert plan.images_of(plan.n_shards - 1).start == (plan.n_shards - 1) * plan.size
