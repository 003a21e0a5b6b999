"""Small slides as 3DHISTECH's MIRAX scanners write them, from any picture: .mrxs, and its folder with the pixels.

Written after https://openslide.org/formats/mirax/ and what openslide asks of a file; none of a scanner was copied.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tests.scanner_files import jpeg, smaller

MIRAX_IMAGE = (264, 200)
MIRAX_OVERLAP = 32
"""Pixels that two photographs of the camera share, which is split into 2 x 2 images."""
WHITE = 0xFFFFFF


def mirax_size(photos: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a MIRAX slide of so many photographs across and down."""
    width, height = (2 * n * side - (n - 1) * MIRAX_OVERLAP for n, side in zip(photos, MIRAX_IMAGE, strict=True))
    return width, height


def write_mrxs(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    um: float = 0.25,
    objective: int = 40,
    photos: tuple[int, int] = (2, 2),
    missing: frozenset[tuple[int, int]] = frozenset(),
    positions: bool = True,
    fill: int = WHITE,
) -> None:
    """A MIRAX slide of ``mirax_size(photos)``: images that are not square, of overlapping photographs, three levels.

    ``missing`` images (column, row) are not in the file.  With ``positions`` each photograph lies a few pixels beside
    its nominal place, as the stage of a microscope does, and the file says where.
    """
    (w, h), across, down = MIRAX_IMAGE, 2 * photos[0], 2 * photos[1]
    rng = np.random.default_rng(0)
    places = {}
    for row in range(photos[1]):
        for column in range(photos[0]):
            shift = rng.integers(-6, 7, 2) if positions and (row, column) != (0, 0) else np.zeros(2, int)
            nominal = np.array([column * (2 * w - MIRAX_OVERLAP), row * (2 * h - MIRAX_OVERLAP)])
            places[column, row] = tuple(int(v) for v in np.maximum(nominal + shift, 0))
    padded = np.pad(pixels, ((0, 16), (0, 16), (0, 0)), mode="edge")
    images: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for row in range(down):
        for column in range(across):
            x, y = places[column // 2, row // 2]
            x, y = x + column % 2 * w, y + row % 2 * h
            if (column, row) not in missing:
                images[column, row] = padded[y : y + h, x : x + w]
    levels = [images]
    for level in (1, 2):
        step, finer = 2**level, levels[-1]
        coarser = {}
        for row in range(0, down, step):
            for column in range(0, across, step):
                four = [(column + i, row + j) for j in (0, step // 2) for i in (0, step // 2)]
                if any(key in finer for key in four):
                    blank = np.full((h, w, 3), 255, np.uint8)
                    parts = [finer.get(key, blank) for key in four]
                    whole = np.concatenate([np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)])
                    coarser[column, row] = smaller(whole, 2)
        levels.append(coarser)
    folder = path.with_suffix("")
    folder.mkdir()
    Image.fromarray(smaller(pixels, 8)).save(path, "jpeg")
    data, pages = bytearray(b"synthetic data"), []
    for found in levels:
        page = []
        for (column, row), image in found.items():
            packed = jpeg(np.ascontiguousarray(image))
            page.append((row * across + column, len(data), len(packed), 0))
            data += packed
        pages.append(page)
    extra = [jpeg(np.full((120, 160, 3), 30, np.uint8))]
    if positions:
        every = [places[column, row] for row in range(photos[1]) for column in range(photos[0])]
        extra.append(b"".join(struct.pack("<Bii", 0, *place) for place in every))
    records = []
    for record in extra:
        records.append((len(data), len(record), 0))
        data += record
    (folder / "Data0000.dat").write_bytes(data)
    identity = "0123456789ABCDEF0123456789ABCDEF"
    (folder / "Index.dat").write_bytes(_index(identity, pages, records))
    (folder / "Slidedat.ini").write_text(_slidedat(identity, (across, down), um, objective, positions, fill))


def _index(identity: str, pages: list[list[tuple[int, int, int, int]]], records: list[tuple[int, int, int]]) -> bytes:
    """The index of a MIRAX slide: offsets of the images of each level, and of what is no image of a level."""
    out = bytearray(b"01.02" + identity.encode())
    root = len(out)
    out += bytes(8)

    def table(lists: list[bytes]) -> int:
        begins = []
        for page in lists:
            begins.append(len(out))
            out.extend(struct.pack("<ii", 0, len(out) + 8) + page)
        place = len(out)
        out.extend(struct.pack(f"<{len(begins)}i", *begins))
        return place

    hierarchical = table(
        [struct.pack("<ii", len(page), 0) + b"".join(struct.pack("<4i", *item) for item in page) for page in pages]
    )
    other = table([struct.pack("<7i", 1, 0, 0, 0, *record) for record in records])
    struct.pack_into("<ii", out, root, hierarchical, other)
    return bytes(out)


def _slidedat(identity: str, images: tuple[int, int], um: float, objective: int, positions: bool, fill: int) -> str:
    sections: dict[str, dict[str, object]] = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": identity,
            "SLIDE_NAME": "synthetic",
            "IMAGENUMBER_X": images[0],
            "IMAGENUMBER_Y": images[1],
            "OBJECTIVE_MAGNIFICATION": objective,
            "CameraImageDivisionsPerSide": 2,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 1 + positions,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": 3,
            **{f"HIER_0_VAL_{n}": f"ZoomLevel_{n}" for n in range(3)},
            **{f"HIER_0_VAL_{n}_SECTION": f"LAYER_0_LEVEL_{n}_SECTION" for n in range(3)},
            "NONHIER_0_NAME": "Scan data layer",
            "NONHIER_0_COUNT": 1,
            "NONHIER_0_VAL_0": "ScanDataLayer_SlideThumbnail",
            "NONHIER_0_VAL_0_SECTION": "NONHIERLAYER_0_LEVEL_0_SECTION",
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
        "NONHIERLAYER_0_LEVEL_0_SECTION": {"THUMBNAIL_IMAGE_TYPE": "JPEG"},
    }
    if positions:
        sections["HIERARCHICAL"] |= {
            "NONHIER_1_NAME": "VIMSLIDE_POSITION_BUFFER",
            "NONHIER_1_COUNT": 1,
            "NONHIER_1_VAL_0": "default",
            "NONHIER_1_VAL_0_SECTION": "NONHIERLAYER_1_SECTION",
        }
        sections["NONHIERLAYER_1_SECTION"] = {"VIMSLIDE_POSITION_DATA_FORMAT_VERSION": 257}
    for n in range(3):
        sections[f"LAYER_0_LEVEL_{n}_SECTION"] = {
            "OVERLAP_X": MIRAX_OVERLAP / 2**n,
            "OVERLAP_Y": MIRAX_OVERLAP / 2**n,
            "MICROMETER_PER_PIXEL_X": um * 2**n,
            "MICROMETER_PER_PIXEL_Y": um * 2**n,
            "IMAGE_FORMAT": "JPEG",
            "IMAGE_FILL_COLOR_BGR": fill,
            "DIGITIZER_WIDTH": MIRAX_IMAGE[0],
            "DIGITIZER_HEIGHT": MIRAX_IMAGE[1],
            "IMAGE_CONCAT_FACTOR": 0 if n == 0 else 1,
        }
    blocks = ["\n".join([f"[{name}]", *(f"{k} = {v}" for k, v in values.items())]) for name, values in sections.items()]
    return "\n".join(blocks) + "\n"
