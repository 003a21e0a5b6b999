"""Each image with its boxes and classes drawn, for ``count --overlay``; of a whole slide an overview.

Colors are those of the class scheme, the same as in the plugin and the report.  Pictures are drawn from the files
again, one at a time, so a long run holds none of them; nothing of the original's metadata (EXIF) is copied.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_bloodcells.core.counting.options import max_pixels_of
from napari_bloodcells.core.counting.shards import write_or_tell
from napari_bloodcells.core.errors import BloodcellsError, Cancelled, DataWarning, DiskError
from napari_bloodcells.core.files import PART, kept_for_resume, remove_parts
from napari_bloodcells.core.progress import Progress, Silent, check_cancelled
from napari_bloodcells.core.slides import is_slide, open_slide

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.counting.result import CountResult

TASK = "overlay"
FOLDER = "overlay"
"""Below the output folder of a count."""
GREY = "#777777"
_QUALITY = 90
_WINDOWS = os.name == "nt"
_DRIVE = re.compile(r"^([A-Za-z]):(/|$)")
"""Images on two drives are called by their whole path, which behind the overlay's folder would lead out of it."""


def write_overlays(result: CountResult, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write one JPEG per image that was read, under the image's own name and folders with ``.jpg`` behind.

    A whole slide gets an overview with the counted area, ``NAME-overview.jpg``.

    Parameters
    ----------
    result : CountResult
        With ``files`` to read the images from.
    folder : Path
        Made where it is missing; former overlays of the same names are replaced.

    Raises
    ------
    OutputError
        A picture cannot be written.

    Warns
    -----
    DataWarning
        For an image that cannot be read any more.
    """
    from napari_bloodcells.core.images import read_image

    progress = progress or Silent()
    limit = max_pixels_of(result.run)
    read = result.images[result.images["status"] == "ok"]
    by_image = dict(tuple(result.cells.groupby("image", sort=False)))
    colors = result.scheme.colors
    progress.start(TASK, len(read))
    written, folders = [], set[Path]()
    for name in read["image"]:
        check_cancelled(progress)
        source, area = result.files.get(name), result.run.get("slides", {}).get(name)
        cells = by_image.get(name, result.cells[:0])
        try:
            if source is None:
                drawn = None
            elif is_slide(source):
                drawn = None if area is None else _overview(source, area, cells, colors, progress)
            else:
                drawn = draw_overlay(read_image(source, max_pixels=limit), cells, colors)
        except Cancelled:
            raise
        except BloodcellsError as error:  # it has gone since it was counted, say
            warnings.warn(f"{name}: is not drawn ({error})", DataWarning, stacklevel=2)
            drawn = None
        if drawn is not None:
            place = folder / overlay_name(name, area is not None)
            if _made(place.parent, folders):
                write_or_tell(place, jpeg_bytes(drawn))
                written.append(place)
            else:
                warnings.warn(f"{name}: is not drawn (a file lies where its overlay's folder is to be)", DataWarning, 2)
        progress.advance(TASK)
    return written


def _made(folder: Path, made: set[Path]) -> bool:
    """Make the folder of overlays where it is not ``made`` yet, and clear it of what a killed run left half-written."""
    if folder in made:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return False
    except OSError as error:
        with kept_for_resume():
            reason = (error.strerror or str(error)).lower()
            raise DiskError(f"{folder}: cannot be made: {reason}.") from None
    remove_parts(folder, PART)
    made.add(folder)
    return True


def _overview(
    source: str, area: dict[str, Any], cells: pd.DataFrame, colors: dict[str, str], progress: Progress
) -> NDArray[np.uint8]:
    from napari_bloodcells.core.slides.overview import draw_overview

    with open_slide(source) as slide:
        return draw_overview(slide, area, cells, colors, progress)


def overlay_name(image: str, slide: bool = False) -> str:
    """The overlay's path below its folder: never outside of it, and short enough for a file system.

    >>> overlay_name("a/1.png"), overlay_name("/abs/../x.tif"), overlay_name("b.svs", slide=True)
    ('a/1.png.jpg', 'abs/x.tif.jpg', 'b.svs-overview.jpg')
    >>> overlay_name("D:/smears/1.png")
    'D/smears/1.png.jpg'
    """
    image = _DRIVE.sub(r"\1\2", image.replace("\\", "/") if _WINDOWS else image)
    image = image.replace(":", "_") if _WINDOWS else image  # an array may be called what no file can be
    named = f"{image}-overview" if slide else image
    parts = [part for part in named.split("/") if part not in ("", ".", "..")] or ["image"]
    data = parts[-1].encode("utf-8", "surrogateescape")
    # Names that are too long may begin alike, so what is cut off is told by a hash.
    last = parts[-1] if len(data) < 240 else f"{parts[-1][:60]}-{hashlib.sha256(data).hexdigest()[:8]}"
    return "/".join([*parts[:-1], f"{last}.jpg"])


def draw_overlay(image: NDArray[np.uint8], cells: pd.DataFrame, colors: dict[str, str]) -> NDArray[np.uint8]:
    """``image`` (H, W, 3) with the boxes of ``cells`` in the colors of their classes, named and with confidence."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    longest = max(picture.size)
    line, size = max(2, longest // 320), max(12, longest // 45)
    font = ImageFont.load_default(size)
    for cell in cells.to_dict("records"):
        color = colors.get(cell["class"], GREY)
        box = (cell["x_min"], cell["y_min"], cell["x_max"], cell["y_max"])
        draw.rectangle(box, outline=color, width=line)
        text = f"{cell['class']} {100 * cell['confidence']:.0f} %"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = min(max(box[0], 0), max(picture.width - (right - left) - 4, 0))
        y = box[1] - (bottom - top) - 6 if box[1] > size + 6 else box[1] + line
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 6), fill=color)
        draw.text((x + 2 - left, y + 3 - top), text, fill=_readable_on(color), font=font)
    return np.asarray(picture)


def jpeg_bytes(image: NDArray[np.uint8]) -> bytes:
    """``image`` as a JPEG without metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _readable_on(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
