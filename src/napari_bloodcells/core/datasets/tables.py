"""Small tables beside images (CSV of any separator, or JSON), and finding the image that a row means."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_bloodcells.core.counting.cellstable import restore
from napari_bloodcells.core.errors import AnnotationError
from napari_bloodcells.core.files import display_name, read_regular
from napari_bloodcells.core.find import IMAGE_SUFFIXES

MAX_BYTES = 64_000_000
MAX_ROWS = 1_000_000

IMAGE_COLUMNS = ("image", "file", "filename", "file name", "image id", "img", "id", "name", "path")
CLASS_COLUMNS = ("class", "label", "category", "class label", "type", "cell type", "reader 1")


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV or JSON table, column names folded to lower case with spaces.

    JSON is ``{"a.jpg": "neutrophil"}`` or a list of objects.  CSV may be separated by comma, semicolon or tab, in
    UTF-8 or, where it is not, in Latin-1; the apostrophe that ``neutralize`` puts before a formula is taken away.

    Raises
    ------
    AnnotationError
        If the file cannot be opened or is no such table; the message names the file.
    """
    name = display_name(path)
    data = read_regular(path, MAX_BYTES, AnnotationError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    rows = _json_rows(text, name) if path.suffix.casefold() == ".json" else _csv_rows(text, name)
    if len(rows) > MAX_ROWS:
        raise AnnotationError(f"{name}: {len(rows)} rows; at most {MAX_ROWS} are read.")
    return rows


def column(rows: list[dict[str, str]], names: Iterable[str]) -> str | None:
    """The first of ``names`` that is a column of the table, or None."""
    return next((n for n in names if rows and n in rows[0]), None)


def has_boxes(rows: list[dict[str, str]]) -> bool:
    """Whether each row holds the corners of a box."""
    return bool(rows) and {"x min", "y min", "x max", "y max"} <= set(rows[0]) and bool(column(rows, IMAGE_COLUMNS))


class ImageIndex:
    """Finds the photograph that a table means: by path, by name with or without suffix, or by its number."""

    def __init__(self, images: Iterable[Path], root: Path) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for image in images:
            parts = image.relative_to(root).with_suffix("").parts
            for start in range(len(parts)):
                self._by_name.setdefault("/".join(parts[start:]).casefold(), []).append(image)
            number = re.search(r"(\d{1,18})$", parts[-1])
            if number:
                self._by_name.setdefault(f"#{int(number.group(1))}", []).append(image)

    def holds(self, name: str) -> bool:
        """Whether any image is called so: a name from ``without_suffix``, from any folder on."""
        return name in self._by_name

    def find(self, name: str) -> Path | None:
        """The one image of that name, or None if there is none or there are several."""
        text = without_suffix(name)
        parts = text.split("/")
        for start in range(len(parts)):  # a path may begin above the data set's folder
            found = _photographs(self._by_name.get("/".join(parts[start:]), []))
            if len(found) == 1:
                return found[0]
        if text.isdecimal() and len(text) < 18:
            found = _photographs(self._by_name.get(f"#{int(text)}", []))
            return found[0] if len(found) == 1 else None
        return None


def without_suffix(name: str) -> str:
    """How a table's name of an image is compared: in lower case, with slashes, without an image's suffix.

    >>> without_suffix("./Slides\\\\1.2024_07.PNG"), without_suffix("slide.1234_1")
    ('slides/1.2024_07', 'slide.1234_1')
    """
    text = name.strip().replace("\\", "/").removeprefix("./").strip("/").casefold()
    stem, dot, suffix = text.rpartition(".")
    return stem if dot and f".{suffix}" in IMAGE_SUFFIXES else text


def _photographs(found: list[Path]) -> list[Path]:
    """Of ``001.bmp`` and ``001.png`` in one folder the first: segmentation_WBC keeps its masks beside its images."""
    if len(found) == 2 and found[0].parent == found[1].parent:
        photographs = [path for path in found if path.suffix.casefold() == ".bmp"]
        masks = [path for path in found if path.suffix.casefold() == ".png"]
        return photographs if photographs and masks else found
    return found


def _csv_rows(text: str, name: str) -> list[dict[str, str]]:
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="", strict=False))
    except csv.Error as problem:
        raise AnnotationError(f"{name}: is no table: {problem}.") from None
    return [{_fold(k): restore((v or "").strip()) for k, v in row.items() if isinstance(k, str)} for row in rows]


def _json_rows(text: str, name: str) -> list[dict[str, str]]:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise AnnotationError(f"{name}: is not JSON: {problem}.") from None
    if isinstance(data, dict):
        data = [{"image": key, "class": value} for key, value in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise AnnotationError(f'{name}: is neither {{"image": "class"}} nor a list of rows.')
    return [{_fold(str(k)): _scalar(v) for k, v in row.items()} for row in data]


def _scalar(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
