"""Class schemes: every name that public data use finds its class, and a user's scheme is checked in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_bloodcells.core.classes import (
    KINDS,
    OKABE_ITO,
    RESERVED_KEYS,
    load_scheme,
    parse_scheme,
    scheme_data,
    scheme_names,
)
from napari_bloodcells.core.counting.cells import images_table
from napari_bloodcells.core.errors import UsageError

FIVE = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")


def test_the_shipped_schemes() -> None:
    assert scheme_names() == ("pbc8", "wbc4", "wbc5")
    assert load_scheme("wbc5").names == FIVE
    assert set(load_scheme("wbc4").names) == set(FIVE) - {"basophil"}
    assert load_scheme("pbc8").names == (*FIVE, "immature granulocyte", "erythroblast", "platelet")
    assert [c.kind for c in load_scheme("pbc8").classes] == ["wbc"] * 6 + ["nrbc", "platelet"]


def test_a_class_has_the_same_key_and_color_in_every_scheme() -> None:
    look = {c.name: (c.key, c.color, c.kind) for c in load_scheme("pbc8").classes}
    for name in scheme_names():
        for cell in load_scheme(name).classes:
            assert (cell.key, cell.color, cell.kind) == look[cell.name]
            assert cell.color in OKABE_ITO
            assert cell.kind in KINDS
            assert cell.key not in RESERVED_KEYS
    assert len({key for key, *_ in look.values()}) == len({color for _, color, _ in look.values()}) == 8


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("NEUTROPHIL", "neutrophil"),
        ("neutrophils", "neutrophil"),
        (" Segmented Neutrophil ", "neutrophil"),
        ("neutrophil_segmented", "neutrophil"),
        ("segmented neutrophils", "neutrophil"),
        ("SNE", "neutrophil"),
        ("BNE", "neutrophil"),
        ("Neutrófilo", "neutrophil"),
        ("polynucléaire neutrophile", "neutrophil"),
        ("Stabkerniger", "neutrophil"),
        ("Stabkernige", "neutrophil"),
        ("Segmentkernige", "neutrophil"),
        ("Stabkernige Granulozyten", "neutrophil"),
        ("stab neutrophil", "neutrophil"),
        ("EOSINOPHIL", "eosinophil"),
        ("éosinophile", "eosinophil"),
        ("EO", "eosinophil"),
        ("Basophils", "basophil"),
        ("Lymphozyten", "lymphocyte"),
        ("LY", "lymphocyte"),
        ("variant lymphs", "lymphocyte"),
        ("Atypical Lymph", "lymphocyte"),
        ("mono", "monocyte"),
        ("ig", "immature granulocyte"),
        ("MMY", "immature granulocyte"),
        ("Promyelocyte", "immature granulocyte"),
        ("ERB", "erythroblast"),
        ("nucleated red blood cells", "erythroblast"),
        ("PLATELET", "platelet"),
        ("thrombocytes", "platelet"),
    ],
)
def test_names_of_public_data_find_their_class(label: str, expected: str) -> None:
    scheme = load_scheme("pbc8")
    assert scheme.canonical(label) == expected
    assert scheme.index(label) == scheme.names.index(expected)


@pytest.mark.parametrize("label", ["", None, "   ", "RBC", "1", "neutro phil", "unidentified", "blast"])
def test_other_names_find_none(label: str | None) -> None:
    assert load_scheme("pbc8").index(label) is None


def test_a_type_outside_of_the_scheme_is_none_and_not_its_neighbor() -> None:
    assert load_scheme("wbc4").index("basophil") is None
    assert load_scheme("wbc5").index("ig") is None


def test_a_finer_class_takes_its_own_names_from_the_wider_one() -> None:
    scheme = parse_scheme({"classes": ["neutrophil", "band neutrophil", "blast", "smudge cell"]}, "mine.json")
    assert scheme.canonical("BNE") == scheme.canonical("stab") == "band neutrophil"
    assert scheme.canonical("SNE") == "neutrophil"
    assert scheme.canonical("myeloblasts") == "blast"
    stab = parse_scheme({"classes": ["neutrophil", {"name": "stab"}]}, "mine.json")
    assert stab.canonical("band neutrophil") == "stab"


def test_a_users_scheme_is_completed_with_keys_and_colors(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text(json.dumps({"name": "lab", "classes": [*FIVE, {"name": "blast", "key": "z", "aliases": ["LAL"]}]}))
    scheme = load_scheme(path)
    assert scheme.name == "lab"
    assert scheme.canonical("lal") == "blast"
    assert len(set(scheme.keys)) == 6
    assert not set(scheme.keys) & set(RESERVED_KEYS)
    assert len(set(scheme.colors.values())) == 6


def test_a_scheme_may_have_more_classes_than_there_are_keys() -> None:
    scheme = parse_scheme({"name": "many", "classes": [f"c{i}" for i in range(64)]}, "many.json")
    keyed = [cell for cell in scheme.classes if cell.key]
    assert len(keyed) == 34  # letters and digits but those of RESERVED_KEYS
    assert scheme.keys == {cell.key: cell.name for cell in keyed}
    assert parse_scheme(scheme_data(scheme), "many.json") == scheme


def test_a_class_that_asks_for_a_key_goes_before_those_that_do_not() -> None:
    listed = [f"c{i}" for i in range(34)]
    scheme = parse_scheme({"name": "many", "classes": [*listed, {"name": "blast", "key": "z"}]}, "many.json")
    assert scheme.keys["z"] == "blast"
    assert [cell.name for cell in scheme.classes if not cell.key] == ["c33"]


def test_no_class_is_called_as_another_column_of_the_images_table() -> None:
    columns = images_table([], load_scheme("wbc5")).columns
    others = [name for name in columns if name not in (*FIVE, "unidentified")]
    assert len(others) == 10
    for name in (*others, "Status", "  image "):
        with pytest.raises(UsageError) as caught:
            parse_scheme({"name": "lab", "classes": ["blast", name]}, "lab.json")
        assert str(caught.value) == (
            f'lab.json: class 2 ("{name.strip()}"): this name is that of another column of images.csv; give it another.'
        )


BAD = {
    "no list": ({"classes": "neutrophil"}, 'needs a list "classes"'),
    "not an object": ([1], 'needs a list "classes"'),
    "empty": ({"classes": []}, "at least one class"),
    "too many": ({"classes": [f"c{i}" for i in range(65)]}, "at most 64"),
    "no name": ({"classes": [{"key": "n"}]}, 'class 1 needs a "name"'),
    "twice": ({"classes": ["blast", "Blast"]}, 'two classes are called "Blast"'),
    "same key": ({"classes": [{"name": "a", "key": "k"}, {"name": "b", "key": "k"}]}, 'have the same key "k"'),
    "reserved key": ({"classes": [{"name": "a", "key": "u"}]}, 'key "u" is kept for "unidentified"'),
    "long key": ({"classes": [{"name": "a", "key": "ab"}]}, "one lower-case letter or digit"),
    "reserved name": ({"classes": ["Unidentified"]}, "kept for cells outside"),
    "color": ({"classes": [{"name": "a", "color": "red"}]}, "color must be #RRGGBB"),
    "kind": ({"classes": [{"name": "a", "kind": "cell"}]}, "kind must be one of wbc, nrbc, platelet, other"),
    "unknown entry": ({"classes": [{"name": "a", "colour": "#000000"}]}, "unknown entry 'colour'"),
    "aliases": ({"classes": [{"name": "a", "aliases": "b"}]}, "aliases must be a list"),
    "shared alias": (
        {"classes": [{"name": "a", "aliases": ["x1"]}, {"name": "b", "aliases": ["X1"]}]},
        'name of both "a" and "b"',
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_scheme_is_refused_in_words(tmp_path: Path, case: str) -> None:
    data, message = BAD[case]
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"^lab\.json: ") as error:
        load_scheme(path)
    assert message in str(error.value)


def test_a_scheme_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wbc6: no such class scheme; there are pbc8, wbc4, wbc5"):
        load_scheme("wbc6")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UsageError, match=r"a\.json: is not JSON"):
        load_scheme(tmp_path / "a.json")
