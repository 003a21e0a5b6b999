"""Whole slides: the same cells however the slide is stored or tiled, each once, in the monolayer, in bounded steps."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import workers
from napari_bloodcells.core.counting.cells import OK, FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.overlay import write_overlays
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.errors import Cancelled, UsageError
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.slides.counting import count_slide
from napari_bloodcells.core.slides.grid import GridSettings
from napari_bloodcells.synthetic import Smear, SmearSettings, draw_smear

PATCH = 512
SMALL = GridSettings(field_um=128)
"""Fields of 512 pixels: a slide of a few thousand pixels has many of them, and many seams."""
QUARTER_UM = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
GROUND = (246, 232, 217)


def drawn(seed: int, coverage: float = 0.4, cells: int = 2) -> Smear:
    settings = SmearSettings(width=PATCH, height=PATCH, um_per_pixel=0.25, rbc_coverage=coverage, cells=cells)
    return draw_smear(seed, settings)


class DrawnSlide:
    """A slide of 2,560 x 1,408 pixels, from left to right empty, thin, two patches of monolayer, thick; its truth."""

    def __init__(self) -> None:
        good = [drawn(seed) for seed in (1, 2)]
        thick = good[0].image / 255.0
        for shift, smear in ((97, good[1]), (211, good[0])):
            thick = thick * np.roll(smear.image, shift, axis=(0, 1)) / 255.0
        parts = {
            "a": good[0].image,
            "b": good[1].image,
            "#": (thick * 255).astype(np.uint8),
            "'": drawn(3, coverage=0.03, cells=1).image,
            ".": np.full((PATCH, PATCH, 3), GROUND, np.uint8),
        }
        # Patches are shifted by a quarter of a field, so that every seam runs through drawn ground.
        plan = (".'ab##", ".'ba##", ".'ab##")
        whole = np.concatenate([np.concatenate([parts[mark] for mark in row], axis=1) for row in plan])
        self.pixels: NDArray[np.uint8] = np.ascontiguousarray(whole[128:, 128 : 128 + 2560])
        boxes = [
            smear.boxes.xyxy + np.float32([column * PATCH - 128, row * PATCH - 128] * 2)
            for row, marks in enumerate(plan)
            for column, mark in enumerate(marks)
            for smear in ([good["ab".index(mark)]] if mark in "ab" else [])
        ]
        everything = np.concatenate(boxes)
        cut = (everything[:, :2] < 0).any(1) | (everything[:, 3] > self.pixels.shape[0])
        self.boxes: NDArray[np.float32] = everything[~cut]


@pytest.fixture(scope="module")
def slide() -> DrawnSlide:
    return DrawnSlide()


@pytest.fixture(scope="module")
def folder(slide: DrawnSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide in several layouts; ``tiles.btf`` is the one that others are compared to."""
    place = tmp_path_factory.mktemp("slides")
    rgb = {"photometric": "rgb", **QUARTER_UM}
    tifffile.imwrite(place / "tiles.btf", slide.pixels, tile=(256, 256), compression="deflate", bigtiff=True, **rgb)
    tifffile.imwrite(place / "strips.btf", slide.pixels, rowsperstrip=48, compression="lzw", **rgb)
    with tifffile.TiffWriter(place / "pyramid.btf", bigtiff=True) as tif:
        tif.write(slide.pixels, subifds=2, tile=(512, 512), **rgb)
        for level in (2, 4):
            tif.write(slide.pixels[::level, ::level], subfiletype=1, tile=(512, 512), photometric="rgb")
    tifffile.imwrite(place / "scanner.svs", slide.pixels, tile=(240, 320), compression="deflate", **rgb)
    return place


@pytest.fixture(scope="module")
def counter(tiny_model: Path) -> FieldCounter:
    return FieldCounter(CounterSetup(model=str(tiny_model), device="cpu", boxes="find"))


def counted(counter: FieldCounter, path: Path, settings: GridSettings = SMALL, **setup: object) -> FieldRecord:
    former = counter.setup
    counter.setup = replace(former, **setup)
    try:
        return count_slide(counter, FieldJob("slide", str(path)), settings)
    finally:
        counter.setup = former


@pytest.fixture(scope="module")
def reference(counter: FieldCounter, folder: Path) -> FieldRecord:
    return counted(counter, folder / "tiles.btf")


@pytest.mark.parametrize("layout", ["strips.btf", "pyramid.btf", "scanner.svs"])
def test_the_count_is_the_same_in_every_layout(
    layout: str, counter: FieldCounter, folder: Path, reference: FieldRecord
) -> None:
    assert reference.status == OK
    assert len(reference.cells) >= 8
    assert counted(counter, folder / layout) == reference


def test_a_second_picture_in_the_file_is_a_warning_of_the_slide(
    counter: FieldCounter, slide: DrawnSlide, reference: FieldRecord, tmp_path: Path
) -> None:
    with tifffile.TiffWriter(tmp_path / "two.btf", bigtiff=True) as tif:
        for _ in range(2):
            tif.write(slide.pixels, tile=(256, 256), photometric="rgb", metadata=None, **QUARTER_UM)
    record = counted(counter, tmp_path / "two.btf")
    assert record == replace(reference, warnings=("two.btf: holds 2 pictures; the first is read.",))


@pytest.mark.parametrize("tile_pixels", [1, 10**9])
def test_the_count_is_the_same_whatever_is_read_at_once(
    tile_pixels: int, counter: FieldCounter, folder: Path, reference: FieldRecord
) -> None:
    assert counted(counter, folder / "tiles.btf", replace(SMALL, tile_pixels=tile_pixels)) == reference


def found_for(truth: NDArray[np.float32], record: FieldRecord) -> NDArray[np.intp]:
    """For each true box the one cell of ``record`` that has it."""
    overlap = iou(truth, np.array([cell.box for cell in record.cells], np.float32))
    assert ((overlap > 0.5).sum(1) == 1).all()
    return overlap.argmax(1)


def test_another_grid_of_fields_has_the_same_cells_with_boxes_hardly_off(
    counter: FieldCounter, folder: Path, slide: DrawnSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_bloodcells.core.slides.monolayer.MonolayerRule.holds", lambda *_: True)
    one, *others = (counted(counter, folder / "tiles.btf", GridSettings(field_um=um)) for um in (128, 192, 256))
    cells = [one.cells[k] for k in found_for(slide.boxes, one)]
    for other in others:
        assert one.slide != other.slide
        partners = [other.cells[k] for k in found_for(slide.boxes, other)]
        off = [np.abs(np.subtract(a.box, b.box)).max() for a, b in zip(cells, partners, strict=True)]
        assert np.median(off) * 0.25 < 0.5  # um: the network's own grid lies otherwise on each field
        assert max(off) * 0.25 < 2.0
        same = [a.name == b.name for a, b in zip(cells, partners, strict=True)]
        assert np.mean(same) > 0.8  # of a network with random weights, which is sure of nothing


def test_every_drawn_cell_of_the_counted_fields_is_found_once(slide: DrawnSlide, reference: FieldRecord) -> None:
    assert reference.slide is not None
    rows = reference.slide.fields
    at = ((slide.boxes[:, :2] + slide.boxes[:, 2:]) / 2 // reference.slide.field_side).astype(int)
    at = np.minimum(at, [len(rows[0]) - 1, len(rows) - 1])
    truth = slide.boxes[[rows[y][x] == "#" for x, y in at.tolist()]]
    assert len(truth) >= 8
    assert len(set(found_for(truth, reference))) == len(truth)


@pytest.mark.parametrize("beyond", [-8, -3, -1, 0, 1, 2, 8])
def test_a_cell_on_a_seam_comes_out_once(beyond: int, counter: FieldCounter, tmp_path: Path) -> None:
    smear = drawn(5, cells=1)
    center = (smear.boxes.xyxy[0, :2] + smear.boxes.xyxy[0, 2:]) / 2
    ground = drawn(6, cells=0).image
    pixels = np.concatenate([np.concatenate([ground, ground], 1)] * 2)
    left, top = (int(512 - round(float(v)) + beyond) for v in center)
    pixels[top : top + PATCH, left : left + PATCH] = smear.image  # the cell lies where four fields meet
    tifffile.imwrite(tmp_path / "a.btf", pixels, photometric="rgb", tile=(256, 256), **QUARTER_UM)
    record = counted(counter, tmp_path / "a.btf")
    assert record.slide is not None
    assert record.slide.fields == ("##", "##")
    boxes = np.array([cell.box for cell in record.cells], np.float32)
    overlap = iou(smear.boxes.xyxy + np.float32([left, top] * 2), boxes)
    assert (overlap > 0.2).sum() == 1
    assert overlap.max() > 0.5


def test_thick_thin_and_empty_parts_are_not_counted(reference: FieldRecord) -> None:
    assert reference.slide is not None
    assert reference.slide.field_side == 512
    assert len(reference.slide.fields) == 3
    for row in reference.slide.fields:
        assert len(row) == 5
        assert row[0] in ".o"  # thin ground
        assert row[-1] == "o"  # the thick end
        assert "#" in row[1:4]
    n = sum(row.count("#") for row in reference.slide.fields)
    assert reference.slide.counted_mm2 == pytest.approx(n * (512 * 0.00025) ** 2, rel=0.3)
    assert reference.n_rbc is not None
    assert reference.n_rbc > 100


def test_empty_fields_are_not_looked_at(counter: FieldCounter, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.full((2048, 4096, 3), GROUND, np.uint8)
    pixels[600:1100, 1100:1600] = drawn(1).image[:500, :500]
    tifffile.imwrite(
        folder / "lonely.btf", pixels, photometric="rgb", tile=(256, 256), compression="deflate", **QUARTER_UM
    )
    seen = spied(counter, monkeypatch)
    record = counted(counter, folder / "lonely.btf")
    assert record.slide is not None
    assert "".join(record.slide.fields).count(".") == 32 - len(seen)
    assert len(seen) <= 4
    assert len(record.cells) == 2


def spied(counter: FieldCounter, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the fields that the localizer sees at a known scale (the sample for the scale has none)."""
    seen: list[tuple[int, ...]] = []
    find = counter.localizer.find

    def spy(image: NDArray[np.uint8], *, um_per_pixel: float | None = None) -> object:
        if um_per_pixel is not None:
            seen.append(image.shape)
        return find(image, um_per_pixel=um_per_pixel)

    monkeypatch.setattr(counter.localizer, "find", spy)
    return seen


def test_an_empty_slide_has_no_cells_and_a_remark(counter: FieldCounter, tmp_path: Path) -> None:
    pixels = np.full((1024, 1024, 3), GROUND, np.uint8)
    tifffile.imwrite(tmp_path / "a.btf", pixels, photometric="rgb", tile=(256, 256), **QUARTER_UM)
    record = counted(counter, tmp_path / "a.btf")
    assert (record.status, record.cells, record.problems) == (OK, (), ("not a stained smear",))


def test_where_there_is_no_monolayer_all_is_counted_and_said(
    counter: FieldCounter, slide: DrawnSlide, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.btf", slide.pixels[:, 2048:], photometric="rgb", tile=(256, 256), **QUARTER_UM)
    record = counted(counter, tmp_path / "a.btf")
    assert record.slide is not None
    assert set("".join(record.slide.fields)) == {"#"}
    assert any(problem.startswith("no monolayer") for problem in record.problems)


@pytest.mark.parametrize(
    ("stated", "given", "expected", "source"),
    [
        (0.25, None, 0.25, "file"),
        (None, None, 0.25, "red cells"),
        (0.5, None, 0.25, "red cells"),
        (0.5, 0.27, 0.27, "given"),
    ],
)
def test_the_scale_is_the_files_unless_the_red_cells_contradict(
    stated: float | None,
    given: float | None,
    expected: float,
    source: str,
    counter: FieldCounter,
    slide: DrawnSlide,
    tmp_path: Path,
) -> None:
    resolution = {} if stated is None else {"resolution": (1e4 / stated, 1e4 / stated), "resolutionunit": "CENTIMETER"}
    pixels = slide.pixels[:, 900:1900]
    tifffile.imwrite(tmp_path / "a.btf", pixels, photometric="rgb", tile=(256, 256), **resolution)
    record = counted(counter, tmp_path / "a.btf", um_per_pixel=given)
    assert record.slide is not None
    assert record.slide.scale_from == source
    assert record.um_per_pixel == pytest.approx(expected, rel=0.15)
    assert (record.problems != ()) == (stated == 0.5 and given is None)


def test_a_slide_without_any_scale_is_an_error_that_says_what_to_do(counter: FieldCounter, tmp_path: Path) -> None:
    pixels = np.full((1024, 1024, 3), GROUND, np.uint8)
    pixels[100:900:7] = 90
    tifffile.imwrite(tmp_path / "a.btf", pixels, photometric="rgb", tile=(256, 256))
    record = counted(counter, tmp_path / "a.btf")
    assert record.status.startswith("a.btf: its scale is not known")
    assert "--um-per-pixel" in record.status


def test_wanted_cells_are_taken_from_whole_fields_of_the_best_kind(
    counter: FieldCounter, folder: Path, reference: FieldRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(counter, monkeypatch)
    few = counted(counter, folder / "tiles.btf", cells_wanted=3)
    assert 3 <= len(few.cells) < len(reference.cells)
    assert set(few.cells) <= set(reference.cells)
    assert few.slide is not None
    assert "".join(few.slide.fields).count("#") == len(seen)  # the first fields that were looked at were of the best
    assert counted(counter, folder / "strips.btf", replace(SMALL, tile_pixels=10**9), cells_wanted=3) == few
    assert counted(counter, folder / "tiles.btf", cells_wanted=10**6).cells == reference.cells


class Watch(Silent):
    """Notes what it is told, and cancels after ``limit`` fields."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.total, self.done = limit, 0, 0

    def start(self, task: str, total: int | None) -> None:
        self.total += total or 0 if task == "slide" else 0

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.done += n if task == "slide" else 0

    def cancelled(self) -> bool:
        return self.limit is not None and self.done >= self.limit


def test_every_field_is_told_and_a_cancelled_slide_ends_within_a_tile(counter: FieldCounter, folder: Path) -> None:
    job = FieldJob("slide", str(folder / "tiles.btf"))
    try:
        counter.progress = watch = Watch()
        record = count_slide(counter, job, SMALL)
        assert record.slide is not None
        letters = "".join(record.slide.fields)
        assert watch.done == watch.total == len(letters) - letters.count(".")
        counter.progress = watch = Watch(limit=2)
        with pytest.raises(Cancelled):
            count_slide(counter, job, replace(SMALL, tile_pixels=10**9))
        assert watch.done == 2
    finally:
        counter.progress = Silent()


def test_a_worker_process_ends_its_slide_when_the_parent_has_no_more_use_for_it(
    counter: FieldCounter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = multiprocessing.get_context("spawn").RawValue("b", 0)
    monkeypatch.setattr(workers, "_counter", counter)
    monkeypatch.setattr(workers, "_progress", workers._Stoppable(stop))
    job = FieldJob("slide", str(folder / "tiles.btf"))
    seen = spied(counter, monkeypatch)
    monkeypatch.setattr(workers._progress, "advance", lambda *_, **__: setattr(stop, "value", 1))
    try:
        with pytest.raises(Cancelled):
            workers._count_shard(0, [job])
    finally:
        counter.progress = Silent()
    assert len(seen) == 1


def test_a_record_of_a_slide_goes_through_json(reference: FieldRecord) -> None:
    assert FieldRecord.from_json(json.loads(json.dumps(reference.to_json()))) == reference


def test_boxes_cannot_be_given_for_a_slide(counter: FieldCounter, folder: Path) -> None:
    record = counted(counter, folder / "tiles.btf", boxes="whole")
    assert record.status == "slide: is a whole slide; its cells must be found (--boxes find), not taken as given."


def test_a_slide_at_an_address_is_refused_with_what_to_do(counter: FieldCounter) -> None:
    record = count_slide(counter, FieldJob("a.svs", "s3://bucket/a.svs"))
    assert record.status.endswith("these are read from files of this machine, so fetch it first.")


def test_a_folder_of_slides_and_photographs_is_counted_as_one(
    folder: Path, slide: DrawnSlide, tiny_model: Path, tmp_path: Path
) -> None:
    from PIL import Image

    given = tmp_path / "given"
    given.mkdir()
    (given / "b.btf").write_bytes((folder / "tiles.btf").read_bytes())
    (given / "c.btf").write_bytes(b"II*\0 damaged")
    Image.fromarray(slide.pixels[300:780, 1000:1640]).save(given / "a.jpg", quality=95)
    options = CountOptions(output=tmp_path / "out")
    result = count([given], str(tiny_model), "find", "cpu", options=options)
    assert result.images["image"].tolist() == ["a.jpg", "b.btf", "c.btf"]
    assert (result.images["status"] == OK).tolist() == [True, True, False]
    assert list(result.run["slides"]) == ["b.btf"]
    row = result.images.iloc[1]
    assert (row["width"], row["height"], row["um_per_pixel"]) == (2560, 1408, pytest.approx(0.25))
    cells = result.cells[result.cells["image"] == "b.btf"]
    assert len(cells) == row["n_wbc"] > 0
    assert cells["x_max"].max() > 1000
    drawn_files = write_overlays(result, tmp_path / "out" / "overlay")
    assert [path.name for path in drawn_files] == ["a.jpg.jpg", "b.btf-overview.jpg"]
    assert Image.open(drawn_files[1]).size == (1280, 704)
    again = count([given], str(tiny_model), "find", "cpu", options=replace(options, resume=True))
    assert again.run["slides"] == json.loads(json.dumps(result.run["slides"]))


def test_a_stopped_run_goes_on_after_the_slides_that_it_finished(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Watch):
        def advance(self, task: str, n: int = 1, **values: float) -> None:
            self.done += n if task == "counting" else 0

    options = CountOptions(output=tmp_path / "out")
    files = [str(folder / name) for name in ("strips.btf", "tiles.btf")]
    with pytest.raises(Cancelled):
        count(files, str(tiny_model), "find", "cpu", Stop(limit=1), options)
    watch = Watch()
    resumed = count(files, str(tiny_model), "find", "cpu", watch, replace(options, resume=True))
    whole = count(files, str(tiny_model), "find", "cpu", options=CountOptions(output=tmp_path / "whole"))
    assert watch.total > 0
    assert resumed.cells.equals(whole.cells)
    assert resumed.run["slides"].keys() == whole.run["slides"].keys()


def test_no_cell_is_not_a_number_of_cells_to_want(folder: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="cells_wanted must be above zero"):
        count([str(folder / "tiles.btf")], str(tiny_model), "find", options=CountOptions(cells_wanted=0))
