"""Slides as scanners write them, which openslide takes for the vendor's: read, scaled and counted like a plain TIFF.

They are written by ``tests/scanner_files.py`` and ``mirax_files.py``; no file of a scanner was at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from tests import mirax_files as mirax
from tests import scanner_files as scanners

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.counting.cells import OK, FieldRecord
from napari_bloodcells.core.counting.jobs import FieldJob
from napari_bloodcells.core.counting.pipeline import FieldCounter
from napari_bloodcells.core.counting.setup import CounterSetup
from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.slides import is_slide, open_slide
from napari_bloodcells.core.slides.companions import companions
from napari_bloodcells.core.slides.counting import count_slide
from napari_bloodcells.core.slides.grid import GridSettings
from napari_bloodcells.core.slides.survey import survey_slide
from napari_bloodcells.synthetic import SmearSettings, draw_smear

openslide = pytest.importorskip("openslide", reason="slides of scanners need openslide: pip install openslide-bin")

WIDTH, HEIGHT = mirax.mirax_size((2, 2))
DRAWN = 512
"""Rows with cells; below them is empty ground, the last of which the scanner may have left out."""
LEFT_OUT = {"svs": 720, "mrxs": 600}
"""First row of a slide that was not scanned."""


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    settings = SmearSettings(width=DRAWN, height=DRAWN, um_per_pixel=0.25, rbc_coverage=0.4, cells=3)
    whole = np.full((HEIGHT, WIDTH, 3), (246, 232, 217), np.uint8)
    whole[:DRAWN] = np.concatenate([draw_smear(seed, settings).image for seed in (1, 2)], axis=1)
    return whole


Write = Callable[[Path, NDArray[np.uint8]], None]
BOTTOM_TILES = frozenset(range(15, 20))
BOTTOM_IMAGES = frozenset((column, 3) for column in range(4))
WRITERS: dict[str, Write] = {
    "aperio.svs": lambda path, pixels: scanners.write_svs(path, pixels, missing=BOTTOM_TILES),
    "jpeg2000-rgb.svs": lambda path, pixels: scanners.write_svs(path, pixels, jpeg2000="RGB"),
    "jpeg2000-ycbcr.svs": lambda path, pixels: scanners.write_svs(path, pixels, jpeg2000="YCbCr"),
    "objective-only.svs": lambda path, pixels: scanners.write_svs(path, pixels, um=None),
    "hamamatsu.ndpi": scanners.write_ndpi,
    "objective-only.ndpi": lambda path, pixels: scanners.write_ndpi(path, pixels, um=None, starts=False),
    "hamamatsu.vms": scanners.write_vms,
    "mirax.mrxs": lambda path, pixels: mirax.write_mrxs(path, pixels, missing=BOTTOM_IMAGES),
    "mirax-no-positions.mrxs": lambda path, pixels: mirax.write_mrxs(
        path, pixels, missing=BOTTOM_IMAGES, positions=False
    ),
}
VENDORS = {"svs": "aperio", "ndpi": "hamamatsu", "vms": "hamamatsu", "mrxs": "mirax"}
TAKEN_FOR = pytest.mark.parametrize("name", WRITERS)


def kind(name: str) -> str:
    return name.rpartition(".")[2]


@pytest.fixture(scope="module")
def folder(pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, and the same picture as a plain TIFF."""
    place = tmp_path_factory.mktemp("scanners")
    for name, write in WRITERS.items():
        write(place / name, pixels)
    um = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(place / "plain.btf", pixels, photometric="rgb", tile=(256, 256), compression="deflate", **um)
    return place


@TAKEN_FOR
def test_openslide_takes_it_for_a_slide_of_that_vendor(name: str, folder: Path) -> None:
    assert openslide.OpenSlide.detect_format(folder / name) == VENDORS[kind(name)]
    with openslide.OpenSlide(folder / name) as slide:
        assert slide.properties["openslide.objective-power"] == "40"
        beside = {"svs": {"label", "macro", "thumbnail"}}.get(kind(name), {"macro"})
        assert set(slide.associated_images) == beside
    assert is_slide(folder / name)


@TAKEN_FOR
def test_the_scale_is_read_where_it_is_stated_and_an_objective_is_none(name: str, folder: Path) -> None:
    with open_slide(folder / name) as slide:
        stated = None if "objective-only" in name else pytest.approx(0.25)
        assert slide.um_per_pixel == stated
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert len(slide.levels) >= 2
        assert all(abs(w / h - WIDTH / HEIGHT) < 0.01 for w, h in slide.levels), "no label among them"


@TAKEN_FOR
def test_pixels_are_those_of_the_picture_at_every_level(name: str, folder: Path, pixels: NDArray[np.uint8]) -> None:
    with open_slide(folder / name) as slide:
        for level, (width, _) in enumerate(slide.levels[:3]):
            factor = WIDTH // width
            expected = scanners.smaller(pixels, factor) if factor > 1 else pixels
            for left, top, right, bottom in ((0, 0, 256, 128), (100, 200, 700, 500), (480, 300, 560, 420)):
                region = (left // factor, top // factor, right // factor, bottom // factor)
                part = slide.read(region, level).astype(int)
                off = np.abs(part - expected[region[1] : region[3], region[0] : region[2]])
                assert off.mean() < (4 if level else 2.5)
                assert np.median(off.max(-1)) <= 4


@pytest.mark.parametrize("name", ["aperio.svs", "mirax.mrxs", "mirax-no-positions.mrxs"])
def test_what_was_not_scanned_is_white_and_not_stained(name: str, folder: Path, pixels: NDArray[np.uint8]) -> None:
    with open_slide(folder / name) as slide:
        first = LEFT_OUT[kind(name)]
        assert (slide.read((0, first, WIDTH, HEIGHT)) == 255).all()
        for level, (width, height) in enumerate(slide.levels):
            margin = 4
            assert slide.read((0, first * height // HEIGHT + margin, width, height), level).min() > 220
        survey = survey_slide(slide, Silent())
        assert survey.stained[DRAWN // 256 :].max() < 0.005
        assert survey.stained[: DRAWN // 256].min() > 0.2


@pytest.fixture(scope="module")
def counter() -> FieldCounter:
    return FieldCounter(CounterSetup(device="cpu", boxes="find"))


def counted(counter: FieldCounter, path: Path) -> FieldRecord:
    return count_slide(counter, FieldJob(path.name, str(path)), GridSettings(field_um=128))


@pytest.fixture(scope="module")
def plain(counter: FieldCounter, folder: Path) -> FieldRecord:
    record = counted(counter, folder / "plain.btf")
    assert record.status == OK
    assert len(record.cells) >= 5
    return record


@TAKEN_FOR
def test_the_cells_are_those_of_the_plain_tiff(
    name: str, counter: FieldCounter, folder: Path, plain: FieldRecord
) -> None:
    record = counted(counter, folder / name)
    assert record.status == OK
    assert record.problems == plain.problems
    assert record.slide is not None
    assert plain.slide is not None
    assert record.slide.scale_from == ("red cells" if "objective-only" in name else "file")
    assert record.um_per_pixel == pytest.approx(0.25, rel=0.1)
    assert len(record.cells) == len(plain.cells)
    here, there = (np.array([cell.box for cell in one.cells], np.float32) for one in (record, plain))
    overlap = iou(there, here)
    partner = overlap.argmax(1)
    assert sorted(partner) == list(range(len(here)))
    if "objective-only" not in name:  # there the scale differs, and with it where the fields lie
        assert record.slide.fields == plain.slide.fields
        assert np.abs(here[partner] - there).max() <= 2.0
        assert [record.cells[k].name for k in partner] == [cell.name for cell in plain.cells]
    assert overlap.max(1).min() > 0.8


def test_a_mirax_slide_without_its_folder_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes((folder / "mirax.mrxs").read_bytes())
    with pytest.raises(ImageError, match=r"^a\.mrxs: its folder a with the pixels is not beside it; put both"):
        open_slide(tmp_path / "a.mrxs")


def test_a_damaged_piece_is_an_error_that_names_the_slide(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "hamamatsu.ndpi").read_bytes())
    data[1000:200_000] = b"\xff\xd9" * 99_500
    (tmp_path / "a.ndpi").write_bytes(data)
    with pytest.raises(ImageError, match=r"^a\.ndpi: is (damaged|no slide)"), open_slide(tmp_path / "a.ndpi") as slide:
        slide.read((0, 0, WIDTH, HEIGHT))


def test_the_files_of_a_slide_are_known_and_are_no_photographs(folder: Path, tmp_path: Path) -> None:
    parts = companions(folder / "hamamatsu.vms")
    assert [path.name for path in parts] == [f"hamamatsu{end}.jpg" for end in ("(0,0)", "(1,0)", "_macro", "_map2")]
    assert [path.name for path in companions(folder / "mirax.mrxs")] == ["Data0000.dat", "Index.dat", "Slidedat.ini"]
    assert companions(folder / "aperio.svs") == companions(tmp_path / "gone.vms") == []
    (folder / "photograph.jpg").write_bytes((folder / "hamamatsu_macro.jpg").read_bytes())
    try:
        found = {path.name for path in find_images([folder], slides=True)}
        assert found == {*WRITERS, "plain.btf", "photograph.jpg"}
    finally:
        (folder / "photograph.jpg").unlink()
