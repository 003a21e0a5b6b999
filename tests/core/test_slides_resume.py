"""A run stopped within a slide goes on there: the same bytes, fewer fields looked at, nothing of another run."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_bloodcells.core.bundle import load_model, save_bundle
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import cluster
from napari_bloodcells.core.counting.cells import OK, FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.counting.shards import PARTIAL, ShardPlan, ShardStore
from napari_bloodcells.core.errors import Cancelled, DiskError, OutputError
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.slides import counting, kept
from napari_bloodcells.core.slides.grid import FieldGrid, GridSettings
from napari_bloodcells.core.slides.kept import KeptFields
from napari_bloodcells.core.slides.seen import SeenField
from napari_bloodcells.synthetic import SmearSettings, draw_smear

TABLES = ("cells.csv", "images.csv", "differential.csv")
FIELDS = 8
SMALL = GridSettings(field_um=128)
PART = 2
_spawn = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,048 x 1,024 pixels at 0.25 um: eight fields of 128 um, all of the monolayer."""
    settings = SmearSettings(width=512, height=512, um_per_pixel=0.25, rbc_coverage=0.4, cells=2)
    one, other = (draw_smear(seed, settings).image for seed in (1, 2))
    rows = [np.concatenate(row, axis=1) for row in ([one, other, other, one], [other, one, one, other])]
    path = tmp_path_factory.mktemp("slide") / "slide.btf"
    um = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, np.concatenate(rows), photometric="rgb", tile=(256, 256), compression="deflate", **um)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of 128 um in parts of two."""
    monkeypatch.setattr(counting, "GridSettings", lambda: SMALL)
    for module in (counting, kept):
        monkeypatch.setattr(module, "PART", PART)


def count_in_this_process(
    given: Sequence[str], options: CountOptions, looked: Any, stand_still: int | None, reached: Any
) -> None:
    """Count ``given`` (slide, model); before field number ``stand_still`` tell ``reached`` and wait to be killed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(counting, "GridSettings", lambda: SMALL)
    for module in (counting, kept):
        patch.setattr(module, "PART", PART)
    look = counting._SlideCount._look

    def watched(self: Any, *rest: Any) -> Any:
        with looked.get_lock():  # which must not be held by a process that is killed
            here = looked.value == stand_still
            looked.value += not here
        if here:
            reached.set()
            time.sleep(600)
        return look(self, *rest)

    patch.setattr(counting._SlideCount, "_look", watched)
    count(given[0], given[1], "find", "cpu", options=options)


def run(
    slide: Path, model: Path, out: Path, *, resume: bool = False, workers: int = 1, kill_before: int | None = None
) -> int:
    """Count in a process of its own, which may be killed before a field; how many fields were looked at."""
    devices = ("cpu",) * workers if workers > 1 else ()
    options = CountOptions(output=out, resume=resume, devices=devices)
    looked, reached = _spawn.Value("i", 0), _spawn.Event()
    given = (str(slide), str(model))
    process = _spawn.Process(target=count_in_this_process, args=(given, options, looked, kill_before, reached))
    process.start()
    if kill_before is not None:
        assert reached.wait(300)
        process.kill()
    process.join(300)
    assert process.exitcode == (0 if kill_before is None else -signal.SIGKILL)
    return int(looked.value)


@pytest.fixture(scope="module")
def whole(slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert run(slide, tiny_model, out) == FIELDS
    return out


@pytest.fixture(scope="module")
def killed(slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that was killed in one process after five fields: two parts of two, and one field lost."""
    out = tmp_path_factory.mktemp("killed")
    assert run(slide, tiny_model, out, kill_before=5) == 5
    return out


def contents(out: Path) -> dict[str, Any]:
    slides = json.loads((out / "run.json").read_text())["slides"]
    return {name: (out / name).read_bytes() for name in TABLES} | {"slides": slides}


def test_a_killed_run_goes_on_within_the_slide_and_ends_with_the_same_bytes(
    slide: Path, tiny_model: Path, whole: Path, killed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(killed, out)
    assert run(slide, tiny_model, out, resume=True, workers=2) == FIELDS - 4
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in out.iterdir()) == sorted([*TABLES, "run.json"])


def test_a_killed_run_of_worker_processes_goes_on_in_one(
    slide: Path, tiny_model: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(slide, tiny_model, out, workers=2, kill_before=7) == 7
    assert run(slide, tiny_model, out, resume=True) == FIELDS - 6
    assert contents(out) == contents(whole)


def test_nothing_is_taken_of_a_run_with_another_file_model_or_option(
    slide: Path, tiny_model: Path, killed: Path, tmp_path: Path
) -> None:
    def resumed(source: Path, model: Path = tiny_model, **options: Any) -> None:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(killed, out)
        before = sorted((out / PARTIAL).rglob("*"))
        assert any(path.name == "monolayer-000001.jsonl" for path in before)
        try:
            count(source, str(model), "find", "cpu", options=CountOptions(output=out, resume=True, **options))
        finally:
            assert sorted((out / PARTIAL).rglob("*")) == before, "what was finished stays for the same run"

    with pytest.raises(OutputError, match="the threshold differs"):
        resumed(slide, threshold=0.3)
    other = load_model(tiny_model, "cpu")
    other.module.head.weight *= -0.5
    with pytest.raises(OutputError, match="the model differs"):
        resumed(slide, save_bundle(tmp_path / "tiny", other.module, other.info))
    changed = tmp_path / "changed" / slide.name
    changed.parent.mkdir()
    shutil.copyfile(slide, changed)  # the same pixels, written later
    with pytest.raises(OutputError, match="the list of images differs"):
        resumed(changed)


def test_what_is_kept_has_the_name_of_the_run_and_goes_with_its_shard(tmp_path: Path) -> None:
    jobs = [FieldJob("a.svs", "/data/a.svs"), FieldJob("b.jpg", "/data/b.jpg"), FieldJob("c.tif", "/data/c.tif")]
    (one, photograph, large), others = (
        ShardStore(tmp_path, ShardPlan({"model": model}, 3, 1), overwrite=True).keeping(jobs) for model in "xy"
    )
    assert photograph.kept is None
    places = [Path(job.kept or "") for job in (one, large, others[0], others[2])]
    assert len({place.name for place in places}) == 2
    assert len({place.parent for place in places}) == 2
    store = ShardStore(tmp_path, ShardPlan({"model": "y"}, 3, 1), resume=True)
    for place in places[2:]:
        (place / "more").mkdir(parents=True)
    store.forget(jobs[:1])
    assert [place.exists() for place in places] == [False, False, False, True]


def test_companions_of_a_slide_belong_to_it(slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The pixels of a .mrxs lie in the folder beside it: a run is not resumed when they changed."""
    given, out = tmp_path / "given", tmp_path / "out"
    (given / "a").mkdir(parents=True)
    (given / "a.mrxs").touch()
    (given / "a" / "Data0000.dat").write_bytes(b"one")

    class Stop(Silent):
        def cancelled(self) -> bool:
            return True

    options = CountOptions(output=out)
    with pytest.raises(Cancelled):
        count([given / "a.mrxs"], str(tiny_model), "find", "cpu", Stop(), options)
    with pytest.raises(Cancelled):
        count([given / "a.mrxs"], str(tiny_model), "find", "cpu", Stop(), replace(options, resume=True))
    (given / "a" / "Data0000.dat").write_bytes(b"other")
    with pytest.raises(OutputError, match="the list of images differs"):
        count([given / "a.mrxs"], str(tiny_model), "find", "cpu", Stop(), replace(options, resume=True))


@pytest.fixture(scope="module")
def counter(tiny_model: Path) -> FieldCounter:
    return FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="find"))


class StopAfter(Silent):
    """Cancels after so many fields that were not kept; ``done`` are those that were looked at."""

    def __init__(self, limit: int) -> None:
        self.limit, self.done = limit, 0

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.done += n == 1

    def cancelled(self) -> bool:
        return self.done >= self.limit


def counted(counter: FieldCounter, job: FieldJob, progress: Silent, wanted: int | None = None) -> FieldRecord:
    former = counter.setup
    counter.setup, counter.progress = replace(former, cells_wanted=wanted), progress
    try:
        return counting.count_slide(counter, job)
    finally:
        counter.setup, counter.progress = former, Silent()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("wanted", "monolayer"), [(None, True), (7, True), (None, False)])
def test_a_slide_that_is_stopped_again_and_again_gives_the_same_record(
    wanted: int | None,
    monolayer: bool,
    counter: FieldCounter,
    slide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not monolayer:
        monkeypatch.setattr("napari_bloodcells.core.slides.monolayer.MonolayerRule.holds", lambda *_: False)
    job = FieldJob("slide", str(slide))
    all_of_it = StopAfter(10**6)
    expected = counted(counter, job, all_of_it, wanted)
    assert expected.status == OK
    assert expected.cells
    looked, stops, record = 0, 0, None
    while record is None:
        progress = StopAfter(3)
        try:
            record = counted(counter, replace(job, kept=str(tmp_path / "kept")), progress, wanted)
        except Cancelled:
            stops += 1
        looked += progress.done
    assert record == expected
    assert stops >= 1
    assert looked <= all_of_it.done + stops, "of every stop one field is lost"
    again = StopAfter(1)
    assert counted(counter, replace(job, kept=str(tmp_path / "kept")), again, wanted) == expected
    assert again.done == 0


@pytest.mark.usefixtures("small")
def test_a_full_disk_ends_the_run_and_is_no_fault_of_the_slide(
    counter: FieldCounter, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FieldJob("slide", str(slide), kept=str(tmp_path / "kept"))
    whole = counted(counter, FieldJob("slide", str(slide)), Silent())
    real = kept.write_or_tell

    def full(path: Path, data: bytes) -> None:
        if path.name == "monolayer-000001.jsonl":
            raise DiskError("no space left")
        real(path, data)

    monkeypatch.setattr(kept, "write_or_tell", full)
    with pytest.raises(DiskError):
        counted(counter, job, Silent())
    monkeypatch.setattr(kept, "write_or_tell", real)
    progress = StopAfter(10**6)
    assert counted(counter, job, progress) == whole
    assert progress.done == FIELDS - PART


@pytest.mark.usefixtures("small")
def test_a_worker_of_a_cluster_goes_on_where_another_was(
    counter: FieldCounter, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_counters", {})
    job = FieldJob("slide", str(slide), kept=str(tmp_path / "kept"))
    with pytest.raises(Cancelled):
        counted(counter, job, StopAfter(5))
    parcel = cluster._Parcel(counter.setup, {})
    monkeypatch.setattr(cluster._Parcel, "_build", lambda _: counter)
    counter.progress = progress = StopAfter(10**6)
    try:
        _, records, _ = cluster.count_shard(parcel, 0, [job])
    finally:
        counter.progress = Silent()
    assert progress.done == FIELDS - 4
    assert FieldRecord.from_json(records[0]) == counted(counter, replace(job, kept=None), Silent())


ORDER = [FieldGrid(2048, 1024, 512, 128).field(row, column) for row in range(2) for column in range(4)]


def seen(number: int, cells: int = 1) -> SeenField:
    rng = np.random.default_rng(number)
    kinds = {"boxes": (cells, 4), "scores": (cells,), "probabilities": (cells, 5), "distances": (cells,)}
    found = {
        name: rng.random(shape).astype(np.float64 if name == "boxes" else np.float32) for name, shape in kinds.items()
    }
    remarks = ("out of focus",) if number % 2 else ()
    place = ORDER[number]
    return SeenField(place.row, place.column, True, 30, 2, remarks, owned=rng.random(cells) > 0.5, **found)


def same(one: SeenField, other: SeenField) -> bool:
    a, b = vars(one), vars(other)
    return all(
        np.array_equal(a[name], b[name]) and np.asarray(a[name]).dtype == np.asarray(b[name]).dtype for name in a
    )


@pytest.mark.usefixtures("small")
def test_fields_come_back_from_the_disk_to_the_last_digit(tmp_path: Path) -> None:
    store = KeptFields(tmp_path / "kept")
    fields = [seen(0, 3), SeenField(0, 1), seen(2, 1)]
    store.write_fields("monolayer", 0, fields[:2])
    store.write_fields("monolayer", 1, fields[2:])
    back = store.fields("monolayer", ORDER)
    assert len(back) == 3
    assert all(same(one, other) for one, other in zip(fields, back, strict=True))
    assert store.fields("all", ORDER) == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "damage", ["", "{", "[1, 2]\n[3]\n", '{"row": 0, "column": 0}\n', '{"boxes": [[1]], "scores": [1]}\n', "ä"]
)
def test_a_part_that_is_damaged_is_looked_at_again_with_all_after_it(damage: str, tmp_path: Path) -> None:
    store = KeptFields(tmp_path / "kept")
    for part in range(3):
        store.write_fields("all", part, [seen(2 * part), seen(2 * part + 1)])
    assert len(store.fields("all", ORDER)) == 6
    (tmp_path / "kept" / "all-000001.jsonl").write_text(damage, encoding="utf-8")
    assert [one.place for one in store.fields("all", ORDER)] == [(0, 0), (0, 1)]


@pytest.mark.usefixtures("small")
def test_parts_in_another_order_of_fields_are_not_taken(tmp_path: Path) -> None:
    store = KeptFields(tmp_path / "kept")
    store.write_fields("all", 0, [seen(0), seen(1)])
    store.write_fields("all", 1, [seen(2), seen(3)])
    assert len(store.fields("all", [*ORDER[:3], *reversed(ORDER[3:])])) == 2
    assert store.fields("all", ORDER[::-1]) == []


@pytest.mark.parametrize("damage", ["{", "{}", '{"stained": [1], "ground": 1, "scale": {"problems": []}}'])
def test_a_damaged_look_is_taken_again(damage: str, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "look.json").write_text(damage)
    assert KeptFields(tmp_path / "kept").look() is None


def test_nothing_is_kept_where_the_output_folder_is_not_seen(tmp_path: Path) -> None:
    for store in (KeptFields(None), KeptFields(tmp_path / "not here" / "kept")):
        store.write_fields("all", 0, [seen(0)])
        assert store.fields("all", ORDER) == []
        assert store.look() is None
    assert os.listdir(tmp_path) == []
