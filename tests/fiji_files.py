"""TIFFs of several channels as Fiji writes them: a header, the pixels of all channels, the other headers or none."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_SHORT, _LONG, _ASCII = 3, 4, 2


def write_fiji(path: Path, planes: np.ndarray, *, headers: bool) -> None:
    """Write ``planes`` (C, H, W) of 8 or 16 bits; above 4 GB Fiji leaves the further ``headers`` out."""
    n, height, width = planes.shape
    text = f"ImageJ=1.54f\nimages={n}\nchannels={n}\nhyperstack=true\nmode=composite\n\0".encode()
    size = planes[0].nbytes
    first = 8 + 2 + 12 * 9 + 4 + len(text)
    after = first + planes.nbytes

    def header(plane: int, following: int, note: int) -> bytes:
        tags = [
            (256, _LONG, 1, width),
            (257, _LONG, 1, height),
            (258, _SHORT, 1, planes.itemsize * 8 << 16),
            (262, _SHORT, 1, 1 << 16),
            (270, _ASCII, len(text), note),
            (273, _LONG, 1, first + plane * size),
            (277, _SHORT, 1, 1 << 16),
            (278, _LONG, 1, height),
            (279, _LONG, 1, size),
        ]
        packed = b"".join(struct.pack(">HHII", *tag) for tag in tags)
        return struct.pack(">H", 9) + packed + struct.pack(">I", following)

    long = len(header(0, 0, 0))
    places = [8, *(after + i * long for i in range(n - 1))] if headers else [8]
    written = [header(i, (*places, 0)[i + 1], 8 + long) for i in range(len(places))]
    pixels = planes.astype(planes.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(b"MM\0*\0\0\0\x08" + written[0] + text + pixels + b"".join(written[1:]))
