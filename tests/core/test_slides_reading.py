"""Slides are read region by region: any layout gives the same pixels, and what cannot be read is refused by name."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.fiji_files import write_fiji

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.slides import is_slide, open_slide, opening, tiffslide
from napari_bloodcells.core.slides.overview import thumbnail

PIXELS = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
PLANES = np.moveaxis(PIXELS, -1, 0)
TILES = {"photometric": "rgb", "tile": (256, 256)}
QUARTER_UM = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}


def pyramid(path: Path) -> None:
    um = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        tif.write(PIXELS, subifds=2, metadata=um, **TILES)
        tif.write(PIXELS[::2, ::2], subfiletype=1, **TILES)
        tif.write(PIXELS[::4, ::4], subfiletype=1, **TILES)


def reduced_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        tif.write(PIXELS, metadata=None, compression="deflate", **TILES)
        tif.write(PIXELS[::2, ::2], subfiletype=1, metadata=None, compression="deflate", **TILES)
        tif.write(PIXELS[:100, :100], metadata=None, **TILES)  # a label, which is no copy of the slide


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "tiles": lambda p: tifffile.imwrite(p, PIXELS, compression="deflate", bigtiff=True, **TILES),
    "strips": lambda p: tifffile.imwrite(p, PIXELS, photometric="rgb", rowsperstrip=16, compression="lzw"),
    "one raw strip": lambda p: tifffile.imwrite(p, PIXELS, photometric="rgb"),
    "planes in tiles": lambda p: tifffile.imwrite(p, PLANES, planarconfig="separate", **TILES),
    "a page per color": lambda p: tifffile.imwrite(
        p, PLANES, photometric="minisblack", tile=(256, 256), ome=True, metadata={"axes": "CYX"}
    ),
    "a raw page per color": lambda p: tifffile.imwrite(
        p, PLANES, photometric="minisblack", ome=True, metadata={"axes": "CYX"}
    ),
    "a raw ImageJ page per color": lambda p: tifffile.imwrite(
        p, PLANES, photometric="minisblack", imagej=True, metadata={"axes": "CYX"}
    ),
    "Fiji's colors behind one header": lambda p: write_fiji(p, PLANES, headers=False),
    "OME with SubIFDs": pyramid,
    "reduced pages": reduced_pages,
}
REGIONS = [(0, 0, 900, 600), (3, 5, 777, 599), (255, 255, 257, 257), (880, 590, 900, 600)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pixels(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "a.tif")
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.height) == (900, 600)
        for left, top, right, bottom in REGIONS:
            assert np.array_equal(slide.read((left, top, right, bottom)), PIXELS[top:bottom, left:right])


@pytest.mark.parametrize(("layout", "n"), [("tiles", 1), ("OME with SubIFDs", 3), ("reduced pages", 2)])
def test_smaller_copies_are_levels(layout: str, n: int, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "a.tif")
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert slide.levels == ((900, 600), (450, 300), (225, 150))[:n]
        for level in range(n):
            width, height = slide.levels[level]
            assert np.array_equal(slide.read((0, 0, width, height), level), PIXELS[:: 2**level, :: 2**level])


def written(path: Path, *pages: np.ndarray, **options: object) -> None:
    """A TIFF of these pages in tiles, each a picture of its own; ``subfiletype`` is that of all but the first."""
    kind = options.pop("subfiletype", 0)
    with tifffile.TiffWriter(path, **options) as tif:
        for n, page in enumerate(pages):
            tif.write(page, subfiletype=kind if n else 0, metadata={} if options else None, **TILES)


def masked(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        tif.write(PIXELS, metadata=None, **TILES)
        tif.write(PIXELS[..., 0] > 99, photometric="mask", subfiletype=4, metadata=None)


FURTHER: dict[str, tuple[int, Callable[[Path], object]]] = {
    "pages of one size": (3, lambda p: written(p, PIXELS, PIXELS, PIXELS)),
    "a smaller one of another shape": (2, lambda p: written(p, PIXELS, PIXELS[:, :500])),
    "images of OME": (2, lambda p: written(p, PIXELS, PIXELS[:500], ome=True)),
    "planes of OME": (2, lambda p: tifffile.imwrite(p, np.stack([PIXELS] * 2), ome=True, metadata={"axes": "ZYXS"})),
    "a stack of ImageJ": (2, lambda p: tifffile.imwrite(p, np.stack([PIXELS] * 2), imagej=True)),
    "four channels": (4, lambda p: tifffile.imwrite(p, PIXELS[None, ..., 0].repeat(4, 0), ome=True)),
    "a macro": (1, lambda p: written(p, PIXELS, PIXELS[:300, :400])),
    "an unmarked smaller copy": (1, lambda p: written(p, PIXELS, PIXELS[::2, ::2])),
    "a smaller copy of other pixels": (1, lambda p: written(p, PIXELS, PIXELS[:590, :600], subfiletype=1)),
    "a mask": (1, masked),
    **{layout: (1, write) for layout, write in LAYOUTS.items()},
}


@pytest.mark.parametrize("kind", FURTHER)
def test_pictures_beside_the_one_that_is_read_are_told(kind: str, tmp_path: Path) -> None:
    n, write = FURTHER[kind]
    write(tmp_path / "a.tif")
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        told = (f"a.tif: holds {n} pictures; the first is read.",)
        assert slide.remarks == (told if n > 1 else ())
        assert (slide.width, slide.height) == (900, 600)


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["tiles"](tmp_path / "a.tif")
    monkeypatch.setattr(tiffslide, "CACHE_BYTES", 3 * 256 * 256 * 3)
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read((0, 0, 900, 600)), PIXELS)
        assert len(slide._cache) == 3
        assert slide._held <= tiffslide.CACHE_BYTES


def test_twelve_bits_are_scaled_once_for_the_whole_slide(tmp_path: Path) -> None:
    deep = PIXELS.astype(np.uint16) * 16
    deep[:256, :256] //= 20  # a dark tile must not become a bright one
    tifffile.imwrite(tmp_path / "a.tif", deep, **TILES)
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert slide.read((0, 0, 900, 600))[:256, :256].max() == round(deep[:256, :256].max() * 255 / 4095)
        assert np.abs(slide.read((300, 300, 900, 600)).astype(int) - PIXELS[300:600, 300:900]).max() <= 1


def test_tiles_that_a_scanner_left_out_are_white(tmp_path: Path) -> None:
    tile = zlib.compress(PIXELS[:256, :256].tobytes())
    shape = {"shape": (600, 900, 3), "dtype": np.uint8}
    tiles = (tile if number == 5 else b"" for number in range(12))
    tifffile.imwrite(tmp_path / "a.tif", tiles, compression="deflate", **shape, **TILES)
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read((256, 256, 512, 512)), PIXELS[:256, :256])
        assert (slide.read((512, 256, 900, 600)) == 255).all()


@pytest.mark.parametrize(
    ("options", "um"),
    [
        (QUARTER_UM, 0.25),
        ({"resolution": (101_600, 101_600), "resolutionunit": "INCH"}, 0.25),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_the_scale_is_what_the_resolution_says_if_a_microscope_can_have_it(
    options: dict[str, object], um: float | None, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **TILES, **options)
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert slide.um_per_pixel == (None if um is None else pytest.approx(um))


def test_the_scale_of_ome_is_in_any_unit(tmp_path: Path) -> None:
    um = {
        "axes": "YXS",
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 250,
        "PhysicalSizeYUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, metadata=um, **TILES)
    with tiffslide.TiffSlide(tmp_path / "a.ome.tif") as slide:
        assert slide.um_per_pixel == pytest.approx(0.25)


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, resolution=(40_000, 20_000), resolutionunit="CENTIMETER", **TILES)
    with pytest.raises(ImageError, match=r"a\.tif: its pixels are not square \(0\.25 x 0\.5 um\)"):
        tiffslide.TiffSlide(tmp_path / "a.tif")


def test_a_scanners_slide_goes_through_openslide(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.svs") as tif:
        tif.write(PIXELS, metadata=None, compression="deflate", **TILES, **QUARTER_UM)
        tif.write(PIXELS[::2, ::2], subfiletype=1, metadata=None, compression="deflate", **TILES)
    with open_slide(tmp_path / "a.svs") as slide:
        assert type(slide).__name__ == "ScannerSlide"
        assert slide.levels == ((900, 600), (450, 300))
        assert slide.um_per_pixel == pytest.approx(0.25)
        for left, top, right, bottom in REGIONS:
            assert np.array_equal(slide.read((left, top, right, bottom)), PIXELS[top:bottom, left:right])
        assert np.array_equal(slide.read((10, 20, 90, 100), 1), PIXELS[::2, ::2][20:100, 10:90])


def test_without_openslide_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    (tmp_path / "a.ndpi").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"^a\.ndpi: .*pip install 'napari-bloodcells\[wsi\]'\.$"):
        open_slide(tmp_path / "a.ndpi")


@pytest.mark.parametrize("suffix", [".svs", ".btf"])
def test_what_is_no_slide_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"II*\0 nothing else")
    with pytest.raises(ImageError, match=rf"^a\{suffix}: "):
        open_slide(tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match=rf"^b\{suffix}: cannot be opened"):
        open_slide(tmp_path / f"b{suffix}")


def test_a_slide_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    for layout in ("tiles", "one raw strip"):
        LAYOUTS[layout](tmp_path / "a.tif")
        whole = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ImageError, match=r"^a\.tif: .*cut off"):
            tiffslide.TiffSlide(tmp_path / "a.tif")


def test_a_damaged_tile_is_an_error_that_names_the_slide(tmp_path: Path) -> None:
    LAYOUTS["tiles"](tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + 50] = b"\xff" * 50
    (tmp_path / "a.tif").write_bytes(data)
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read((300, 300, 400, 400)), PIXELS[300:400, 300:400])
        with pytest.raises(ImageError, match=r"^a\.tif: is damaged and cannot be read"):
            slide.read((0, 0, 10, 10))


def test_pieces_too_large_for_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", rowsperstrip=600, compression="deflate")
    monkeypatch.setattr("napari_bloodcells.core.slides.tiffheader.LARGEST_SEGMENT", 500_000)
    with pytest.raises(ImageError, match=r"a\.tif: cannot be read region by region .*900 x 600.*as a tiled TIFF"):
        tiffslide.TiffSlide(tmp_path / "a.tif")


def test_a_turned_slide_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, extratags=[(274, "H", 1, 6, True)], **TILES)
    with pytest.raises(ImageError, match=r"a\.tif: is stored turned \(orientation 6\)"):
        tiffslide.TiffSlide(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("layout", "large_pixels", "large_side", "slide"),
    [
        ("tiles", 500_000, 10_000, True),
        ("strips", 500_000, 10_000, True),
        ("one raw strip", 500_000, 10_000, True),
        ("tiles", 10**9, 800, True),
        ("OME with SubIFDs", 10**9, 800, True),
        ("strips", 10**9, 800, False),
        ("tiles", 10**9, 10_000, False),
    ],
)
def test_a_large_tiff_is_a_slide(
    layout: str, large_pixels: int, large_side: int, slide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[layout](tmp_path / "a.tif")
    monkeypatch.setattr(opening, "SMALLEST_FILE", 1000)
    monkeypatch.setattr(opening, "LARGE_PIXELS", large_pixels)
    monkeypatch.setattr(opening, "LARGE_SIDE", large_side)
    assert is_slide(tmp_path / "a.tif") is slide


def test_photographs_and_damaged_files_are_no_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SMALLEST_FILE", 0)
    (tmp_path / "a.tif").write_bytes(b"II*\0 nothing else")
    assert not any(is_slide(source) for source in (tmp_path / "a.tif", tmp_path / "b.tif", "a.jpg", PIXELS))


def test_slides_are_found_in_folders_where_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("b.svs", "a.jpg", "c.mrxs", "d.dat", "e.btf"):
        (tmp_path / name).touch()
    assert [p.name for p in find_images([tmp_path], slides=True)] == ["a.jpg", "b.svs", "c.mrxs", "e.btf"]
    assert [p.name for p in find_images([tmp_path])] == ["a.jpg"]


@pytest.mark.parametrize("layout", ["tiles", "OME with SubIFDs"])
def test_the_thumbnail_is_the_whole_slide_made_small(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "a.tif")
    with tiffslide.TiffSlide(tmp_path / "a.tif") as slide:
        small = thumbnail(slide, Silent(), 100)
    assert small.shape == ((67, 100, 3) if layout == "tiles" else (50, 75, 3))
    assert abs(float(small.mean()) - float(PIXELS.mean())) < 2
