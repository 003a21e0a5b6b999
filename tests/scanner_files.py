"""Small slides as scanners write them, from any picture: Aperio .svs, Hamamatsu .ndpi and .vms (MIRAX: mirax_files.py).

Written after the descriptions of the formats at https://openslide.org/formats/ and what openslide asks of a file before
it takes it for one of that vendor; no file of a scanner was copied.  Each has what real ones have beside the pixels: a
thumbnail, a label and a macro picture, smaller copies, and places that were not scanned.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from imagecodecs import jpeg2k_encode
from numpy.typing import NDArray
from PIL import Image

QUALITY = 95
SVS_TILE = 240


def jpeg(pixels: NDArray[np.uint8], subsampling: int = 0, restart: int = 0) -> bytes:
    """``pixels`` as a JPEG file; with ``restart`` a marker after so many blocks."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "jpeg", quality=QUALITY, subsampling=subsampling, restart_marker_blocks=restart)
    return data.getvalue()


def smaller(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """``pixels`` at a smaller size."""
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def write_svs(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    um: float | None = 0.25,
    objective: int | None = 40,
    missing: frozenset[int] = frozenset(),
    jpeg2000: str | None = None,
) -> None:
    """An Aperio slide: tiles of 240 x 240 with a copy at a quarter; ``missing`` tiles have no bytes.

    The tiles are JPEG, or JPEG 2000 of the colors that ``jpeg2000`` names (``RGB``, ``YCbCr``).
    """
    height, width = pixels.shape[:2]
    known = {"AppMag": objective, "StripeWidth": 2040, "ScanScope ID": "SYNTHETIC", "MPP": um}
    properties = "|".join(f"{name} = {value}" for name, value in known.items() if value is not None)
    library = "Aperio Image Library v12.0.15"

    def tiles(picture: NDArray[np.uint8], left_out: frozenset[int] = frozenset()) -> Iterator[bytes]:
        rows, columns = (-(-n // SVS_TILE) for n in picture.shape[:2])
        padded = np.pad(
            picture, ((0, rows * SVS_TILE - len(picture)), (0, columns * SVS_TILE - picture.shape[1]), (0, 0))
        )
        for number in range(rows * columns):
            y, x = number // columns * SVS_TILE, number % columns * SVS_TILE
            yield b"" if number in left_out else packed(padded[y : y + SVS_TILE, x : x + SVS_TILE].copy())

    def packed(tile: NDArray[np.uint8]) -> bytes:
        if jpeg2000 is None:
            return jpeg(tile, 2)
        colors = np.asarray(Image.fromarray(tile).convert(jpeg2000))
        data: bytes = jpeg2k_encode(colors, codecformat="j2k", mct=False, reversible=True)
        return data

    small = smaller(pixels, 4)
    tiled = {
        "dtype": np.uint8,
        "tile": (SVS_TILE, SVS_TILE),
        "metadata": None,
        **({"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg"} if jpeg2000 is None else {}),
        **({"photometric": "rgb", "compression": 33003 if jpeg2000 == "YCbCr" else 33005} if jpeg2000 else {}),
    }
    coding = "JPEG" if jpeg2000 is None else "J2K"
    size = f"{width}x{height} [0,0 {width}x{height}] ({SVS_TILE}x{SVS_TILE})"
    with tifffile.TiffWriter(path) as tif:
        text = f"{library}\r\n{size} {coding}/RGB Q={QUALITY}|{properties}"
        tif.write(tiles(pixels, missing), shape=pixels.shape, description=text, **tiled)
        thumbnail = smaller(pixels, 8)
        text = f"{library}\r\n{size} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - |{properties}"
        stripped = {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 16, "metadata": None}
        tif.write(thumbnail, description=text, **stripped)
        text = f"{library}\r\n{size} -> {small.shape[1]}x{small.shape[0]} {coding}/RGB Q={QUALITY}"
        tif.write(tiles(small), shape=small.shape, description=text, **tiled)
        for name, kind, color in (("label", 1, 90), ("macro", 9, 30)):
            extra = np.full((120, 160, 3), color, np.uint8)
            tif.write(extra, description=f"{library}\n{name} 160x120", subfiletype=kind, **stripped)


def write_ndpi(
    path: Path, pixels: NDArray[np.uint8], *, um: float | None = 0.25, objective: float = 40.0, starts: bool = True
) -> None:
    """A Hamamatsu slide: one JPEG strip a level (1, 1/4, 1/16), cut by restart markers; macro and map at the end.

    Sides of ``pixels`` are multiples of 512 and 128.  Without ``starts`` the file does not say where the markers are,
    as some do not.
    """
    out = bytearray(b"II*\0" + bytes(8))
    link = 4
    pictures = [(smaller(pixels, 4**n) if n else pixels, objective / 4**n, (8, 8, 0)[n]) for n in range(3)]
    pictures += [(np.full((64, 128, 3), 30, np.uint8), -1.0, 0), (np.full((64, 128, 3), 200, np.uint8), -2.0, 0)]
    for number, (picture, lens, restart) in enumerate(pictures):
        data = jpeg(picture, 1, restart)
        place = len(out)
        out += data + bytes(len(data) % 2)
        tags: list[tuple[int, str, tuple[float, ...] | bytes]] = [
            (256, "I", (picture.shape[1],)),
            (257, "I", (picture.shape[0],)),
            (258, "H", (8, 8, 8)),
            (259, "H", (7,)),
            (262, "H", (6,)),
            (271, "s", b"Hamamatsu\0"),
            (272, "s", b"NanoZoomer\0"),
            (273, "I", (place,)),
            (277, "H", (3,)),
            (278, "I", (picture.shape[0],)),
            (279, "I", (len(data),)),
            (284, "H", (1,)),
            (65420, "I", (1,)),
            (65421, "f", (lens,)),
            (65422, "i", (-1_000,)),
            (65423, "i", (2_000,)),
            (65424, "i", (0,)),
            (65427, "s", b"SYNTHETIC\0"),
            (65449, "s", b"Product=NanoZoomer\r\nObjective.Lens.Magnificant=40\0"),
        ]
        if um is not None:
            per_cm = (round(1e8 / (um * 4**number)), 10_000) if lens > 0 else (4_000, 1)
            tags += [(282, "R", per_cm), (283, "R", per_cm), (296, "H", (3,))]
        if restart and starts:
            tags.append((65426, "I", tuple(_restarts(data))))
        ifd = _directory(out, sorted(tags, key=lambda tag: tag[0]))
        struct.pack_into("<Q", out, link, ifd)
        link = len(out) - 8
    path.write_bytes(out)


def _directory(out: bytearray, tags: list[tuple[int, str, tuple[float, ...] | bytes]]) -> int:
    """Append a directory with what its tags point to; where it begins.  NDPI links directories with eight bytes."""
    codes = {"H": 3, "I": 4, "R": 5, "i": 9, "f": 11, "s": 2}
    entries = b""
    for tag, kind, values in tags:
        if isinstance(values, bytes):
            data, n = values, len(values)
        else:
            whole = values if kind == "f" else tuple(int(value) for value in values)
            data = struct.pack(f"<{len(values)}{'I' if kind == 'R' else kind}", *whole)
            n = len(values) // (2 if kind == "R" else 1)
        if len(data) > 4:
            out += bytes(len(out) % 2)
            place = len(out)
            out += data
            data = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, codes[kind], n) + data.ljust(4, b"\0")
    out += bytes(len(out) % 2)
    place = len(out)
    out += struct.pack("<H", len(tags)) + entries + bytes(8)
    return place


def _restarts(data: bytes) -> list[int]:
    """Where the pieces of a JPEG begin: after its header, and after each restart marker."""
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    found = [at]
    while (at := data.find(b"\xff", at)) >= 0:
        if 0xD0 <= data[at + 1] <= 0xD7:
            found.append(at + 2)
        at += 2
    return found


def write_vms(path: Path, pixels: NDArray[np.uint8], *, um: float = 0.25) -> None:
    """An older Hamamatsu slide: a list of files, and beside it JPEG files of two columns, a map and a macro picture."""
    middle = pixels.shape[1] // 2
    parts = {f"{path.stem}({column},0).jpg": half for column, half in enumerate(np.split(pixels, [middle], axis=1))}
    parts |= {f"{path.stem}_map2.jpg": smaller(pixels, 4)}
    for name, picture in parts.items():
        (path.parent / name).write_bytes(jpeg(np.ascontiguousarray(picture), 1, 8))
    macro = f"{path.stem}_macro.jpg"
    (path.parent / macro).write_bytes(jpeg(np.full((64, 128, 3), 30, np.uint8)))
    images = list(parts)
    values = {
        "NoLayers": 1,
        "NoJpegColumns": 2,
        "NoJpegRows": 1,
        "ImageFile": images[0],
        "ImageFile(1,0)": images[1],
        "MapFile": images[2],
        "MacroImage": macro,
        "PhysicalWidth": round(pixels.shape[1] * um * 1000),
        "PhysicalHeight": round(pixels.shape[0] * um * 1000),
        "SourceLens": 40,
    }
    lines = ["[Virtual Microscope Specimen]", *(f"{name}={value}" for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
