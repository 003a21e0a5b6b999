"""What a model cannot name of a usual differential, so that nobody reads its absence from the table as zero.

Told from the class scheme alone, by the common vocabulary (``classes.py``): a type for which the scheme has no class,
and one that counts there as a wider type.
"""

from __future__ import annotations

from napari_bloodcells.core.classes import ClassScheme, vocabulary

USUAL = {
    "neutrophil": "neutrophils",
    "band neutrophil": "band neutrophils",
    "eosinophil": "eosinophils",
    "basophil": "basophils",
    "lymphocyte": "lymphocytes",
    "reactive lymphocyte": "reactive (atypical) lymphocytes",
    "monocyte": "monocytes",
    "immature granulocyte": "immature granulocytes",
    "blast": "blasts",
    "plasma cell": "plasma cells",
    "erythroblast": "erythroblasts (nucleated red cells)",
}
"""Types of the vocabulary that a laboratory reports of a manual differential where it sees them, in words."""


def unnamed(scheme: ClassScheme) -> str:
    """One sentence on the usual types that ``scheme`` has no class of its own for; empty where it has all.

    Examples
    --------
    >>> from napari_bloodcells.core.classes import load_scheme
    >>> unnamed(load_scheme("pbc8")).partition(",")[0]
    'The model has no class for blasts and plasma cells'
    """
    none, wider = [], []
    for name, words in USUAL.items():
        place = scheme.index(name)
        above = vocabulary()[name][0]
        if place is None:
            narrower = [n for n, (within, _) in vocabulary().items() if within == name]
            if all(scheme.index(n) is None for n in narrower) and (above is None or scheme.index(above) is not None):
                none.append(words)
        elif above is not None and scheme.index(above) == place:
            wider.append(f"{words} as {scheme.names[place]}")
    parts = [f"has no class for {_list(none)}" if none else "", f"counts {_list(wider)}" if wider else ""]
    if not any(parts):
        return ""
    return (
        f"The model {', and '.join(filter(None, parts))}: that none is reported does not mean that the smear has none."
    )


def _list(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
