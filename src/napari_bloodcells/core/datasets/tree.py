"""Class folders (``kaggle``, ``pbc``, ``misp``, and what ``crop`` writes): the folder's name is the cell's type.

Folders ``TRAIN``, ``TEST`` and the like above them are the publisher's split.  PBC's file names begin with a finer type
(``BNE`` band neutrophil), which schemes with such a class use.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.datasets.base import MACHINE, DataSet, Sample
from napari_bloodcells.core.datasets.folder import Folder

_PREFIX = re.compile(r"([A-Z]{2,4})_\d+$")


def read(folder: Folder) -> DataSet | None:
    """The data set of a tree of class folders, or None where fewer than half of the folders are named after classes."""
    by_folder: dict[str, int] = {}
    for image in folder.images:
        if image.parent != folder.root:
            by_folder[image.parent.name] = by_folder.get(image.parent.name, 0) + 1
    known = [name for name in by_folder if folder.knows(name)]
    if not known or 2 * len(known) < len(by_folder):
        return None
    samples: list[Sample] = []
    for image in folder.images:
        label = image.parent.name
        if image.parent == folder.root or label.casefold() in ("images", "img"):
            continue
        prefix = _PREFIX.match(image.stem)
        # A prefix counts as finer type only if it is one of the folder's own class.
        common = load_scheme("pbc8").canonical
        finer = prefix is not None and common(label) is not None and common(prefix.group(1)) == common(label)
        detail = prefix.group(1) if prefix and finer else label
        samples.append(
            Sample(
                image,
                None,
                folder.label(label),
                folder.grouping.of(image),
                folder.name,
                folder.split(image),
                detail=detail,
            )
        )
    for name in sorted(set(by_folder) - set(known)):
        folder.problems.append(f"{name}: folder is named after no known class; its {by_folder[name]} images keep it.")
    machine = sum(s.image.stem.endswith(f"_{MACHINE}") for s in samples)
    if machine:
        folder.problems.append(
            f"{folder.name}: {machine} of {len(samples)} crops have the class that a machine gave them (_{MACHINE} in "
            "their names); they are no labels before somebody has looked at them."
        )
    samples = _doubt_contradictions(samples)
    return DataSet(folder.name, folder.root, tuple(samples), "tree", (), tuple(folder.problems))


def _doubt_contradictions(samples: list[Sample]) -> list[Sample]:
    """PBC holds one picture twice, as band neutrophil and as eosinophil: neither is sure."""
    labels: dict[str, set[str | None]] = defaultdict(set)
    for sample in samples:
        labels[sample.group].add(sample.label)
    return [replace(s, sure=not (s.group.startswith("pbc:") and len(labels[s.group]) > 1)) for s in samples]
