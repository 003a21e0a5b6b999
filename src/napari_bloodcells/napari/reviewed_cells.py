"""Cells that a person looked at, as a data set for training: from open layers, or from the journals in a folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_bloodcells.core.classes import NOT_A_WBC
from napari_bloodcells.core.errors import BloodcellsError, DataSetError
from napari_bloodcells.napari.fields import METADATA, Fields, fields_of
from napari_bloodcells.napari.journal import SUFFIX, read_journal, user_folder
from napari_bloodcells.napari.review import Review
from napari_bloodcells.napari.tables import review_of_frame

if TYPE_CHECKING:
    from napari.components import LayerList

    from napari_bloodcells.core.datasets.base import DataSet, Sample

_LOG = logging.getLogger(__name__)
NONE_REVIEWED = (
    "no cell was looked at yet; name some cells in the Differential count widget (Enter confirms the class of a cell "
    "that is right)."
)
NO_CELLS = "no cell of a photograph; count some photographs in the Differential count widget first."


def reviewed_samples(review: Review, files: dict[str, Path], *, unseen: bool = False) -> list[Sample]:
    """The reviewed cells of one review whose class is one of the scheme; ``files`` gives the photograph of a field.

    With ``unseen`` all its cells without their classes, but for those that were called no white cell.

    Cells of one photograph form a group, so that training never tests on a neighbor.  They keep the scale at which
    they were counted, where the review tells it.
    """
    from napari_bloodcells.core.datasets.base import Sample

    scales = dict(zip(review.images, review.info.get("um_per_pixel", ()), strict=False))
    samples = []
    for cell in review.cells:
        name = review.images[cell.image]
        file = files.get(name)
        named = cell.reviewed and cell.name in review.scheme.names
        if file is None or not (named or (unseen and cell.name != NOT_A_WBC)):
            continue
        label = None if unseen else cell.name
        samples.append(Sample(file, cell.box, label, f"reviewed:{file}", "reviewed", um_per_pixel=scales.get(name)))
    return samples


def open_layers_data(layers: LayerList, *, unseen: bool = False) -> DataSet:
    """The reviewed cells of all open cell layers; with ``unseen`` all their cells, without their classes.

    A field that has no file (an array, a sample) is written as PNG into the plugin's own folder first.

    Raises
    ------
    DataSetError
        No open layer holds a reviewed cell.
    """
    images = {layer.name: layer for layer in layers if layer.__class__.__name__ == "Image"}
    samples: list[Sample] = []
    for layer in layers:
        if layer.__class__.__name__ != "Shapes" or not {"image", "cell", "class", "reviewed"} <= set(layer.features):
            continue
        known = layer.metadata.get(METADATA, {})
        review = review_of_frame(layer.features, list(known.get("images", ())) or None, info=known)
        image = images.get(known.get("image_layer", ""))
        if image is None:
            _LOG.info("%s: its image is not open; left out.", layer.name)
            continue
        samples += reviewed_samples(review, _files(fields_of(image)), unseen=unseen)
    return _data_set(samples, Path.cwd(), "open layers", NO_CELLS if unseen else NONE_REVIEWED)


def folder_data(folder: Path) -> DataSet | Path:
    """The reviewed cells of the journals in a folder; the folder itself where it holds none (class folders, VOC).

    Raises
    ------
    DataSetError
        There are journals, but no reviewed cell in them.
    """
    journals = sorted(folder.rglob(f"*{SUFFIX}"))
    if not journals:
        return folder
    samples: list[Sample] = []
    for journal in journals:
        try:
            review = read_journal(journal)
        except BloodcellsError as error:
            _LOG.warning("%s Left out.", error)
            continue
        told = dict(zip(review.images, (Path(p) for p in review.info.get("paths", ())), strict=False))
        beside = {name: journal.parent / name for name in review.images}
        files = {name: told[name] if name in told and told[name].is_file() else beside[name] for name in review.images}
        samples += reviewed_samples(review, {name: path for name, path in files.items() if path.is_file()})
    return _data_set(samples, folder, folder.name)


def class_counts(data: DataSet) -> str:
    """How many cells of each class there are, in one line."""
    return ", ".join(f"{n} {name}" for name, n in data.counts().items())


def _files(fields: Fields) -> dict[str, Path]:
    if fields.paths:
        return dict(zip(fields.names, fields.paths, strict=True))
    from PIL import Image

    home = user_folder().parent / "fields"
    home.mkdir(parents=True, exist_ok=True)
    files = {}
    for index, name in enumerate(fields.names):
        field = fields.read(index)
        path = home / f"{hashlib.sha256(field.tobytes()).hexdigest()[:16]}.png"
        if not path.exists():
            Image.fromarray(field).save(path)
        files[name] = path
    return files


def _data_set(samples: Iterable[Sample], root: Path, name: str, none: str = NONE_REVIEWED) -> DataSet:
    from napari_bloodcells.core.datasets.base import DataSet

    found = tuple(samples)
    if not found:
        raise DataSetError(f"{name}: {none}")
    return DataSet(name, root, found, "reviewed")
