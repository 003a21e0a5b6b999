"""The ``cells`` table: its columns, and writing and reading ``cells.csv`` without loss.

One row per cell.  The columns are named here and nowhere else; the command, the plugin, the cluster and the report
page (whose *Export corrections* writes the same table) hold to them.  Text that a spreadsheet would run as a formula
(it begins with ``=``, ``+``, ``-`` or ``@``) is written with an apostrophe before it, and read back without.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_bloodcells.core.boxes import iou
from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED, fold
from napari_bloodcells.core.errors import AnnotationError
from napari_bloodcells.core.files import display_name, read_regular, write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from napari_bloodcells.core.classes import ClassScheme

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
LEADING_COLUMNS = ("image", "cell", *BOX_COLUMNS, "class", "confidence")
"""Before the probabilities.  ``image``: path relative to the folder that was counted, with ``/``; ``cell``: number
within the image, from 1; box in pixels (``core/boxes.py``); ``class``: the final one; ``confidence``: 0 to 1."""
TRAILING_COLUMNS = ("box_source", "distance")
"""After the probabilities.  ``box_source``: xml, found, whole or drawn; ``distance``: from the training data, in
units of the 99th percentile of cells held out of it (above 1 is unlike anything that the model was trained on)."""
LABEL_COLUMN = "label"
"""The class that the data set itself gives the cell, where it has one."""
REVIEW_COLUMNS = ("machine_class", "reviewed", "reviewer", "time")
"""Only in reviewed tables: what the machine said, whether a person looked (0 or 1), who, when (ISO 8601, UTC)."""
PROBABILITY_PREFIX = "p_"
MAX_BYTES = 2**30
"""Of a table that is read: some six million cells."""
PROBABILITY_DECIMALS = 4
PIXEL_DECIMALS = 2
LARGEST = 10_000_000
"""Pixels from the corner of an image within which a box must lie (as in VOC): far beyond the largest slide."""

_LIKE_ESCAPE = re.compile(r"\\(?=udc[89a-f][0-9a-f]|r)")
_FORMULA = re.compile(r"^'*[=+\-@\t\r]")
_GUARDED = re.compile(r"^'+[=+\-@\t\r]")
_REQUIRED = ("image", "cell", *BOX_COLUMNS, "class")
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
"""What a spreadsheet may put in the place of the comma; it may write decimal commas then, so it is not read."""


def cell_columns(class_names: Sequence[str], *, labeled: bool = False, reviewed: bool = False) -> list[str]:
    """All columns of a ``cells`` table in their order.

    >>> cell_columns(["neutrophil"], labeled=True)[6:]
    ['class', 'confidence', 'p_neutrophil', 'box_source', 'distance', 'label']
    """
    probabilities = [PROBABILITY_PREFIX + name for name in class_names]
    label = [LABEL_COLUMN] if labeled else []
    return [*LEADING_COLUMNS, *probabilities, *TRAILING_COLUMNS, *label, *(REVIEW_COLUMNS if reviewed else ())]


def probability_columns(cells: pd.DataFrame) -> list[str]:
    """The ``p_<class>`` columns of a table, in its order."""
    return [str(column) for column in cells.columns if str(column).startswith(PROBABILITY_PREFIX)]


def table_name(path: str) -> str:
    r"""``path`` as a table can hold it: with ``/``, and written as escapes bytes that are no UTF-8, and carriage
    returns, which would end a row.  What looks like such an escape has its backslash doubled: no two paths are alike.

    >>> table_name("smear\udce9/a.jpg"), table_name("a\r.jpg"), table_name("a\\r.jpg")
    ('smear\\udce9/a.jpg', 'a\\r.jpg', 'a\\\\r.jpg')
    """
    path = _LIKE_ESCAPE.sub(r"\\\\", path.replace(os.sep, "/")).replace("\r", "\\r")
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def neutralize(text: str) -> str:
    """``text`` so that no spreadsheet takes it for a formula.

    >>> neutralize("=1+1"), neutralize("a.jpg"), restore(neutralize("'=x"))
    ("'=1+1", 'a.jpg', "'=x")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def restore(text: str) -> str:
    """Undo ``neutralize``."""
    return text[1:] if _GUARDED.match(text) else text


def neutralize_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of ``frame`` with every text field and column name neutralized; numbers stay as they are."""
    safe = frame.copy()
    for position, dtype in enumerate(frame.dtypes):
        if dtype.kind in "OTU" or str(dtype) in ("string", "str", "category"):
            column = [neutralize(value) if isinstance(value, str) else value for value in frame.iloc[:, position]]
            safe.isetitem(position, column)
    safe.columns = [neutralize(str(name)) for name in frame.columns]
    return safe


def cells_csv(cells: pd.DataFrame, *, header: bool = True) -> str:
    """The text of ``cells.csv``: pixels to two decimals, probabilities to four, formula fields neutralized.

    The same cells give the same bytes, in one piece or shard by shard (``header=False`` from the second on).
    """
    rounded = cells.copy()
    for name in cells.columns:
        if name in BOX_COLUMNS:
            rounded[name] = [_pixel(value) for value in cells[name]]
        elif name in ("confidence", "distance") or str(name).startswith(PROBABILITY_PREFIX):
            rounded[name] = cells[name].astype("float64").round(PROBABILITY_DECIMALS)
        elif name == "reviewed":
            rounded[name] = cells[name].astype("int64")
    plain = [name for name in rounded.columns if name not in BOX_COLUMNS]
    safe = neutralize_frame(rounded[plain])
    safe = safe.set_axis(plain, axis=1)
    for name in BOX_COLUMNS:
        safe[name] = rounded[name]
    buffer = io.StringIO()
    safe[list(cells.columns)].to_csv(buffer, index=False, header=header, lineterminator="\n")
    return buffer.getvalue()


def _pixel(value: Any) -> str:
    text = f"{float(value):.{PIXEL_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def write_cells(cells: pd.DataFrame, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write ``cells`` as CSV in UTF-8, whole or not at all.

    Raises
    ------
    OutputError
        The file exists and ``overwrite`` is False, or it cannot be written.
    """
    return write_atomic(path, cells_csv(cells).encode("utf-8"), overwrite=overwrite)


def read_cells(path: Path | str) -> pd.DataFrame:
    """Read a ``cells.csv`` that the command, the plugin or the report page wrote.

    Returns
    -------
    DataFrame
        The columns of the file; text as str ("" where empty), boxes and probabilities as float64, ``cell`` as int64,
        ``reviewed`` as bool.

    Raises
    ------
    AnnotationError
        The file cannot be read, lacks a column, or holds a row of another length or a box that is no number; the text
        names file and row.
    """
    return _typed(*_rows(Path(path)), Path(path).name)


def read_corrections(path: Path | str, scheme: ClassScheme, others: Collection[str] = ()) -> pd.DataFrame:
    """Read a ``cells.csv`` that a reviewer corrected, perhaps by hand: its classes are those of the run.

    Parameters
    ----------
    path : path
    scheme : ClassScheme
        Of the run: another name of one of its classes (as in XML) becomes its own; an empty one ``unidentified``.
    others : collection of str
        What cells of the run are called beside that.

    Raises
    ------
    AnnotationError
        As ``read_cells``, or a class is none of these: it would fall out of the hundred percent without a word.
    """
    names, rows = _rows(Path(path))
    table = _typed(names, rows, Path(path).name)
    apart = {fold(name): name for name in (UNIDENTIFIED, NOT_A_WBC)} | {"": UNIDENTIFIED}
    classes = []
    for (row, _), text in zip(rows, table["class"], strict=True):
        name = scheme.canonical(text) or apart.get(fold(text) or text.strip()) or (text if text in others else None)
        if name is None:
            raise AnnotationError(
                f"{Path(path).name}: row {row} has class {text[:40]!r}, which this count does not have; "
                f"there are {', '.join((*scheme.names, UNIDENTIFIED, NOT_A_WBC))}."
            )
        classes.append(name)
    table["class"] = classes
    return table


_Rows: TypeAlias = list[tuple[int, list[str]]]
"""The rows that are not empty, with their numbers in the file."""


def _rows(path: Path) -> tuple[list[str], _Rows]:
    """The column names of a table of cells and its rows, each as long as these; ``AnnotationError`` where not."""
    text = _text(path)
    head = text.partition("\n")[0]
    if mark := next((mark for mark in _SEPARATORS if set(_REQUIRED) <= header_names(head, mark)), None):
        raise AnnotationError(f"{path.name}: is separated by {_SEPARATORS[mark]}; save it with commas.")
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        reason = error if isinstance(error, csv.Error) else "it is empty"
        raise AnnotationError(f"{path.name}: is no table of cells ({reason}).") from None
    names = [name.strip() for name in header]
    missing = [name for name in _REQUIRED if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"has no column {', '.join(missing)}" if missing else "has two columns of one name"
        raise AnnotationError(f"{path.name}: {what}; a cells.csv needs {', '.join(_REQUIRED)}.")
    numbered = [(number, row) for number, row in enumerate(rows, 2) if row]
    for number, row in numbered:
        if len(row) != len(names):
            raise AnnotationError(f"{path.name}: row {number} has {len(row)} fields, not {len(names)} as the first.")
    return names, numbered


def check_cells(cells: pd.DataFrame, name: str) -> None:
    """``AnnotationError`` for a table that lacks what a table of cells needs, or has a box that no image can have.

    The text begins with ``name`` and names the first cell with such a box.
    """
    if missing := [column for column in _REQUIRED if column not in cells]:
        raise AnnotationError(f"{name}: has no column {', '.join(missing)}; count again.")
    try:
        boxes = cells[list(BOX_COLUMNS)].to_numpy(float)
    except (ValueError, TypeError) as error:
        raise AnnotationError(f"{name}: has a box that is no number ({error}); count again.") from error
    sound = (abs(boxes) <= LARGEST).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    if not sound.all():
        k = int((~sound).argmax())
        cell, corners = cells.iloc[k], ", ".join(f"{value:g}" for value in boxes[k])
        raise AnnotationError(
            f"{name}: cell {cell['cell']} of {display_name(str(cell['image']))} has the box {corners}, which is none "
            f"(x_min, y_min, x_max, y_max; at most {LARGEST} pixels); correct it, or count again."
        )


def header_names(line: str, separators: str = ",;\t") -> set[str]:
    """The column names in the first line of a CSV file, quoted or not and separated by any of ``separators``.

    >>> sorted(header_names('"image";"cell"')), header_names("image,cell", ";")
    (['cell', 'image'], {'image,cell'})
    """
    return {name.strip().strip("\"'").strip() for name in re.split(f"[{separators}]", line)}


def _text(path: Path) -> str:
    data = read_regular(path, MAX_BYTES, AnnotationError)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path.name}: is no table of cells in UTF-8 ({error}).") from None


def _typed(names: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], file: str) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for k, name in enumerate(names):
        texts = [row[k] for _, row in rows]
        if name in ("cell", "confidence", "distance", *BOX_COLUMNS) or name.startswith(PROBABILITY_PREFIX):
            numbers = [_number(text) for text in texts]
            needed, whole = name in BOX_COLUMNS or name == "cell", name == "cell"
            for (row, _), number, text in zip(rows, numbers, texts, strict=True):
                if not math.isfinite(number) and (needed or text.strip()):
                    raise AnnotationError(f"{file}: row {row} has {name} {text[:40]!r}, which is no number.")
                if whole and not (number.is_integer() and abs(number) < 2**53):
                    raise AnnotationError(f"{file}: row {row} has {name} {text[:40]!r}, which is no whole number.")
            columns[name] = np.array(numbers, np.float64).astype(np.int64 if whole else np.float64)
        elif name == "reviewed":
            columns[name] = np.array([text.strip().lower() in ("1", "true", "yes") for text in texts], np.bool_)
        else:
            columns[name] = [restore(text) for text in texts]
    import pandas as pd

    return pd.DataFrame(columns, columns=list(names))


def _number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def apply_corrections(
    cells: pd.DataFrame,
    corrections: pd.DataFrame,
    images: Collection[str] = (),
    counted: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """``cells`` with the classes that a reviewer gave, the machine's class kept beside them.

    Parameters
    ----------
    cells : DataFrame
        As counted, or with the corrections of a former reviewer.
    corrections : DataFrame
        As ``read_corrections`` gives them: matched by ``image`` and ``cell``.  A row that nobody looked at
        (``reviewed`` is False) and that has the class of the machine says nothing: what a former reviewer said
        stays.  A cell whose ``box_source`` is ``drawn`` joins those of its image, under the next number where its own
        is taken; a box that a reviewer moved (``reviewed``, and half or more of both boxes together is shared) is
        where it was moved to.
    images : collection of str
        The images of the run, also those in which no cell was found.
    counted : DataFrame, optional
        The cells as counted, where ``cells`` are no longer: only these tell whether a second reviewer moved a box
        that the first had moved.

    Raises
    ------
    AnnotationError
        A corrected cell is not in ``cells``, or its box is another one (more than a pixel off): then the corrections
        belong to another run.
    """
    result = cells.copy()
    if "machine_class" not in result:
        result["machine_class"] = result["class"]
    for name, empty in (("reviewed", False), ("reviewer", ""), ("time", "")):
        if name not in result:
            result[name] = empty
    rows: list[dict[Any, Any]] = result.to_dict("records")
    place = {(row["image"], row["cell"]): row for row in rows}
    boxes = place if counted is None else {(r["image"], r["cell"]): r for r in counted.to_dict("records")}
    order = {name: k for k, name in enumerate(dict.fromkeys([*images, *cells["image"]]))}
    for said in corrections.to_dict("records"):
        key = said["image"], said["cell"]
        row = place.get(key)
        if row is None or not _is_same(boxes.get(key, row), said):
            row = (
                _row_drawn(said, rows, result) if said.get("box_source") == "drawn" and said["image"] in order else None
            )
            if row is None:
                raise AnnotationError(
                    f"{said['image']}: cell {said['cell']} of the corrections is not among the cells counted; "
                    "use the corrections of this run."
                )
            key = row["image"], row["cell"]
            place[key] = row
        if not said.get("reviewed", True) and said["class"] == (said.get("machine_class") or row["machine_class"]):
            continue
        if said["class"] != row["class"] or said.get("reviewed", True):
            row |= {"class": said["class"], "reviewed": True}
            row |= {"reviewer": said.get("reviewer", ""), "time": said.get("time", "")}
        if said.get("reviewed", False) and _shift(boxes.get(key, row), said) > 1:
            row |= {side: said[side] for side in BOX_COLUMNS}
    if len(rows) > len(cells):
        rows.sort(key=lambda row: order[row["image"]])
    import pandas as pd

    return pd.DataFrame(rows, columns=list(result.columns)).astype(result.dtypes.to_dict())


def _is_same(row: dict[Any, Any], said: dict[Any, Any]) -> bool:
    """Whether two rows have one box: to a pixel, or as far as a reviewer of either may have moved it."""
    if _shift(row, said) <= 1:
        return True
    moved = bool(said.get("reviewed") or row.get("reviewed")) and said.get("box_source") != "drawn"
    one, other = (np.array([[each[side] for side in BOX_COLUMNS]], float) for each in (row, said))
    return moved and bool(iou(one, other)[0, 0] >= 0.5)


def _shift(row: dict[Any, Any], said: dict[Any, Any]) -> float:
    return max(abs(float(row[side]) - float(said[side])) for side in BOX_COLUMNS)


def _row_drawn(said: dict[Any, Any], rows: list[dict[Any, Any]], table: pd.DataFrame) -> dict[Any, Any]:
    """The row of a cell that a reviewer drew: one with its box that is there from former corrections, or a new one."""
    here = [row for row in rows if row["image"] == said["image"]]
    for row in here:
        if row.get("box_source") == "drawn" and _is_same(row, said):
            return row
    blank = {name: "" if kind.kind in "OTU" else math.nan for name, kind in table.dtypes.items()}
    new = {**blank, **{name: said[name] for name in table.columns if name in said}}
    new |= {"machine_class": said.get("machine_class", ""), "reviewed": True}
    numbers = {row["cell"] for row in here}
    new["cell"] = said["cell"] if said["cell"] not in numbers else max(numbers) + 1
    rows.append(new)
    return new
