"""VOC files come through reading and writing unchanged, and every defect is worked around and named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_bloodcells.core import voc as voc_module
from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.errors import AnnotationError, DataWarning, OutputError
from napari_bloodcells.core.voc import (
    MAX_BOXES,
    find_annotations,
    loses_a_box,
    match_annotations,
    read_voc,
    read_voc_bytes,
    write_voc,
)


def voc(*objects: str, head: str = "", size: str = "<size><width>640</width><height>480</height></size>") -> str:
    return f"{head}<annotation><filename>a.jpg</filename>{size}{''.join(objects)}</annotation>"


def box(x0: object, y0: object, x1: object, y1: object, name: str = "RBC") -> str:
    corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_plain_file_is_read_without_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(box(1, 2, 30, 40, "WBC"), box("5.5", " 6 ", "7.25", "8", "Platelets")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annotation = read_voc(path)
    assert annotation.boxes.xyxy.tolist() == [[1, 2, 30, 40], [5.5, 6, 7.25, 8]]
    assert annotation.boxes.labels == ("WBC", "Platelets")
    assert (annotation.filename, annotation.width, annotation.height) == ("a.jpg", 640, 480)
    assert annotation.problems == ()


@pytest.mark.parametrize(
    ("bad", "problem", "kept"),
    [
        (box(504, 337, 504, 337), r"box 2 \(RBC\) has no area \(504,337 to 504,337\); left out", None),
        (box(5, 7, 9, 7), "has no area", None),
        (box(30, 40, 10, 20), "has its corners exchanged", [10, 20, 30, 40]),
        (box(-3, 5, 20, 20), "reaches past the border", [0, 5, 20, 20]),
        (box(600, 400, 700, 500), "reaches past the border", [600, 400, 640, 480]),
        (box(640, 10, 700, 20), "lies outside of the image", None),
        (box(10, 480, 20, 490), "lies outside of the image", None),
        (box(-9, 5, 0, 9), r"lies outside of the image \(-9,5 to 0,9\); left out", None),
        (box(5, -9, 9, 0), "lies outside of the image", None),
        (box(-9, -9, -2, -2), "lies outside of the image", None),
        (box(5, -3, 20, 20), r"reaches past the border \(5,-3 to 20,20\); cut there", [5, 0, 20, 20]),
        (box(600, 400, 640.5, 470), "reaches past the border", [600, 400, 640, 470]),
        (box(600, 400, 630, 480.5), "reaches past the border", [600, 400, 630, 480]),
        (box(5, 7, 5, 9), "has no area", None),
        (box(30, 20, 10, 40), r"exchanged \(30,20 to 10,40\); turned round", [10, 20, 30, 40]),
        (box(10, 40, 30, 20), "has its corners exchanged", [10, 20, 30, 40]),
        (box(1, "", 3, 4), r"corners that are no numbers \(1, \?, 3, 4\)", None),
        (box("x" * 21, 2, 3, 4), rf"no numbers \({'x' * 20}, 2, 3, 4\)", None),
        (box(1, 1, 1, 1, "y" * 41), rf"box 2 \({'y' * 40}\) has no area", None),
        (box("nan", 1, 2, 3), r"corners that are no numbers \(nan, 1, 2, 3\)", None),
        (box(1, 1, "inf", 3), "corners that are no numbers", None),
        (box(1, 1, "1e999", 3), "corners that are no numbers", None),
        (box("", "", "", ""), "has no corners; left out", None),
        ("<object><name>RBC</name></object>", "has no corners; left out", None),
        (box(1, 2, 3, 4).replace("<name>RBC</name>", ""), "box 2 has no name; taken as WBC", [1, 2, 3, 4]),
        (box(1, 2, 3, 4, ""), "box 2 has no name; taken as WBC", [1, 2, 3, 4]),
    ],
)
def test_a_bad_box_is_named_and_the_others_are_kept(tmp_path: Path, bad: str, problem: str, kept: list | None) -> None:
    good = box(100, 100, 200, 200, "WBC")
    path = write(tmp_path / "field.xml", voc(good, bad, good))
    with pytest.warns(DataWarning, match=rf"^field\.xml: .*{problem}.*\.$"):
        annotation = read_voc(path)
    expected = [[100, 100, 200, 200], *([kept] if kept else []), [100, 100, 200, 200]]
    assert annotation.boxes.xyxy.tolist() == expected
    assert len(annotation.problems) == 1


def test_a_box_that_ends_at_the_border_is_whole(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annotation = read_voc(
            write(tmp_path / "a.xml", voc(box(0, 0, 640, 480), box(0, 0, 1, 1), box(639, 479, 640, 480)))
        )
    assert annotation.boxes.xyxy.tolist() == [[0, 0, 640, 480], [0, 0, 1, 1], [639, 479, 640, 480]]


@pytest.mark.parametrize(("width", "read"), [(1, 1), (10_000_000, 10_000_000), (0.9, 0), (10_000_001, 0), ("wide", 0)])
def test_a_width_that_no_image_has_is_none(tmp_path: Path, width: object, read: int) -> None:
    path = write(tmp_path / "a.xml", voc(size=f"<size><width>{width}</width><height>2</height></size>"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        annotation = read_voc(path)
    assert (annotation.width, annotation.height) == (read, 2)
    assert annotation.problems == (() if read else ("gives no width of the image; boxes are not cut at it",))


def test_a_warning_points_to_the_line_that_read_the_file(tmp_path: Path) -> None:
    defects = write(tmp_path / "a.xml", voc(*[box(1, 1, 1, 1)] * 11))
    with pytest.warns(DataWarning) as caught:
        read_voc(defects)
    wrong = write(tmp_path / "b.xml", voc(box(1, 2, 3, 4, "é")).encode("latin-1"))
    with pytest.warns(DataWarning, match="Latin-1") as latin:
        read_voc(wrong)
    assert {warning.filename for warning in [*caught, *latin]} == {__file__}
    assert str(caught[-1].message) == "a.xml: 1 more defects of this kind."


def test_bytes_are_read_as_their_file_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(box(1, 2, 3, 4), box(1, 1, 1, 1)))
    with pytest.warns(DataWarning) as caught:
        of_file, of_bytes = read_voc(path), read_voc_bytes(path.read_bytes(), "a.xml")
    assert {warning.filename for warning in caught} == {__file__}
    assert str(caught[0].message) == str(caught[1].message)
    assert of_bytes.boxes.xyxy.tolist() == of_file.boxes.xyxy.tolist() == [[1, 2, 3, 4]]
    assert (of_bytes.path.name, of_bytes.problems) == (of_file.path.name, of_file.problems)
    with pytest.raises(AnnotationError, match=r"^b\.xml: is empty \(0 bytes\)\.$"):
        read_voc_bytes(b"", "b.xml")


def test_ten_defects_are_told_one_by_one(tmp_path: Path) -> None:
    with pytest.warns(DataWarning) as caught:
        read_voc(write(tmp_path / "a.xml", voc(*[box(1, 1, 1, 1)] * 10)))
    assert [str(w.message).split(" has ")[0] for w in caught] == [f"a.xml: box {n} (RBC)" for n in range(1, 11)]


def test_a_file_that_names_no_image_has_an_empty_name(tmp_path: Path) -> None:
    size = "<size><width>9</width><height>9</height></size>"
    annotation = read_voc(write(tmp_path / "a.xml", f"<annotation>{size}</annotation>"))
    assert (annotation.filename, len(annotation.boxes)) == ("", 0)


def test_tags_are_known_in_any_case_and_namespace_and_comments_are_passed_over(tmp_path: Path) -> None:
    text = voc("<!-- box -->", box(1, 2, 3, 4, "red  blood\n cell")).replace("object>", "Object>")
    path = write(
        tmp_path / "a.xml",
        text.replace("<annotation>", '<Annotation xmlns="urn:voc">').replace("</annotation>", "</Annotation>"),
    )
    annotation = read_voc(path)
    assert annotation.boxes.labels == ("red blood cell",)
    assert annotation.boxes.xyxy.tolist() == [[1, 2, 3, 4]]


WRITTEN = """<?xml version='1.0' encoding='utf-8'?>
<annotation>
\t<folder />
\t<filename>b.jpg</filename>
\t<size>
\t\t<width>90</width>
\t\t<height>60</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>WBC</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>1</xmin>
\t\t\t<ymin>2</ymin>
\t\t\t<xmax>30.5</xmax>
\t\t\t<ymax>40</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""


def test_what_is_written_is_what_labelimg_writes(tmp_path: Path) -> None:
    boxes = Boxes(np.array([[1, 2, 30.5, 40]]), ("WBC",))
    path = write_voc(tmp_path / "b.xml", boxes, image="patient/b.jpg", width=90, height=60)
    assert path.read_text("utf-8") == WRITTEN


@pytest.mark.parametrize(
    ("corners", "cut"),
    [
        ((1, 1, 89, 59), 0), ((0, 1, 89, 59), 1), ((1, 0, 89, 59), 1), ((1, 1, 90, 59), 1), ((1, 1, 89, 60), 1),
    ],
)  # fmt: skip
def test_a_box_at_the_border_is_called_truncated(tmp_path: Path, corners: tuple[int, ...], cut: int) -> None:
    boxes = Boxes(np.array([corners]), ("WBC",))
    path = write_voc(tmp_path / "b.xml", boxes, image="b.jpg", width=90, height=60)
    assert f"<truncated>{cut}</truncated>" in path.read_text("utf-8")


def test_what_xml_cannot_hold_is_replaced(tmp_path: Path) -> None:
    boxes = Boxes(np.array([[1, 2, 3, 4]]), ("W\x00B\ud800C\ufffe",))
    path = write_voc(tmp_path / "b.xml", boxes, image="a\x07\udce9.jpg", width=90, height=60)
    annotation = read_voc(path)
    assert annotation.boxes.labels == ("W\ufffdB\ufffdC\ufffd",)
    assert annotation.filename == "a\ufffd\ufffd.jpg"


def test_without_a_size_boxes_are_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(box(600, 400, 700, 500), size=""))
    with pytest.warns(DataWarning, match="gives no height"), pytest.warns(DataWarning, match="gives no width"):
        assert read_voc(path).boxes.xyxy.tolist() == [[600, 400, 700, 500]]


def test_a_defect_that_costs_a_box_is_told_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(*[box(9, 9, 1, 1)] * 12, box(1, 1, 1, 1)))
    with pytest.warns(DataWarning) as caught:
        annotation = read_voc(path)
    told = [str(warning.message) for warning in caught]
    assert [loses_a_box(text) for text in told] == [True] + [False] * 10
    assert annotation.problems[-1].startswith("box 13 ")


def test_many_defects_are_summed_up_but_all_are_kept_in_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(*[box(1, 1, 1, 1)] * 30))
    with pytest.warns(DataWarning) as caught:
        annotation = read_voc(path)
    assert len(caught) == 11
    assert "20 more defects" in str(caught[-1].message)
    assert len(annotation.problems) == 30


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252", "gb18030", "shift_jis"]
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    name = "細胞" if encoding in ("gb18030", "shift_jis", "utf-8", "utf-16") else "globule-é"
    declared = encoding.removesuffix("-sig")
    text = voc(box(1, 2, 3, 4, name), head=f'<?xml version="1.0" encoding="{declared}"?>')
    assert read_voc(write(tmp_path / "a.xml", text.encode(encoding))).boxes.labels == (name,)


def test_a_wrongly_declared_encoding_is_worked_around(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", voc(box(1, 2, 3, 4, "é")).encode("latin-1"))
    with pytest.warns(DataWarning, match="not in utf-8 as it declares; read as Latin-1"):
        assert read_voc(path).boxes.labels == ("é",)


ENTITIES = '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
REFUSED = {
    "not well-formed": ("<annotation><object>", "is not well-formed XML"),
    "no XML": ("hello", "is not well-formed XML"),
    "another root": ("<svg><g/></svg>", r'XML of another kind \("svg"\)'),
    "a root of any length": (f"<{'s' * 41}/>", rf'another kind \("{"s" * 40}"\)'),
    "entities in another encoding": (
        voc(box(1, 1, 2, 2, "&b;"), head=f'<?xml version="1.0" encoding="gb18030"?>{ENTITIES}'),
        "asks for XML entities",
    ),
    "another encoding, broken": ('<?xml version="1.0" encoding="gb18030"?><annotation>', "is not well-formed XML"),
    "entities": (voc(box(1, 1, 2, 2, "&b;"), head=ENTITIES), "asks for XML entities"),
    "external entities": (voc(box(1, 1, 2, 2, "&x;"), head=EXTERNAL), "asks for XML entities"),
    "empty": ("", "is empty"),
    "unknown encoding": (voc(head='<?xml version="1.0" encoding="klingon-1"?>'), "unknown encoding klingon-1"),
    "too deep": ("<annotation>" + "<a>" * 200_000, "is not well-formed XML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_no_annotation_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(AnnotationError, match=rf"^bad\.xml: .*{message}") as error:
        read_voc(write(tmp_path / "bad.xml", text))
    assert "\n" not in str(error.value)


def test_limits_of_size_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "many.xml", voc("<object/>" * (MAX_BOXES + 1)))
    with pytest.raises(AnnotationError, match=f"{MAX_BOXES + 1} boxes; at most {MAX_BOXES}"):
        read_voc(path)
    assert MAX_BOXES == 100_000
    monkeypatch.setattr(voc_module, "MAX_BOXES", 2)
    write(path, voc(box(1, 2, 3, 4), box(1, 2, 3, 4)))
    assert len(read_voc(path).boxes) == 2
    os.truncate(path, 32_000_000)
    with pytest.raises(AnnotationError, match="not well-formed"):
        read_voc(path)
    os.truncate(path, 32_000_001)
    with pytest.raises(AnnotationError, match="more than the limit of 32 MB"):
        read_voc(path)
    os.truncate(path, 33_000_000)
    with pytest.raises(AnnotationError, match="33 MB, more than the limit of 32 MB"):
        read_voc(path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.xml")
    with pytest.raises(AnnotationError, match="is a pipe"):
        read_voc(tmp_path / "a.xml")


coordinate = st.floats(0, 5000, width=32)


@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate, st.text(min_size=1, max_size=20)), max_size=8)
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    corners = np.array([r[:4] for r in rows], np.float32).reshape(-1, 4)
    ordered = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    keep = (ordered[:, 2:] > ordered[:, :2]).all(1)
    boxes = Boxes(ordered[keep], tuple(r[4] for r, k in zip(rows, keep, strict=True) if k))
    path = tmp_path_factory.mktemp("voc") / "a.xml"
    write_voc(path, boxes, image="folder/a b.jpg", width=5001, height=5001)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        back = read_voc(path)
    assert np.array_equal(back.boxes.xyxy, boxes.xyxy)
    assert back.filename == "a b.jpg"
    for wrote, read in zip(boxes.labels, back.boxes.labels, strict=True):
        plain = "".join(
            c for c in wrote if c in "\t\n\r" or " " <= c < "\ud800" or "\ue000" <= c < "\ufffe" or c > "\uffff"
        )
        assert plain != wrote or read == (" ".join(wrote.split()) or "WBC")


def test_writing_never_replaces_a_file_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", "mine")
    boxes = Boxes(np.array([[1, 2, 3, 4]]), ("WBC",))
    with pytest.raises(OutputError, match=r"^a\.xml: is already there"):
        write_voc(path, boxes, image="a.jpg", width=10, height=10)
    assert path.read_text() == "mine"
    write_voc(path, boxes, image="a.jpg", width=10, height=10, overwrite=True)
    assert read_voc(path).boxes.xyxy.tolist() == [[1, 2, 3, 4]]
    assert [p.name for p in tmp_path.iterdir()] == ["a.xml"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_voc(tmp_path / "absent" / "a.xml", boxes, image="a.jpg", width=10, height=10)


def test_a_broken_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        write_voc(tmp_path / "a.xml", Boxes(), image="a.jpg", width=1, height=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_bccd_is_read_with_its_known_defects(shared_data: Path) -> None:
    from napari_bloodcells.core.images import find_images

    root = shared_data / "bccd"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matched = match_annotations(find_images([root]), find_annotations([root]))
        annotations = [read_voc(path) for path in matched.values()]
    labels = [label for a in annotations for label in a.boxes.labels]
    assert len(annotations) == 364
    assert [labels.count(name) for name in ("WBC", "RBC", "Platelets")] == [372, 4153, 361]
    assert sorted(str(w.message).partition(":")[0] for w in caught) == [
        "BloodImage_00096.jpg",
        "BloodImage_00280.jpg",
        "BloodImage_00329.jpg",
        "BloodImage_00338.xml",
        "BloodImage_00343.xml",
    ]
    first = annotations[0].boxes.named("WBC")
    assert first.xyxy.tolist() == [[260, 177, 491, 376]]
