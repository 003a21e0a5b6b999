"""The image half of the bad-input matrix: every format cut, flipped, mislabelled, hostile or merely unusual.

Each function yields ``Case`` objects after writing their files.  Good pictures are drawn by the package, so that the
matrix needs no data; everything random is seeded, so that a case has the same bytes each time.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reliability.case import Case

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF"}


def encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """``pixels`` (H, W, 3) as a file of the kind that ``suffix`` names."""
    buffer = io.BytesIO()
    options = {".jpg": {"quality": 92}, ".webp": {"quality": 90}, ".tif": {"compression": "tiff_deflate"}}
    Image.fromarray(pixels).save(buffer, FORMATS[suffix], **options.get(suffix, {}))
    return buffer.getvalue()


def truncated(folder: Path, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """Every format cut at ten places: an error, or the very same pixels where only padding was lost."""
    for suffix in FORMATS:
        data = encode(pixels, suffix)
        for tenth in range(10):
            end = max(1, len(data) * tenth // 10 + 7)
            path = folder / f"cut-{suffix[1:]}-{tenth}{suffix}"
            path.write_bytes(data[:end])
            yield Case(path, "error")


def flipped(folder: Path, pixels: NDArray[np.uint8], seed: int = 7) -> Iterator[Case]:
    """Every format with bits turned over in ten ways: read or refused, never a crash."""
    random = np.random.default_rng(seed)
    for suffix in FORMATS:
        data = np.frombuffer(encode(pixels, suffix), np.uint8)
        for trial in range(10):
            damaged = data.copy()
            reach = 64 if trial < 5 else len(data)  # half of them in the header, where they hurt most
            for _ in range(1 + trial):
                damaged[random.integers(reach)] ^= 1 << random.integers(8)
            path = folder / f"flip-{suffix[1:]}-{trial}{suffix}"
            path.write_bytes(damaged.tobytes())
            yield Case(path, "either")


def mislabelled(folder: Path, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """Empty files, text under a picture's name, and pictures under another picture's name."""
    for suffix in FORMATS:
        empty = folder / f"empty-{suffix[1:]}{suffix}"
        empty.write_bytes(b"")
        yield Case(empty, "error")
        text = folder / f"text-{suffix[1:]}{suffix}"
        text.write_text("this is no picture\n" * 20)
        yield Case(text, "error")
        other = ".png" if suffix != ".png" else ".jpg"
        swapped = folder / f"really-{other[1:]}-{suffix[1:]}{suffix}"
        swapped.write_bytes(encode(pixels, other))
        yield Case(swapped, "either")
    upper = folder / "UPPER.JPG"
    upper.write_bytes(encode(pixels, ".jpg"))
    yield Case(upper, "ok")


def tiny(folder: Path) -> Iterator[Case]:
    """One pixel, one row, one column: read, and no cell found."""
    for suffix in (".png", ".bmp", ".jpg", ".tif"):
        for height, width in ((1, 1), (1, 300), (300, 1), (2, 2)):
            path = folder / f"tiny-{height}x{width}-{suffix[1:]}{suffix}"
            path.write_bytes(encode(np.full((height, width, 3), 200, np.uint8), suffix))
            yield Case(path, "ok", cells=0)


def bombs(folder: Path) -> Iterator[Case]:
    """Small files that declare 30,000 x 30,000 pixels (2.7 GB as RGB): refused before a pixel is decoded."""
    side = 30_000

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(bytes(90_001))) + chunk(b"IEND", b"")
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    jpeg = bytearray(encode(np.full((16, 16, 3), 200, np.uint8), ".jpg"))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6) + b","
    gif += struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00;"
    for name, data in (("bomb.png", png), ("bomb.bmp", bmp), ("bomb.jpg", bytes(jpeg)), ("bomb.gif", gif)):
        (folder / name).write_bytes(data)
        yield Case(folder / name, "error")
    sparse = folder / "bomb.tif"
    with tifffile.TiffWriter(sparse) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", compression="deflate")
    with tifffile.TiffFile(sparse, mode="r+") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(side)  # type: ignore[union-attr]
    yield Case(sparse, "error")


def unusual(folder: Path, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """What cameras and programs really write: CMYK, 16 bit, float, palette, alpha, EXIF, several pages."""
    image = Image.fromarray(pixels)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.convert("L").save(folder / "grey.png")
    image.convert("1").save(folder / "bilevel.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("P").save(folder / "palette.bmp")
    image.convert("RGBA").save(folder / "alpha.png")
    image.convert("LA").save(folder / "grey-alpha.png")
    image.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    image.save(folder / "progressive.jpg", progressive=True)
    Image.fromarray(pixels[..., 1].astype(np.uint16) * 257).save(folder / "grey16.png")
    names = ["cmyk.jpg", "grey.png", "bilevel.png", "palette.png", "palette.bmp", "alpha.png", "grey-alpha.png"]
    names += ["alpha.webp", "progressive.jpg", "grey16.png"]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(folder / f"exif-{orientation}.jpg", exif=exif, quality=95)
        names.append(f"exif-{orientation}.jpg")
    tiffs = {
        "rgb16.tif": (pixels.astype(np.uint16) * 257, {"photometric": "rgb"}),
        "planar.tif": (np.moveaxis(pixels, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "float.tif": ((pixels / 255).astype(np.float32), {"photometric": "rgb"}),
        "grey.tif": (pixels[..., 1], {"photometric": "minisblack"}),
        "inverted.tif": (255 - pixels[..., 1], {"photometric": "miniswhite"}),
        "rgba.tif": (np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]), {"photometric": "rgb"}),
        "lzw.tif": (pixels, {"photometric": "rgb", "compression": "lzw"}),
        "jpeg.tif": (pixels, {"photometric": "rgb", "compression": "jpeg"}),
        "tiled.tif": (pixels, {"photometric": "rgb", "tile": (64, 64)}),
        "big.tif": (pixels, {"photometric": "rgb"}),
        "pages.tif": (np.stack([pixels, pixels]), {"photometric": "rgb"}),
        "scene.ome.tif": (pixels, {"photometric": "rgb", "metadata": {"axes": "YXS"}}),
    }
    for name, (array, options) in tiffs.items():
        tifffile.imwrite(folder / name, array, bigtiff=name == "big.tif", **options)
        names.append(name)
    for name in names:
        yield Case(folder / name, "ok")
    nan = np.full((40, 40, 3), np.nan, np.float32)
    tifffile.imwrite(folder / "nan.tif", nan, photometric="rgb")
    yield Case(folder / "nan.tif", "either")
    frames = [Image.fromarray(pixels[:, ::step]) for step in (1, -1)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:], duration=100)
    yield Case(folder / "animated.gif", "either")
    yield Case(folder / "animated.webp", "either")


def not_files(folder: Path, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """Folders, pipes, links and locked files under a picture's name."""
    (folder / "a-folder.jpg").mkdir()
    (folder / "a-folder.jpg" / "inside.jpg").write_bytes(encode(pixels, ".jpg"))
    yield Case(folder / "a-folder.jpg" / "inside.jpg", "ok")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    yield Case(folder / "dangling.jpg", "error")
    (folder / "loop-a.jpg").symlink_to(folder / "loop-b.jpg")
    (folder / "loop-b.jpg").symlink_to(folder / "loop-a.jpg")
    yield Case(folder / "loop-a.jpg", "error")
    yield Case(folder / "loop-b.jpg", "error")
    (folder / "loop-folder").symlink_to(folder)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        yield Case(folder / "pipe.jpg", "error")
    locked = folder / "locked.jpg"
    locked.write_bytes(encode(pixels, ".jpg"))
    locked.chmod(0)
    yield Case(locked, "ok" if hasattr(os, "geteuid") and os.geteuid() == 0 else "error")


NAMES = (
    "with space.jpg", "  leading.jpg", "new\nline.jpg", "tab\tname.jpg", "it's.jpg", 'double"quote.jpg',
    "comma,name.jpg",
    "semi;colon.jpg", "=1+1.jpg", "+plus.jpg", "-minus.jpg", "@at.jpg", "<script>alert(1)<∕script>.jpg",
    "per%cent%20.jpg", "back\\slash.jpg", "caf\u00e9.jpg", "cafe\u0301-nfd.jpg", "血液.jpg", "🩸.jpg", "\u202ertl.jpg",
    "Case.jpg", "case.jpg", "{{7*7}}.jpg", "$(touch x).jpg", "[bold]markup[∕bold].jpg", "x" * 251 + ".jpg",
    "two.dots..jpg", "CON.jpg", "#hash.jpg",
)  # fmt: skip


def names(folder: Path, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """Good pictures under hostile, odd and overlong names, and two samples with one name."""
    data = encode(pixels, ".jpg")
    for name in NAMES:
        (folder / name).write_bytes(data)
        yield Case(folder / name, "ok")
    broken = os.fsencode(folder) + b"/latin-\xe9.jpg"
    try:
        with open(broken, "wb") as file:
            file.write(data)
        yield Case(Path(os.fsdecode(broken)), "ok")
    except OSError:  # file systems that hold Unicode only
        pass
    for sample in ("ward a/sample", "ward b/sample"):
        (folder / sample).mkdir(parents=True)
        (folder / sample / "field.jpg").write_bytes(data)
        yield Case(folder / sample / "field.jpg", "ok")
