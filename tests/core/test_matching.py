"""Which annotation belongs to which photograph: by name and by layout, and never to that of another sample."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.matching import find_annotations, match_annotations


def touch(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("<annotation><filename>inner name</filename></annotation>")
    return [root / name for name in names]


MATCHES = {
    "beside": (["a.jpg"], ["a.xml"], {"a.jpg": "a.xml"}),
    "VOC folders": (["JPEGImages/a.jpg"], ["Annotations/a.xml"], {"JPEGImages/a.jpg": "Annotations/a.xml"}),
    "case and spaces": (["Field 1.JPG"], ["field_1.XML"], {"Field 1.JPG": "field_1.XML"}),
    "dots in names": (["a.b.jpg"], ["a.b.xml"], {"a.b.jpg": "a.b.xml"}),
    "suffix kept": (["a.jpg"], ["a.jpg.xml"], {"a.jpg": "a.jpg.xml"}),
    "Unicode forms": (["Zellé.jpg"], ["Zellé.xml"], {"Zellé.jpg": "Zellé.xml"}),
    "filename inside": (["Inner Name.png"], ["0001.xml"], {"Inner Name.png": "0001.xml"}),
    "two samples": (
        ["A/JPEGImages/1.jpg", "B/JPEGImages/1.jpg"],
        ["B/Annotations/1.xml", "A/Annotations/1.xml"],
        {"A/JPEGImages/1.jpg": "A/Annotations/1.xml", "B/JPEGImages/1.jpg": "B/Annotations/1.xml"},
    ),
    "the nearest first": (
        ["A/1.jpg", "B/1.jpg", "B/C/1.jpg"],
        ["1.jpg.xml", "B/1.xml", "B/C/1.xml"],
        {"A/1.jpg": "1.jpg.xml", "B/1.jpg": "B/1.xml", "B/C/1.jpg": "B/C/1.xml"},
    ),
    "Annotations beside before others": (
        ["A/JPEGImages/1.jpg", "A/JPEGImages/old/1.jpg"],
        ["A/1.xml", "A/Annotations/1.xml"],
        {"A/JPEGImages/1.jpg": "A/Annotations/1.xml", "A/JPEGImages/old/1.jpg": "A/1.xml"},
    ),
    "suffix kept and not": (
        ["a.jpg", "a.png"],
        ["a.jpg.xml", "a.xml"],
        {"a.jpg": "a.jpg.xml", "a.png": "a.xml"},
    ),
    "VOC folders with folders in them": (
        ["JPEGImages/p1/1.jpg", "JPEGImages/p2/1.jpg"],
        ["Annotations/p2/1.xml", "Annotations/p1/1.xml"],
        {"JPEGImages/p1/1.jpg": "Annotations/p1/1.xml", "JPEGImages/p2/1.jpg": "Annotations/p2/1.xml"},
    ),
    "VOC with folders of photographs only": (
        ["JPEGImages/train/1.jpg", "JPEGImages/test/2.jpg"],
        ["Annotations/1.xml", "Annotations/2.xml"],
        {"JPEGImages/train/1.jpg": "Annotations/1.xml", "JPEGImages/test/2.jpg": "Annotations/2.xml"},
    ),
    "VOC with folders of annotations only": (
        ["JPEGImages/1.jpg"],
        ["Annotations/rater 1/1.xml"],
        {"JPEGImages/1.jpg": "Annotations/rater 1/1.xml"},
    ),
    "Annotations in the folder of the photographs": (
        ["p1/1.jpg", "p2/1.jpg"],
        ["p1/Annotations/1.xml", "p2/annotations/1.xml"],
        {"p1/1.jpg": "p1/Annotations/1.xml", "p2/1.jpg": "p2/annotations/1.xml"},
    ),
    "Annotations with the samples in it": (
        ["p1/1.jpg", "p2/1.jpg"],
        ["XML/p1/1.xml", "XML/p2/1.xml"],
        {"p1/1.jpg": "XML/p1/1.xml", "p2/1.jpg": "XML/p2/1.xml"},
    ),
    "images and labels": (
        ["p1/images/1.jpg", "p2/images/1.jpg"],
        ["p1/labels/1.xml", "p2/labels/1.xml"],
        {"p1/images/1.jpg": "p1/labels/1.xml", "p2/images/1.jpg": "p2/labels/1.xml"},
    ),
    "a folder of XML alone below": (["1.jpg"], ["boxes/1.xml"], {"1.jpg": "boxes/1.xml"}),
    "JPEGImages before another folder": (
        ["JPEGImages/1.jpg", "drawn/1.jpg"],
        ["Annotations/1.xml"],
        {"JPEGImages/1.jpg": "Annotations/1.xml"},
    ),
    "names that differ in case": (["a.jpg", "A.jpg"], ["A.xml", "a.xml"], {"a.jpg": "a.xml", "A.jpg": "A.xml"}),
}


@pytest.mark.parametrize("case", MATCHES)
def test_annotations_find_their_images(tmp_path: Path, case: str) -> None:
    images, xmls, expected = MATCHES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="1.jpg: has no annotation file")
        matched = match_annotations(touch(tmp_path, *images), touch(tmp_path, *xmls))
    found = {i.relative_to(tmp_path).as_posix(): x.relative_to(tmp_path).as_posix() for i, x in matched.items()}
    assert found == expected
    assert list(matched) == [tmp_path / i for i in images if i in expected]


OTHERS = {
    "the folder beside": (["p2/1.png"], ["p1/1.xml"], "1.png in p2 may be of another sample"),
    "a folder beside with photographs": (["p1/2.png", "p2/1.png"], ["p1/1.xml"], "1.png in p2 may be of another"),
    "the photographs above": (["1.png", "p1/2.png"], ["p1/1.xml"], "may be of another sample"),
    "a folder below": (["2.png", "p1/1.png"], ["1.xml"], "1.png in p1 may be of another sample"),
    "VOC of another sample": (
        ["p1/JPEGImages/2.png", "p2/JPEGImages/1.png"], ["p1/Annotations/1.xml"], "1.png in JPEGImages may be",
    ),
    "VOC of another sample, above": (["1.png", "p1/JPEGImages/2.png"], ["p1/Annotations/1.xml"], "may be of another"),
    "VOC of a sample that has lost its photographs": (["1.png"], ["p1/Annotations/1.xml"], "may be of another sample"),
    "the same folder of another": (
        ["JPEGImages/p2/1.png"], ["Annotations/p1/1.xml"], "1.png in p2 may be of another sample",
    ),
    "photographs beside Annotations with samples": (["p2/1.png"], ["Annotations/p1/1.xml"], "1.png in p2 may be"),
    "two samples and one annotation above": (
        ["p1/1.png", "p2/1.png"], ["1.xml"], r"^1\.xml: fits several images \(p1/1\.png, p2/1\.png\); ",
    ),
    "two samples and one annotation beside": (["p1/1.png", "p2/1.png"], ["Annotations/1.xml"], "fits several images"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("by_filename", [False, True], ids=["by name", "by filename"])
def test_an_annotation_goes_to_no_photograph_of_another_sample(tmp_path: Path, case: str, by_filename: bool) -> None:
    images, xmls, words = OTHERS[case]
    photos, annotations = touch(tmp_path, *images), touch(tmp_path, *xmls)
    if by_filename:
        annotations[0].write_text("<annotation><filename>1.png</filename></annotation>")
        annotations = [annotations[0].rename(annotations[0].with_name("0815.xml"))]
        words = words.replace(r"1\.xml", r"0815\.xml")
    with pytest.warns(DataWarning, match=words) as caught:
        assert match_annotations(photos, annotations) == {}
    assert len(caught) == 1
    alone = not any((tmp_path / image).parent == annotations[0].parent for image in images)
    hint = "A folder of XML alone must be called Annotations." in str(caught[0].message)
    assert hint == (alone and "fits several" not in words)


def test_a_photograph_takes_its_own_annotation_not_that_of_another_patient(tmp_path: Path) -> None:
    (image,) = touch(tmp_path, "patient 2/field_1.png")
    other, own = touch(tmp_path, "patient 1/field_1.xml", "patient 2/field_1.xml")
    with pytest.warns(DataWarning, match=r"^field_1\.xml: its image is not here; the annotation is left out\.$"):
        assert match_annotations([image], [other, own]) == {image: own}


def test_an_annotation_among_photographs_goes_to_no_folder_beside(tmp_path: Path) -> None:
    images = touch(tmp_path, "patient 1/field_2.png", "patient 2/field_1.png")
    xmls = touch(tmp_path, "patient 1/field_1.xml", "patient 1/field_2.xml")
    xmls[0].write_text("<filename>field_1.png</filename>")
    with pytest.warns(DataWarning) as caught:
        assert match_annotations(images, xmls) == {images[0]: xmls[1]}
    assert [str(warning.message) for warning in caught] == [
        "field_1.xml: its image is not here, and field_1.png in patient 2 may be of another sample; the annotation is "
        "left out.",
        "field_1.png: has no annotation file.",
    ]


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    images, xmls = touch(tmp_path, "a.jpg", "b.jpg"), touch(tmp_path, "a.xml", "c.xml")
    with pytest.warns(DataWarning) as caught:
        assert match_annotations(images, xmls) == {images[0]: xmls[0]}
    texts = [str(w.message) for w in caught]
    assert texts == ["c.xml: its image is not here; the annotation is left out.", "b.jpg: has no annotation file."]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_annotations(images, []) == {}


def test_annotations_are_looked_for_beside_the_images(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/1.jpg", "Annotations/1.xml", "Annotations/.2.xml", "old/3.xml", "4.xml")
    (tmp_path / "old" / "run.json").write_text('{"fingerprint": {}}')
    found = [p.relative_to(tmp_path).as_posix() for p in find_annotations([tmp_path])]
    assert found == ["4.xml", "Annotations/1.xml"]
    assert [p.name for p in find_annotations([tmp_path / "JPEGImages"])] == ["1.xml"]
    assert [p.name for p in find_annotations([tmp_path / "JPEGImages" / "1.jpg"])] == ["1.xml"]
