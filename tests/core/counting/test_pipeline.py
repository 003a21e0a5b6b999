"""The stages of counting: half-size reading, cells found together, errors that travel with their image."""

from __future__ import annotations

import re
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_bloodcells.core.boxes import Boxes, iou
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import pipeline
from napari_bloodcells.core.counting.cells import FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.located import enlarged, match_labels, reading_order
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.errors import OutageError
from napari_bloodcells.core.images import Photograph
from napari_bloodcells.core.localize.maps import MapMaker
from napari_bloodcells.synthetic import SmearSettings, write_folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five JPEGs large enough to be read at half size, and one that is not."""
    folder = tmp_path_factory.mktemp("photographs")
    write_folder(folder / "large", 5, 7, SmearSettings(), suffix=".jpg", xml=False)
    write_folder(folder / "small", 1, 9, SmearSettings(width=300, height=240, um_per_pixel=0.2), suffix=".jpg")
    return sorted(folder.rglob("*.jpg"))


def counted(files: list[Path], model: Path, **setup: object) -> list[FieldRecord]:
    jobs = [FieldJob(file.name, str(file)) for file in files]
    return FieldCounter(CounterSetup(model=str(model), device="cpu", boxes="find", **setup)).count(jobs)


def test_an_image_gives_the_same_alone_and_in_any_company(photographs: list[Path], tiny_model: Path) -> None:
    together = counted(photographs, tiny_model)
    assert sum(len(record.cells) for record in together) >= 10
    assert [counted([file], tiny_model)[0] for file in photographs] == together
    assert counted(photographs[::-1], tiny_model)[::-1] == together


def test_crops_are_classified_and_let_go_as_soon_as_enough_of_several_images_have_gathered(
    smears: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [FieldJob(file.name, str(file), str(file.with_suffix(".xml"))) for file in sorted(smears.rglob("*.png"))]
    counter = FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="xml"))
    at_once = counter.count(jobs)
    crop, predict = counter._crop, counter.model.predict
    held, most, sizes = 0, 0, []

    def cropped(*given: Any) -> Any:
        nonlocal held, most
        crops = crop(*given)
        held += len(crops)
        most = max(most, held)
        return crops

    def predicted(crops: Any) -> Any:
        nonlocal held
        held -= len(crops)
        sizes.append(len(crops))
        return predict(crops)

    monkeypatch.setattr(counter, "_crop", cropped)
    monkeypatch.setattr(counter.model, "predict", predicted)
    monkeypatch.setattr(pipeline, "AT_ONCE", 8)  # each image has three
    assert counter.count(jobs) == at_once
    assert sizes == [8, 8, 8, 8, 4]
    assert most < 8 + 3


def test_crops_that_wait_hold_no_memory_of_those_that_were_taken() -> None:
    numbers = torch.arange(25, dtype=torch.uint8).reshape(25, 1, 1, 1)
    waiting = [numbers[:3].clone(), numbers[3:].clone()]
    taken = [pipeline._take(waiting, 8).flatten().tolist() for _ in range(3)]
    assert taken == [list(range(8)), list(range(8, 16)), list(range(16, 24))]
    assert [crops.flatten().tolist() for crops in waiting] == [[24]]
    assert waiting[0].untyped_storage().nbytes() == 1
    assert pipeline._take(waiting, 8).tolist() == [[[[24]]]]
    assert not waiting


def test_reading_ahead_in_threads_gives_the_same(photographs: list[Path], tiny_model: Path) -> None:
    assert counted(photographs, tiny_model, readers=3) == counted(photographs, tiny_model)


def test_boxes_found_at_half_size_lie_where_those_of_the_whole_do(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = counted(photographs, tiny_model)
    monkeypatch.setattr("napari_bloodcells.core.counting.picture.HALVED_FROM", 10**9)
    whole = counted(photographs, tiny_model)
    for a, b in zip(half, whole, strict=True):
        assert (a.width, a.height) == (b.width, b.height)
        assert a.um_per_pixel == pytest.approx(b.um_per_pixel, rel=0.05)
        assert len(a.cells) == len(b.cells)
        overlap = iou(np.array([c.box for c in a.cells]), np.array([c.box for c in b.cells]))
        assert overlap.max(1).min() > 0.8


@pytest.mark.parametrize(("um_per_pixel", "reads"), [(0.1, [2]), (0.3, [2, 1])])
def test_a_picture_too_coarse_at_half_size_is_read_as_a_whole(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, um_per_pixel: float, reads: list[int]
) -> None:
    import napari_bloodcells.core.counting.picture as picture

    seen: list[int] = []

    def spy(path: str, **how: Any) -> Photograph:
        read = real(path, **how)
        seen.append(read.reduce)
        return read

    real = picture.read_photograph
    monkeypatch.setattr(picture, "read_photograph", spy)
    counted([file for file in photographs if "large" in str(file)][:1], tiny_model, um_per_pixel=um_per_pixel)
    assert seen == reads


def test_whatever_goes_wrong_with_one_image_leaves_the_others(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="find"))
    find = counter.localizer.find

    class Brittle:
        name = "brittle"

        def find(self, image: np.ndarray, *, um_per_pixel: float | None = None) -> object:
            if image.shape[0] == 120:
                raise ZeroDivisionError("no cell at all")
            return find(image, um_per_pixel=um_per_pixel)

    counter._localizer = Brittle()  # type: ignore[assignment]
    jobs = [FieldJob("bad", np.zeros((120, 90, 3), np.uint8)), FieldJob("good", str(photographs[0]))]
    bad, good = counter.count(jobs)
    assert bad.status == "bad: could not be counted (ZeroDivisionError: no cell at all)."
    assert good.status == "ok"


def test_numbers_of_cells_go_from_left_to_right() -> None:
    boxes = np.array([[50, 0, 60, 10], [0, 80, 10, 90], [0, 20, 10, 30]], np.float32)
    assert reading_order(boxes).tolist() == [2, 1, 0]


def test_boxes_of_a_half_size_picture_end_at_the_border_of_the_whole() -> None:
    from napari_bloodcells.core.localize import Field

    small = Field.of((3, 4), Boxes(np.array([[1, 1, 4, 3]], np.float32)), um_per_pixel=0.4)
    whole = enlarged(small, Picture(np.zeros((3, 4, 3), np.uint8), height=5, width=7, reduce=2))
    assert whole.wbc.xyxy.tolist() == [[2, 2, 7, 5]]
    assert whole.um_per_pixel == 0.2


def test_a_label_goes_to_the_box_that_it_overlaps_by_half() -> None:
    boxes = Boxes(np.array([[0, 0, 10, 10], [100, 0, 110, 10]], np.float32))
    assert match_labels(boxes, [((0, 4, 10, 14), "a"), ((100, 0, 110, 10), "b")]) == (None, "b")


def test_an_error_of_reading_is_the_status_of_its_image(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff nothing")
    record = counted([tmp_path / "x.jpg"], tiny_model)[0]
    assert record.status.startswith("x.jpg: ")
    assert record == FieldRecord("x.jpg", status=record.status)


@pytest.mark.parametrize("readers", [0, 3])
def test_what_was_worked_around_in_reading_is_a_warning_of_its_image_and_is_not_printed(
    smears: Path, tiny_model: Path, tmp_path: Path, readers: int
) -> None:
    pages = [Image.open(smears / "a" / f"smear_000{i}.png") for i in range(3)]
    pages[0].save(tmp_path / "0.gif", save_all=True, append_images=pages[1:])
    tifffile.imwrite(tmp_path / "1.tif", np.stack([np.asarray(page) for page in pages[:2]]), photometric="rgb")
    pages[0].save(tmp_path / "2.png")
    xml = (smears / "a" / "smear_0000.xml").read_text()
    jobs = []
    for file in sorted(tmp_path.iterdir()):
        file.with_suffix(".xml").write_text(xml.replace("<xmin>", "<xmin>-", 1))
        jobs.append(FieldJob(f"x/{file.name}", str(file), str(file.with_suffix(".xml"))))
    setup = CounterSetup(model=str(tiny_model), device="cpu", boxes="xml", readers=readers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = FieldCounter(setup).count(jobs * 3)
    said = [list(record.warnings) for record in records]
    read = [["0.gif: holds 3 pictures; the first is read."], ["1.tif: holds 2 pictures; the first is read."], []]
    assert [texts[:-1] for texts in said] == read * 3
    assert [texts[-1].partition(": box 1 (")[0] for texts in said] == ["0.xml", "1.xml", "2.xml"] * 3


DEAD = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DEAD, r"cpu failed \(CUDA error: an illegal memory access was encountered\): .*--resume"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), r"cpu failed \(cuDNN error.*--resume"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), r"cpu has too little memory \(CUDA out .*--resume"),
    ],
)
def test_a_failing_device_ends_the_run_which_is_resumed_to_the_same_bytes(
    smears: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    count(smears, str(tiny_model), "find", "cpu", options=CountOptions(output=tmp_path / "sound", batch_size=1))
    calls = []

    def through(self: MapMaker, *given: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise error
        return real(self, *given)

    real = MapMaker._through_net
    with monkeypatch.context() as broken:
        broken.setattr(MapMaker, "_through_net", through)
        with pytest.raises(OutageError, match=f"^{words}") as told:
            count(smears, str(tiny_model), "find", "cpu", options=CountOptions(output=tmp_path / "out", batch_size=1))
    assert "\n" not in str(told.value)
    done = len(list((tmp_path / "out" / ".partial").glob("*.jsonl")))
    assert 1 <= done <= 4
    options = CountOptions(output=tmp_path / "out", batch_size=1, resume=True)
    assert (count(smears, str(tiny_model), "find", "cpu", options=options).images["status"] == "ok").all()
    for name in ("cells.csv", "images.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "sound" / name).read_bytes()


def test_a_device_that_fails_in_a_slide_or_in_the_classifier_ends_the_run(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = FieldRecord("s.svs", status="s.svs: could not be counted (AcceleratorError: CUDA error: launch failure).")
    monkeypatch.setattr("napari_bloodcells.core.slides.counting.count_slide", lambda counter, job: told)
    with pytest.raises(OutageError, match=r"s\.svs: could not be counted"):
        counted([Path("s.svs")], tiny_model)

    def predict(crops: Any) -> Any:
        raise DEAD

    counter = FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="find"))
    monkeypatch.setattr(counter.model, "predict", predict)
    with pytest.raises(OutageError, match="--resume"):
        counter.count([FieldJob("a", str(photographs[0]))])


def test_memory_that_runs_out_once_costs_no_image(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = counted(photographs, tiny_model)
    real, seen = MapMaker._through_net, []

    def through(self: MapMaker, windows: Any, scales: Any) -> Any:
        seen.append(len(windows))
        if len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, windows, scales)

    monkeypatch.setattr(MapMaker, "_through_net", through)
    records = counted(photographs, tiny_model)
    assert seen[1] == 1
    assert [(a.status, len(a.cells)) for a in records] == [(b.status, len(b.cells)) for b in sound]


def test_threads_with_twins_of_a_counter_keep_their_warnings_and_times(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    xml = (smears / "a" / "smear_0000.xml").read_text()
    corners = re.sub(r"<xmin>\d+</xmin>", "<xmin>{}</xmin>", xml, count=1)
    jobs = []
    for n in range(24):
        (tmp_path / f"{n}.xml").write_text(corners.format(-n - 1))
        jobs.append(FieldJob(f"{n}", str(smears / "a" / "smear_0000.png"), str(tmp_path / f"{n}.xml")))
    counter = FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="xml", um_per_pixel=0.2))
    alone = counter.count(jobs)
    assert [record.warnings[0].partition(":")[0] for record in alone] == [f"{n}.xml" for n in range(24)]
    twins = [counter.twin() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = list(pool.map(lambda n: twins[n].count(jobs[n::4]), range(4)))
    assert [parts[n % 4][n // 4] for n in range(24)] == alone
    assert [twin.times.images for twin in twins] == [6] * 4


def test_what_is_read_ahead_is_bounded_in_bytes_and_two_may_always_wait(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = CounterSetup(model=str(tiny_model), device="cpu", boxes="find", readers=8)
    jobs = [FieldJob(f"{n}", str(photographs[0])) for n in range(24)]
    one = Picture.of_file(str(photographs[0])).held

    def most_waiting(budget: int) -> int:
        monkeypatch.setattr(pipeline, "AHEAD_BYTES", budget)
        counter, begun, taken = FieldCounter(setup), [], []
        real = counter._read
        monkeypatch.setattr(counter, "_read", lambda job: begun.append(job) or real(job))
        waiting = []
        for read in counter._read_ahead(jobs):
            taken.append(read)
            time.sleep(0.01)
            waiting.append(len(begun) - len(taken))
        assert [job for job, _ in taken] == jobs
        return max(waiting)

    assert most_waiting(5 * one) <= 5
    assert 1 <= most_waiting(1) <= 2
    assert most_waiting(2**30) > 5


def test_a_run_that_is_stopped_does_not_wait_for_what_is_not_yet_read(
    photographs: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="find", readers=2))
    real, begun, free = counter._read, [], threading.Event()

    def read(job: FieldJob) -> Any:
        begun.append(job)
        if len(begun) > 2:
            free.wait(0.3)
        return real(job)

    def stop(group: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(counter, "_read", read)
    monkeypatch.setattr(counter, "_locate_group", stop)
    monkeypatch.setattr(pipeline, "GROUP", 1)
    with pytest.raises(KeyboardInterrupt):
        counter.count([FieldJob(f"{n}", str(photographs[0])) for n in range(40)])
    assert len(begun) <= 4
