"""TIFFs whose colors are easily taken for others: channels behind one header, YCbCr, Lab, and which are refused."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.fiji_files import write_fiji

from napari_bloodcells.core.errors import DataWarning, ImageError
from napari_bloodcells.core.images import read_image, read_image_bytes, read_photograph
from napari_bloodcells.core.slides.tiffslide import TiffSlide

DOWN, ACROSS = np.mgrid[0:96, 0:128]
STAIN = np.stack([ACROSS + 100, DOWN * 2, 255 - ACROSS], axis=-1).astype(np.uint8)
YCBCR = np.asarray(Image.fromarray(STAIN).convert("YCbCr"))
LAB = Image.fromarray(STAIN).convert("LAB")


def everywhere(path: Path) -> np.ndarray:
    """What is read of ``path`` as a photograph, the same as of its bytes and as a slide; without a remark."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        pixels = read_image(path)
        assert np.array_equal(read_image_bytes(path.read_bytes(), "a"), pixels)
    with TiffSlide(path) as slide:
        assert np.array_equal(slide.read((0, 0, slide.width, slide.height)), pixels)
    return pixels


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_three_channels_of_fiji_are_red_green_and_blue(tmp_path: Path, headers: bool, dtype: type) -> None:
    planes = np.moveaxis(STAIN, -1, 0).astype(dtype) * (1 if dtype is np.uint8 else 257)
    write_fiji(tmp_path / "a.tif", planes, headers=headers)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages) == (3 if headers else 1)
    assert np.array_equal(everywhere(tmp_path / "a.tif"), STAIN)


def test_channels_of_fiji_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    write_fiji(tmp_path / "a.tif", np.moveaxis(STAIN, -1, 0), headers=False)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-100])
    for read in (read_image, TiffSlide):
        with pytest.raises(ImageError, match=r"^a\.tif: is cut off"):
            read(tmp_path / "a.tif")


def test_of_pictures_behind_one_header_the_first_is_read_with_a_remark(tmp_path: Path) -> None:
    write_fiji(tmp_path / "a.tif", np.stack([STAIN[..., 0], STAIN[..., 1]]), headers=False)
    assert read_photograph(tmp_path / "a.tif").problems == ("a.tif: holds 2 pictures; the first is read.",)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (64, 64)}, {"planarconfig": "separate"}])
def test_ycbcr_is_shown_as_rgb(tmp_path: Path, options: dict[str, object]) -> None:
    array = np.moveaxis(YCBCR, -1, 0) if "planarconfig" in options else YCBCR
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="ycbcr", **options)
    expected = np.asarray(Image.fromarray(YCBCR, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(everywhere(tmp_path / "a.tif") - expected).max() <= 1


def test_ycbcr_of_video_has_its_own_levels_and_coefficients(tmp_path: Path) -> None:
    """The gray of Y 126 in 16 to 235 is (126 - 16) * 255 / 219; red by the coefficients of ITU-R BT.709."""
    video = [(529, 5, 3, (2126, 10000, 7152, 10000, 722, 10000), True)]
    video.append((532, 5, 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True))
    pixels = np.full((32, 32, 3), (126, 128, 128), np.uint8)
    pixels[16:, :, 2] = 184  # (184 - 128) * 127 / 112 = 63.5, times 2 - 2 * 0.2126
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="ycbcr", extratags=video)
    shown = everywhere(tmp_path / "a.tif")
    assert shown[0, 0].tolist() == [128, 128, 128]
    assert shown[-1, 0].tolist() == [228, 98, 128]


def test_ycbcr_of_jpeg_is_decoded_once(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", YCBCR, photometric="ycbcr", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert np.array_equal(everywhere(tmp_path / "a.tif"), tif.pages[0].asarray())


def test_lab_is_shown_as_rgb(tmp_path: Path) -> None:
    LAB.save(tmp_path / "a.tif")
    expected = np.asarray(LAB.convert("RGB"))
    assert np.abs(expected.astype(int) - STAIN).mean() < 4
    assert np.array_equal(everywhere(tmp_path / "a.tif"), expected)
    values = np.asarray(LAB) ^ np.array([0, 128, 128], np.uint8)  # not signed, as ICC's kind has a and b
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="icclab", compression="zlib")
    assert np.array_equal(everywhere(tmp_path / "b.tif"), expected)


@pytest.mark.parametrize(
    ("array", "photometric"),
    [(YCBCR.astype(np.uint16), "ycbcr"), (YCBCR, "ycbcr"), (np.asarray(LAB).astype(np.uint16), "cielab")],
)
def test_other_kinds_of_ycbcr_and_lab_are_refused(tmp_path: Path, array: np.ndarray, photometric: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, byteorder="<")
    if array is YCBCR:  # one color for four pixels
        tag = struct.pack("<HHI", 530, 3, 2)
        data = (tmp_path / "a.tif").read_bytes().replace(tag + b"\1\0\1\0", tag + b"\2\0\2\0")
        (tmp_path / "a.tif").write_bytes(data)
    for read in (read_image, TiffSlide):
        with pytest.raises(ImageError, match=r"^a\.tif: stores its colors as [A-Z]+, .*; save it as RGB\.$"):
            read(tmp_path / "a.tif")
