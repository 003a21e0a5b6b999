"""Pascal VOC XML, read and written as BCCD and LabelImg have it, and matched with the photographs.

Files come from many hands, so every defect that can be worked around is, with a ``DataWarning`` that names file and
box; a file that is no annotation at all is an ``AnnotationError``.  Parsing is defusedxml's: no entities are expanded
and nothing is fetched.  Coordinates are those of ``core.boxes``; nothing is added to them or taken from them.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

import numpy as np

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.errors import AnnotationError, DataWarning
from napari_bloodcells.core.files import display_name, read_regular, write_atomic
from napari_bloodcells.core.matching import find_annotations, match_annotations

__all__ = [
    "MAX_BOXES",
    "MAX_BYTES",
    "Annotation",
    "find_annotations",
    "loses_a_box",
    "match_annotations",
    "read_voc",
    "read_voc_bytes",
    "write_voc",
]

# A whole-slide field with 10,000 red cells has 4 MB of XML; beyond these a file is refused before it costs memory.
MAX_BYTES = 32_000_000
MAX_BOXES = 100_000
_MAX_WARNINGS = 10
_LEFT_OUT = "; left out"
"""How the text of a defect ends that cost a box; a table of images tells by it which of them lost some."""
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """What one annotation file says.

    Attributes
    ----------
    path : Path
        The XML file.
    filename : str
        The image's name as the file gives it; empty where it gives none.
    width, height : int
        Size of the image in pixels as the file gives it; 0 where it gives none.
    boxes : Boxes
        The usable boxes, in the order of the file.
    problems : tuple of str
        What was worked around, one line for each (the same texts as the warnings, without the file's name).
    remarks : tuple of str
        The texts of the warnings: with the file's name, those first that cost a box, and after ten how many more.
    """

    path: Path
    filename: str
    width: int
    height: int
    boxes: Boxes
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def check_size(self, height: int, width: int) -> None:
        """Raise ``AnnotationError`` where the file says that it is for an image of another size."""
        if self.width and self.height and (self.width, self.height) != (width, height):
            error = AnnotationError(
                f"{display_name(self.path)}: is for an image of {self.width} x {self.height} pixels, but its image has "
                f"{width} x {height}; put the image back to its size, or take --boxes find."
            )
            error.path = self.path
            raise error


def read_voc(path: Path | str) -> Annotation:
    """Read one annotation file.

    Boxes that reach past the border are cut there, boxes with their corners exchanged are turned round; boxes without
    an area, without numbers or wholly outside are left out.

    Parameters
    ----------
    path : path
        A VOC XML file, at most ``MAX_BYTES`` bytes with at most ``MAX_BOXES`` boxes, in any encoding it declares.

    Returns
    -------
    Annotation

    Raises
    ------
    AnnotationError
        If the file cannot be opened, is not well-formed, asks for entities, or has another root than ``annotation``.

    Warns
    -----
    DataWarning
        For each defect, ``BloodImage_00338.xml: box 3 (RBC) has no area (504,337 to 504,337); left out.``, those first
        that cost a box; after ten in one file a last one says how many more there are (``Annotation.problems`` has
        all).
    """
    annotation = read_annotation(path)
    for text in annotation.remarks:
        warnings.warn(text, DataWarning, stacklevel=2)
    return annotation


def read_voc_bytes(data: bytes, name: str) -> Annotation:
    """Read an annotation from the bytes of its file; ``name`` stands in errors.  As ``read_voc`` otherwise."""
    annotation = annotation_of_bytes(data, name)
    for text in annotation.remarks:
        warnings.warn(text, DataWarning, stacklevel=2)
    return annotation


def read_annotation(path: Path | str) -> Annotation:
    """As ``read_voc``, but ``remarks`` are not warned of: for threads, which share their warnings."""
    path = Path(path)
    return _annotation(read_regular(path, MAX_BYTES, AnnotationError), path, display_name(path))


def annotation_of_bytes(data: bytes, name: str) -> Annotation:
    """As ``read_annotation``, from the bytes of the file."""
    return _annotation(data, Path(name), name)


def _annotation(data: bytes, path: Path, name: str) -> Annotation:
    if not data:
        raise AnnotationError(f"{name}: is empty (0 bytes).")
    told: list[str] = []
    root = _parse(data, name, told)
    if _tag(root) != "annotation":
        raise AnnotationError(f'{name}: is XML of another kind ("{_tag(root)[:40]}"), not a VOC "annotation".')
    problems: list[str] = []
    width, height = (_size(root, side, problems) for side in ("width", "height"))
    objects = [child for child in root if _tag(child) == "object"]
    if len(objects) > MAX_BOXES:
        raise AnnotationError(f"{name}: {len(objects)} boxes; at most {MAX_BOXES} are read from one file.")
    xyxy, labels = [], []
    for number, entry in enumerate(objects, 1):
        box = _read_box(entry, number, width, height, problems)
        if box is not None:
            xyxy.append(box)
            labels.append(_text(entry, "name") or "WBC")
    boxes = Boxes(np.array(xyxy, np.float32).reshape(-1, 4), tuple(labels))
    remarks = (*told, *_remarks(name, problems))
    return Annotation(path, _text(root, "filename"), width, height, boxes, tuple(problems), remarks)


def loses_a_box(warnings: str) -> bool:
    """Whether the warnings of an image, as ``images.csv`` has them, name a box that its file lost by a defect.

    >>> loses_a_box("a.xml: box 3 (RBC) has no area (504,337 to 504,337); left out.")
    True
    >>> loses_a_box("a.xml: box 3 (RBC) reaches past the border (-1,0 to 9,9); cut there.")
    False
    """
    return f"{_LEFT_OUT}." in warnings


def write_voc(
    path: Path | str, boxes: Boxes, *, image: Path | str, width: int, height: int, overwrite: bool = False
) -> Path:
    """Write boxes as a VOC file that ``read_voc`` and LabelImg read back unchanged.

    Parameters
    ----------
    path : path
        The XML file to write, whole or not at all.
    boxes : Boxes
        Whole coordinates are written as integers, others with all their digits.
    image : path
        The photograph; only its name is written, never where it lies.
    width, height : int
        Its size in pixels.
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OutputError
        If the file exists and ``overwrite`` is false, or it cannot be written.
    """
    root = Element("annotation")
    SubElement(root, "folder").text = ""
    SubElement(root, "filename").text = _xml_text(Path(image).name)
    size = SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        SubElement(size, tag).text = str(int(value))
    SubElement(root, "segmented").text = "0"
    low, high = np.zeros(2), np.array([width, height])
    for box, label in zip(boxes.xyxy, boxes.labels, strict=True):
        entry = SubElement(root, "object")
        SubElement(entry, "name").text = _xml_text(label)
        SubElement(entry, "pose").text = "Unspecified"
        at_border = bool((box[:2] <= low).any() or (box[2:] >= high).any())
        SubElement(entry, "truncated").text = str(int(at_border))
        SubElement(entry, "difficult").text = "0"
        corners = SubElement(entry, "bndbox")
        for side, value in zip(_SIDES, box, strict=True):
            SubElement(corners, side).text = str(int(value)) if float(value).is_integer() else str(value)
    indent(root, "\t")
    return write_atomic(path, tostring(root, "utf-8", xml_declaration=True) + b"\n", overwrite=overwrite)


def _parse(data: bytes, name: str, told: list[str]) -> Any:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(data)
    except DefusedXmlException:
        raise AnnotationError(f"{name}: asks for XML entities, which are not expanded here for safety.") from None
    except (ParseError, ValueError, LookupError, RecursionError) as problem:
        text = _decoded(data, problem, name, told)
    try:
        return fromstring(text)
    except DefusedXmlException:
        raise AnnotationError(f"{name}: asks for XML entities, which are not expanded here for safety.") from None
    except (ParseError, ValueError, RecursionError) as problem:
        raise _not_xml(name, problem) from None


def _decoded(data: bytes, problem: Exception, name: str, told: list[str]) -> str:
    """The text of a file whose encoding the XML parser does not know, or that declares the wrong one (is ``told``)."""
    declared = re.match(rb"<\?xml[^>]{0,200}?encoding=[\"']([\w.-]{1,40})[\"'][^>]{0,100}\?>", data)
    encoding = declared.group(1).decode("ascii") if declared else "utf-8"
    body = data[declared.end() :] if declared else data
    try:
        text = body.decode(encoding)
        if encoding.casefold().replace("-", "") == "utf8":
            raise _not_xml(name, problem)
        return text
    except LookupError:
        raise AnnotationError(f"{name}: declares the unknown encoding {encoding}.") from None
    except UnicodeDecodeError:
        told.append(f"{name}: is not in {encoding} as it declares; read as Latin-1.")
        return body.decode("latin-1")


def _not_xml(name: str, problem: Exception) -> AnnotationError:
    return AnnotationError(f"{name}: is not well-formed XML: {problem}.")


def _tag(element: Any) -> str:
    """Name of an element without namespace, in lower case (comments have none)."""
    return element.tag.rpartition("}")[2].casefold() if isinstance(element.tag, str) else ""


def _child(element: Any, tag: str) -> Any:
    return next((child for child in element if _tag(child) == tag), None)


def _text(element: Any, tag: str) -> str:
    child = _child(element, tag)
    return " ".join((child.text or "").split()) if child is not None else ""


def _size(root: Any, side: str, problems: list[str]) -> int:
    size = _child(root, "size")
    value = _number(_text(size, side)) if size is not None else None
    if value is None or not 1 <= value <= 10_000_000:
        problems.append(f"gives no {side} of the image; boxes are not cut at it")
        return 0
    return int(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_box(
    entry: Any, number: int, width: int, height: int, problems: list[str]
) -> tuple[float, float, float, float] | None:
    label = _text(entry, "name")
    title = f"box {number} ({label[:40]})" if label else f"box {number}"
    if not label:
        problems.append(f"{title} has no name; taken as WBC")
    corners = _child(entry, "bndbox")
    texts = [_text(corners, side)[:20] if corners is not None else "" for side in _SIDES]
    values = [_number(text) for text in texts]
    x0, y0, x1, y1 = values
    if x0 is None or y0 is None or x1 is None or y1 is None:
        what = "no corners" if not any(texts) else f"corners that are no numbers ({', '.join(t or '?' for t in texts)})"
        problems.append(f"{title} has {what}{_LEFT_OUT}")
        return None
    place = f"({x0:g},{y0:g} to {x1:g},{y1:g})"
    if x0 == x1 or y0 == y1:
        problems.append(f"{title} has no area {place}{_LEFT_OUT}")
        return None
    if x0 > x1 or y0 > y1:
        problems.append(f"{title} has its corners exchanged {place}; turned round")
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    right, bottom = width or math.inf, height or math.inf
    if x1 <= 0 or y1 <= 0 or x0 >= right or y0 >= bottom:
        problems.append(f"{title} lies outside of the image {place}{_LEFT_OUT}")
        return None
    if x0 < 0 or y0 < 0 or x1 > right or y1 > bottom:
        problems.append(f"{title} reaches past the border {place}; cut there")
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, right), min(y1, bottom)
    return x0, y0, x1, y1


def _remarks(name: str, problems: list[str]) -> list[str]:
    first = sorted(problems, key=lambda text: not text.endswith(_LEFT_OUT))[:_MAX_WARNINGS]
    more = len(problems) - len(first)
    return [*(f"{name}: {text}." for text in first), *([f"{name}: {more} more defects of this kind."] if more else [])]


def _xml_text(text: str) -> str:
    """``text`` without the characters that XML 1.0 cannot hold (and a broken file name may)."""
    return re.sub(
        "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", os.fspath(text)
    )
