"""Every kind of photograph comes in as upright RGB, and every kind of rubbish as one line that names the file."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_bloodcells.core.errors import DataWarning, ImageError
from napari_bloodcells.core.images import find_images, image_size, read_image, read_image_bytes, to_rgb8
from napari_bloodcells.core.training.history import Epoch

RNG = np.random.default_rng(7)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture whose red grows to the right, green to the bottom and blue to the left: no two directions alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 255 - x * 255 // (width - 1)], -1).astype(
        np.uint8
    )


def gray(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[..., None], 3, axis=2)


def encoded(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("jpg", {"quality": 95, "subsampling": 0}, 4),
        ("tif", {}, 0),
        ("tif", {"compression": "tiff_lzw"}, 0),
        ("tif", {"compression": "tiff_adobe_deflate"}, 0),
    ],
)
def test_formats_give_the_same_picture(tmp_path: Path, suffix: str, options: dict, tolerance: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth()).save(path, **options)
    array = read_image(path)
    assert array.dtype == np.uint8
    assert array.shape == (48, 64, 3)
    assert np.abs(array.astype(int) - smooth()).max() <= tolerance
    assert image_size(path) == (48, 64)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(smooth()), format="PNG"))
    assert np.array_equal(read_image(path), smooth())


TIFF_CASES = {
    "gray 8 bit": (smooth()[..., 0], {}, gray),
    "gray 16 bit": (smooth()[..., 0].astype(np.uint16) * 257, {}, lambda a: gray(a // 257)),
    "RGB 16 bit": (smooth().astype(np.uint16) * 257, {"photometric": "rgb"}, lambda a: a // 257),
    "planar RGB": (
        np.moveaxis(smooth(), -1, 0),
        {"photometric": "rgb", "planarconfig": "separate"},
        lambda a: smooth(),
    ),
    "inverted gray": (
        255 - smooth()[..., 0],
        {"photometric": "miniswhite"},
        lambda a: gray(255 - a),
    ),
    "tiled deflate": (smooth(), {"tile": (16, 16), "compression": "zlib", "photometric": "rgb"}, lambda a: a),
    "OME": (smooth(), {"ome": True, "photometric": "rgb"}, lambda a: a),
    "OME channels": (np.moveaxis(smooth(), -1, 0), {"ome": True, "metadata": {"axes": "CYX"}}, lambda a: smooth()),
    "big TIFF": (smooth(), {"bigtiff": True, "photometric": "rgb"}, lambda a: a),
    "12 bit tag": (
        (smooth()[..., 0].astype(np.uint16) * 8),
        {"extratags": [(281, "H", 1, 4095, True)]},
        lambda a: gray(np.floor(a * (255 / 4095) + 0.5)),
    ),
    "float 0 to 1": (
        smooth()[..., 0].astype(np.float32) / 255,
        {},
        lambda a: gray(np.round(a * 255)),
    ),
}


@pytest.mark.parametrize("case", TIFF_CASES)
def test_kinds_of_tiff(tmp_path: Path, case: str) -> None:
    array, options, expected = TIFF_CASES[case]
    path = tmp_path / "a.ome.tif"
    options = dict(options)
    ome, big = options.pop("ome", False), options.pop("bigtiff", False)
    tifffile.imwrite(path, array, ome=ome, bigtiff=big, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert np.array_equal(read_image(path), expected(array))
        assert np.array_equal(read_image_bytes(path.read_bytes(), "a"), expected(array))


def test_a_palette_tiff_shows_its_colors(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(smooth()).quantize(256).save(path)
    assert np.array_equal(read_image(path), np.array(Image.fromarray(smooth()).quantize(256).convert("RGB")))


def test_of_several_pages_the_first_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([smooth(), 255 - smooth()]), photometric="rgb", metadata=None)
    with pytest.warns(DataWarning, match=r"stack\.tif: holds 2 pictures; the first is read"):
        assert np.array_equal(read_image(path), smooth())


def test_an_animated_gif_gives_its_first_picture_with_a_warning(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(DataWarning, match="holds 3 pictures"):
        assert np.array_equal(read_image(tmp_path / "a.gif")[0, 0], [255, 0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("reduce", [1, 4])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str, reduce: int) -> None:
    """What Pillow's own exif_transpose makes of the picture is what is read, at every reduction."""
    from PIL import ImageOps

    picture = Image.fromarray(smooth(45, 62))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    picture.save(path, exif=exif, **options)
    whole = picture.copy()
    whole.getexif()[274] = orientation
    expected = np.asarray(
        ImageOps.exif_transpose(whole).reduce(reduce) if reduce > 1 else ImageOps.exif_transpose(whole)
    )
    array = read_image(path, reduce=reduce)
    assert array.shape == expected.shape
    assert np.abs(array.astype(int) - expected).mean() < 3
    if reduce == 1:
        assert image_size(path) == array.shape[:2]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).convert("CMYK").save(path, quality=95)
    assert np.abs(read_image(path).astype(int) - smooth()).mean() < 4
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(Image.fromarray(smooth()).convert("CMYK")), photometric="separated")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - smooth()).mean() < 4


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255  # black above, nothing below
    rgba[3, :, 3] = 51
    for suffix in ("png", "tif", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(rgba).save(path, **({"lossless": True} if suffix == "webp" else {}))
        assert read_image(path)[:, 0, 0].tolist() == [0, 0, 255, 204], suffix
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png")[0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 200]], np.uint16), [0, 200]),  # 8 bits kept in 16
        (np.array([[0, 1023]], np.uint16), [0, 255]),
        (np.array([[2048, 4095]], np.uint16), [128, 255]),
        (np.array([[0, 5000]], np.uint16), [0, 78]),  # 14 bits
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.25, 1.0]]), [64, 255]),
        (np.array([[0.0, 254.6]]), [0, 255]),
        (np.array([[np.nan, 1.0]]), [0, 255]),
    ],
)
def test_bit_depths(array: np.ndarray, expected: list[int]) -> None:
    assert to_rgb8(array)[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((6, 6, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.full((2, 2), -1),
        np.full((2, 2), 70000),
        np.full((2, 2), np.inf),
        np.array([["a"]]),
        np.zeros((2, 2), complex),
    ],
)
def test_arrays_that_are_no_pictures_are_refused_in_one_line(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"^field 3: ") as error:
        to_rgb8(array, "field 3")
    assert "\n" not in str(error.value)


def test_a_16_bit_png_keeps_its_upper_and_lower_bits(tmp_path: Path) -> None:
    """Pillow alone keeps the upper byte only, which makes a 12-bit camera's color picture nearly black."""
    import imagecodecs

    twelve_bits = smooth().astype(np.uint16) * 16
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(twelve_bits))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - smooth()).max() <= 1


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("size", [(480, 640), (121, 203), (9, 7), (1, 1), (3, 100)])
def test_a_reduced_image_is_the_mean_of_blocks(tmp_path: Path, reduce: int, suffix: str, size: tuple[int, int]) -> None:
    coarse = RNG.integers(60, 200, (-(-size[0] // 16) + 1, -(-size[1] // 16) + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    path = tmp_path / f"a.{suffix}"
    picture.save(path, **({"quality": 98, "subsampling": 0} if suffix == "jpg" else {}))
    array = read_image(path, reduce=reduce)
    assert array.shape == (-(-size[0] // reduce), -(-size[1] // reduce), 3)
    expected = np.asarray(Image.fromarray(read_image(path)).reduce(reduce))
    whole = np.s_[
        : max(1, size[0] // reduce), : max(1, size[1] // reduce)
    ]  # a partial block's JPEG padding is libjpeg's
    assert np.abs(array[whole].astype(int) - expected[whole]).mean() < 2.5


def test_a_reduction_other_than_a_power_of_two_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        with pytest.raises(ValueError, match="reduce must be"):
            read_image(tmp_path / name, reduce=3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tif"])
def test_a_truncated_file_is_named_and_never_read_in_part(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for share in (0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 0.7, 0.9):
        path.write_bytes(data[: max(1, int(len(data) * share))])
        with pytest.raises(ImageError, match=rf"^cut\.{suffix}: ") as error:
            read_image(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tif"])
def test_flipped_bits_give_a_picture_or_one_line_but_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth()).save(path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        outcome = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                array = read_image(path, max_pixels=10**6)
            except ImageError as error:
                outcome = str(error)
        if outcome:
            assert outcome.startswith(f"a.{suffix}: ")
            assert "\n" not in outcome
        else:
            assert array.dtype == np.uint8
            assert array.shape[2] == 3


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    png = bytearray(encoded(Image.new("L", (8, 8)), format="PNG"))
    png[16:24] = struct.pack(">II", 30000, 30000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "bomb.png").write_bytes(png)
    tifffile.imwrite(tmp_path / "bomb.tif", np.zeros((8, 8), np.uint8))
    with tifffile.TiffFile(tmp_path / "bomb.tif", mode="r+") as tif:
        for tag in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[tag].overwrite(30000)
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(ImageError, match=r"30000 x 30000 pixels are more than the limit of 150 million; raise"):
            read_image(tmp_path / name)


def test_the_pixel_limit_can_be_raised_and_lowered(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=10_000).shape == (100, 100, 3)
    with pytest.raises(ImageError, match=r"limit of 0\.009999 million"):
        read_image(tmp_path / "a.png", max_pixels=9_999)


def test_things_that_are_no_files_are_named_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello\n")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    expected = {
        "pipe.jpg": "is a pipe or device",
        "folder.jpg": "is a folder",
        "dangling.jpg": "is a link to a file that is not there",
        "loop.jpg": "is a link in a loop",
        "empty.png": "is empty",
        "text.jpg": "is no image that can be read",
        "phone.jpg": "HEIC",
        "absent.jpg": "no such file",
        "nul\0.jpg": "no possible file name",
    }
    for name, text in expected.items():
        with pytest.raises(ImageError, match=text) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)
    assert [p.name for p in find_images([tmp_path])] == sorted(set(expected) - {"absent.jpg", "nul\0.jpg"})


def test_a_name_with_a_line_break_stays_one_line(tmp_path: Path) -> None:
    (tmp_path / "two\nlines.jpg").write_text("x" * 99)
    with pytest.raises(ImageError, match=r"^two\\nlines\.jpg: "):
        read_image(tmp_path / "two\nlines.jpg")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (2, 2)), format="PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(tmp_path / "a.png")


def test_images_are_found_in_natural_order_whatever_order_is_asked_for(tmp_path: Path) -> None:
    names = ["field 10.JPG", "field 9.jpg", "a/2.tif", "a/10.png", "Field 1.webp"]
    for name in [*names, "notes.txt", ".hidden.jpg", "a/._2.tif", ".git/3.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [p.relative_to(tmp_path).as_posix() for p in find_images([tmp_path])]
    assert found == ["a/2.tif", "a/10.png", "Field 1.webp", "field 9.jpg", "field 10.JPG"]
    assert find_images([tmp_path / n for n in reversed(names)]) == find_images([tmp_path])
    assert [p.name for p in find_images([tmp_path], recursive=False)] == ["Field 1.webp", "field 9.jpg", "field 10.JPG"]
    with pytest.raises(ImageError, match="nothing here: no such file or folder"):
        find_images([tmp_path / "nothing here"])


OWN_MARKS = {
    "count": ("run.json", '{"fingerprint": {}}'),
    "count in memory": ("run.json", '{"versions": {"napari-bloodcells": "0.1.0"}}'),
    "bundle": ("model.json", '{"format": 1, "arch": "cnn3", "scheme": {}, "crop": {}}'),
    "training": ("history.csv", ",".join(field.name for field in fields(Epoch)) + "\n"),
}


@pytest.mark.parametrize("case", OWN_MARKS)
def test_own_results_are_no_images_and_the_folder_is_named(tmp_path: Path, case: str) -> None:
    mark, text = OWN_MARKS[case]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / mark).write_text(text)
    (tmp_path / "old" / "drawn.png").touch()
    with pytest.warns(DataWarning, match=r"^old: holds results of this program, not images; the folder is left out\.$"):
        assert find_images([tmp_path]) == []


@pytest.mark.parametrize(
    ("folder", "mark", "text"),
    [
        ("patient-differential", "notes.txt", ""),
        ("a", "run.json", '{"microscope": "x"}'),
        ("a", "run.json", "no JSON"),
        ("a", "run.json", ""),
        ("a", "model.json", '{"format": 2, "layers": []}'),
        ("a", "history.csv", "epoch,accuracy,loss\n"),
    ],
)
def test_a_sample_folder_is_searched_whatever_other_programs_left_in_it(
    tmp_path: Path, folder: str, mark: str, text: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / mark).write_text(text)
    (tmp_path / folder / "1.png").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [p.name for p in find_images([tmp_path])] == ["1.png"]


def test_link_loops_end_and_no_file_is_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [p.name for p in find_images([tmp_path, tmp_path / "a", tmp_path / "a" / "1.png"])] == ["1.png"]


def test_masks_beside_photographs_are_no_photographs(tmp_path: Path) -> None:
    for name in ("images/1.png", "masks/1.png", "other/masks/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_images([tmp_path])] == [
        "images/1.png",
        "other/masks/2.png",
    ]


@pytest.mark.data
def test_a_real_field_is_read_as_it_is(shared_data: Path) -> None:
    path = shared_data / "bccd" / "JPEGImages" / "BloodImage_00000.jpg"
    array = read_image(path)
    assert array.shape == (480, 640, 3)
    cell = array[177:376, 260:491].reshape(-1, 3).astype(float)
    nucleus = cell[cell[:, 1] < np.percentile(cell[:, 1], 20)].mean(0)
    assert nucleus[2] > nucleus[0] + 20  # violet; with red and blue exchanged it would be brown
    assert nucleus[0] > nucleus[1] + 10
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_the_size_of_an_empty_file_is_told_as_its_pixels_are(tmp_path: Path, name: str) -> None:
    from napari_bloodcells.core.images import image_size

    (tmp_path / name).write_bytes(b"")
    for read in (image_size, read_image):
        with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
            read(tmp_path / name)
