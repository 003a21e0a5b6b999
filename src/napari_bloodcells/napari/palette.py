"""One color per class, the same in every image, layer, plot and report.

The colors are those of the class scheme (Okabe and Ito); what stands outside of every scheme is grey, because no hue
is left that nobody takes for a class.  The class itself lives in the features of a layer, never in its color.
"""

from __future__ import annotations

from napari_bloodcells.core.classes import NOT_A_WBC, UNIDENTIFIED, ClassScheme

UNIDENTIFIED_COLOR = "#999999"
NOT_A_WBC_COLOR = "#404040"
BYSTANDER_COLOR = "#C8C8C8"


def class_color(scheme: ClassScheme, name: str) -> str:
    """The color (``#RRGGBB``) of a class, of ``unidentified``, of ``not a WBC``, or of anything else.

    >>> from napari_bloodcells.core.classes import load_scheme
    >>> class_color(load_scheme("wbc5"), "neutrophil"), class_color(load_scheme("wbc5"), "RBC")
    ('#E69F00', '#C8C8C8')
    """
    apart = {UNIDENTIFIED: UNIDENTIFIED_COLOR, NOT_A_WBC: NOT_A_WBC_COLOR}
    return scheme.colors.get(name) or apart.get(name, BYSTANDER_COLOR)


def rgba(color: str) -> tuple[float, float, float, float]:
    """``#RRGGBB`` as four numbers from 0 to 1, opaque.

    >>> rgba("#FF0000")
    (1.0, 0.0, 0.0, 1.0)
    """
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (red, green, blue, 1.0)


def ink_on(color: str) -> str:
    """Black or white, whichever is read better on ``color`` (WCAG 2.2 relative luminance).

    >>> ink_on("#F0E442"), ink_on("#0072B2")
    ('#000000', '#FFFFFF')
    """
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba(color)[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if luminance > 0.179 else "#FFFFFF"
