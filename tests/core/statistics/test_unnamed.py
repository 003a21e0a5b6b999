"""What a model cannot name, told from its classes alone."""

from __future__ import annotations

import pytest

from napari_bloodcells.core.classes import load_scheme, parse_scheme
from napari_bloodcells.core.statistics.unnamed import USUAL, unnamed

BANDS = "counts band neutrophils as neutrophil"
REACTIVE = "reactive (atypical) lymphocytes as lymphocyte"


@pytest.mark.parametrize(
    ("scheme", "none"),
    [
        ("wbc4", "basophils, immature granulocytes, blasts, plasma cells and erythroblasts (nucleated red cells)"),
        ("wbc5", "immature granulocytes, blasts, plasma cells and erythroblasts (nucleated red cells)"),
        ("pbc8", "blasts and plasma cells"),
    ],
)
def test_the_types_that_a_scheme_lacks_are_named(scheme: str, none: str) -> None:
    said = unnamed(load_scheme(scheme))
    assert said.startswith(f"The model has no class for {none}, and {BANDS} and {REACTIVE}: ")
    assert said.endswith("that none is reported does not mean that the smear has none.")


def test_a_scheme_of_finer_types_has_the_wider_ones() -> None:
    finer = [
        "SNE",
        "BNE",
        "eos",
        "baso",
        "typical lymphocyte",
        "LYA",
        "mono",
        "myelocyte",
        "metamyelocyte",
        "myeloblast",
    ]
    said = unnamed(parse_scheme({"name": "fine", "classes": finer}, "fine"))
    assert said.partition(":")[0] == ("The model has no class for plasma cells and erythroblasts (nucleated red cells)")


def test_a_scheme_of_all_types_needs_no_sentence_and_one_of_a_single_class_lacks_the_others() -> None:
    assert unnamed(parse_scheme({"name": "all", "classes": list(USUAL)}, "all")) == ""
    said = unnamed(parse_scheme({"name": "one", "classes": ["lymphocyte"]}, "one"))
    assert said.startswith("The model has no class for neutrophils, eosinophils, basophils, monocytes, ")
    assert "band" not in said, "a finer type of one that is missing goes without saying"
    assert f", and counts {REACTIVE}: " in said
