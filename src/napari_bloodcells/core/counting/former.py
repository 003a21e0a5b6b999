"""What a former run left in an output folder beside its tables, and what becomes of it when these are overwritten.

Report pages and overlays would go on to show cells that are no longer those of the tables: they are removed, each by
its mark or by a name that the former tables give.  Exports may hold a reviewer's work: they are kept and named.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_bloodcells.core.errors import DataWarning
from napari_bloodcells.core.files import PART, display_name, remove_parts

EXPORTS = ("fhir-r4", "fhir-r5", "coco", "voc", "geojson", "parquet", "csv")
"""Folders that ``export`` makes in an output folder: the names of its forms."""
_LOOSE_EXPORTS = ("*.fhir.json", "coco.json", "*.geojson")
"""Exports that can only be such, where somebody had them written beside the tables."""


def remove_former(folder: Path, images: Sequence[str], slides: frozenset[str]) -> None:
    """Remove the report pages and overlays of the run whose tables lie in ``folder``.

    Parameters
    ----------
    folder : Path
    images : sequence of str
        Those of the former run, as its tables name them.
    slides : frozenset of str
        Which of them are whole slides.

    Warns
    -----
    DataWarning
        For the exports of that run, which stay.
    """
    from napari_bloodcells.core.report.pagefile import pages_in

    for page in list(pages_in(folder)):
        with contextlib.suppress(OSError):
            page.unlink()
    _remove_overlays(folder, images, slides)
    if exports := list(_exports(folder)):
        warnings.warn(
            f"{display_name(folder)}: holds exports of the former count ({', '.join(exports)}), which are kept; export "
            "again with --overwrite, or remove them.",
            DataWarning,
            stacklevel=3,
        )


def _remove_overlays(folder: Path, images: Sequence[str], slides: frozenset[str]) -> None:
    """Remove the overlays of ``images``, and the folders that are empty after that."""
    from napari_bloodcells.core.counting.overlay import FOLDER, overlay_name

    root = folder / FOLDER
    if not root.is_dir():
        return
    emptied = set()
    inside = Path(os.path.realpath(root))
    for name in images:
        place = root / overlay_name(name, name in slides)
        if not Path(os.path.realpath(place.parent)).is_relative_to(inside):
            continue  # through a link that is none of ours
        with contextlib.suppress(OSError):
            place.unlink()
            emptied.update([place.parent, *(p for p in place.parent.parents if root in p.parents), root])
    for place in sorted(emptied, key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):  # it still holds something
            remove_parts(place, PART)
            place.rmdir()


def _exports(folder: Path) -> Iterator[str]:
    """The folders and files of ``export`` in an output folder, under the names that it gives them."""
    for form in EXPORTS:
        with contextlib.suppress(OSError):
            if any((folder / form).iterdir()):
                yield form
    for pattern in _LOOSE_EXPORTS:
        yield from (path.name for path in sorted(folder.glob(pattern)))
